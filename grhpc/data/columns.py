"""One dataset row, in whatever shape it came, to question, answer and labels.

A shape is recognised by the columns that are there; `data.columns` in the configuration overrides it. Shapes known:
question + answer (WebInstruct-verified; GSM8K, whose answer ends in `#### 42`); messages or a list-valued prompt with
ground_truth or reward_model.ground_truth; prompt + reference; problem_text + answer_number/answer_latex with a unit.
Does not know: files, tokenizers. Invariant: a Fields that is returned has a question and an answer that are not empty.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from grhpc.errors import DataError

Row = Mapping[str, Any]

# Our name -> the columns that may hold it, best first. A dot goes into a nested value.
CANDIDATES: dict[str, tuple[str, ...]] = {
    "question": ("question", "messages", "problem", "problem_text", "prompt", "instruction", "Question"),
    "answer": (
        "ground_truth",
        "reward_model.ground_truth",
        "answer_number",
        "answer_latex",
        "answer",
        "reference",
        "final_answer",
        "Answer",
    ),
    "id": ("id", "unique_id", "uuid", "question_id", "problemid", "idx"),
    "answer_type": ("answer_type", "Answer_type", "task_type", "kind"),
    "category": ("category", "subject", "ability", "tag", "source", "data_source", "dataset"),
    "difficulty": ("difficulty", "level"),
}
OPTIONAL = ("id", "answer_type", "category", "difficulty")
NAMES = tuple(CANDIDATES) + ("unit",)


@dataclass(frozen=True)
class Fields:
    """What a row says, as plain text; labels may be empty."""

    question: str
    answer: str
    id: str
    answer_type: str
    category: str
    difficulty: str


def choose_columns(available: Iterable[str], wanted: Mapping[str, str]) -> dict[str, str]:
    """Our name -> their column, by `wanted` first and by recognised shape otherwise.

    Raises DataError naming the columns there are, where one that is wanted or needed is not there.
    """
    columns = list(available)
    there = ", ".join(columns) or "none"
    chosen: dict[str, str] = {}
    for name, column in wanted.items():
        if name not in NAMES:
            raise DataError(f"data.columns names {name!r}, which is not a column of ours", f"use: {', '.join(NAMES)}")
        if column.split(".")[0] not in columns:
            raise DataError(f"no column {column!r} (data.columns.{name}) in the dataset", f"columns there: {there}")
        chosen[name] = column
    for name, candidates in CANDIDATES.items():
        match = next((c for c in candidates if c.split(".")[0] in columns), None)
        if name not in chosen and match:
            chosen[name] = match
        elif name not in chosen and name not in OPTIONAL:
            raise DataError(
                f"no column of the dataset looks like the {name}",
                f"set data.columns to {{{name}: <column>}}; columns there: {there}",
            )
    if chosen["answer"] in ("answer_number", "answer_latex") and "unit" in columns:
        chosen.setdefault("unit", "unit")
    return chosen


def read_fields(row: Row, columns: Mapping[str, str]) -> Fields | None:
    """The row's fields by the chosen columns; None where the question or the answer is empty."""
    question = _question(_lookup(row, columns["question"]))
    answer = _answer(_text(_lookup(row, columns["answer"])))
    if not question or not answer:
        return None
    unit = _text(_lookup(row, columns["unit"])) if "unit" in columns else ""
    labels = {name: _text(_lookup(row, columns[name])) if name in columns else "" for name in OPTIONAL}
    return Fields(question=question, answer=f"{answer} {unit}".strip(), **labels)


def _lookup(row: Row, column: str) -> Any:
    value: Any = row
    for part in [column] if column in row else column.split("."):
        value = _parsed(value)
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _parsed(value: Any) -> Any:
    """Nested values that a CSV or JSONL writer turned into JSON text."""
    if isinstance(value, str) and value.lstrip().startswith(("{", "[")):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _question(value: Any) -> str:
    """The question's text; of a conversation the last user turn, of a wrapped prompt what stands between its frame."""
    turns = _parsed(value)
    if isinstance(turns, list) and turns and all(isinstance(t, Mapping) and "content" in t for t in turns):
        value = next((t["content"] for t in reversed(turns) if t.get("role", "user") == "user"), "")
    text = _text(value)
    wrapped = re.fullmatch(
        r"Question:\s*(.+?)\s*Answer the question and return in the following format:.*", text, flags=re.DOTALL
    )
    return wrapped.group(1) if wrapped else text


def _answer(text: str) -> str:
    """The reference without the solution before it: what follows the last `####`, or stands in a lone final box."""
    if "####" in text:
        text = re.sub(r"(?<=\d),(?=\d{3})", "", text.rpartition("####")[2])
    boxed = re.fullmatch(r"(?:[^{}\n]*:\s*)?\$?\\+boxed\{([^{}]*)\}\$?\.?", text.strip())
    return (boxed.group(1) if boxed else text).strip()


def _text(value: Any) -> str:
    if value is None or isinstance(value, float) and value != value:
        return ""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)).strip()
