"""A row of a data set to the fields of a question: which column holds what, and how the right answer is written there.

Does not know: files, benchmarks' names, prompts. Invariant: a right answer that is returned is not empty, and that of
multiple choice is the letter of an option.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from grhpc.answer.extract import extract_answer
from grhpc.errors import DataError
from grhpc.evaluate.prompts import LETTERS

Row = Mapping[str, Any]


def choose(available: Iterable[str], wanted: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Our name -> the first of its alternatives that is there; names with none are left out."""
    there = set(available)
    chosen = {ours: next((c for c in theirs if _first_part(c, there)), "") for ours, theirs in wanted.items()}
    return {ours: column for ours, column in chosen.items() if column}


def look_up(row: Row, column: str) -> Any:
    """The value of a column; a dot goes into a nested value. None where there is none."""
    value: Any = row
    for part in [column] if column in row else column.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return None if isinstance(value, float) and value != value else value


def as_text(value: Any) -> str:
    """A value as a right answer would be written: 36.0 is 36, a list of one is that one."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value)
    return (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)).strip()


def as_options(value: Any) -> list[str]:
    """A list-valued column; also one that a CSV writer turned into JSON text."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError:
            return []
    return [as_text(option) for option in value] if isinstance(value, list) else []


def read_gold(kind: str, value: Any, num_options: int, entry: str) -> str:
    """The right answer. Raises DataError where it cannot be read, naming the settings of the entry."""
    text = as_text(value)
    remedy = f"mend the data, or {entry}.fields.gold, the column, or {entry}.gold, how it is written there"
    if kind == "boxed" and "\\boxed" in text:
        text = extract_answer(text) or ""
    elif kind == "boxed" and "\n" in text:
        raise DataError("a solution without a box", f"name the column of the answer in {entry}.fields.gold")
    elif kind == "after_hashes":
        text = re.sub(r"(?<=\d),(?=\d{3})", "", text.rpartition("####")[2]).strip()
    elif kind == "index":
        text = LETTERS[int(text)] if text.isdigit() and int(text) < len(LETTERS) else ""
    elif kind == "letter":
        text = text.strip("(). ").upper()
    if not text:
        raise DataError("no right answer", remedy)
    if kind in ("letter", "index") and text not in LETTERS[:num_options]:
        raise DataError(f"the right answer is {text!r}, of {num_options} options", remedy)
    return text


def _first_part(column: str, there: set[str]) -> bool:
    return column in there or column.split(".")[0] in there
