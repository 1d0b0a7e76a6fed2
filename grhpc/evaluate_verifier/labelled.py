"""Labelled pairs: a question, its reference, a student's answer, and whether people (or a strong judge) call it right.

Files of our own columns are Parquet, JSON, JSONL, CSV or TSV; a `response` in the place of an `answer` goes through the
extractor, as it does in training. `tiny:N` is the tiny world: N held-out honest pairs, labelled by its oracle.

Does not know: judges, metrics; the shapes of public data sets stand in `formats.py`. Invariant: a row without a label
is left out and counted, never guessed.
"""

import csv
import hashlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grhpc.answer.extract import extract_answer
from grhpc.data import tiny
from grhpc.data.source import SUFFIXES, read_source
from grhpc.data.tiny_lessons import DOMAINS, honest_pair
from grhpc.errors import DataError

Row = Mapping[str, Any]

YES_WORDS = {"yes", "true", "1", "1.0", "correct", "right", "y"}
NO_WORDS = {"no", "false", "0", "0.0", "incorrect", "wrong", "n"}
# Our name -> the columns that may hold it, best first.
CANDIDATES: dict[str, tuple[str, ...]] = {
    "question": ("question", "problem", "prompt", "Question"),
    "reference": ("reference", "ground_truth", "gold_answer", "correct_answer", "expected_answer", "golden_answer"),
    "answer": ("answer", "student_answer", "prediction"),
    "response": ("response", "llm_response", "llm_output"),
    "label": ("label", "human_judgment_result", "gold_judgment", "correct", "is_correct", "judgement", "judgment"),
    "answer_type": ("answer_type", "key_answer_type"),
    "category": ("category", "subject", "domain"),
    "source": ("source", "data_source", "dataset"),
}
LABELS = ("answer_type", "category", "source")


@dataclass(frozen=True)
class Labelled:
    """One pair. `answer` is None where a response holds none; `label` is True for an answer that is right."""

    question: str
    reference: str
    answer: str | None
    label: bool
    answer_type: str = ""
    category: str = ""
    source: str = ""


@dataclass(frozen=True)
class LabelledFile:
    """What was read: the pairs, how many rows had no usable label, and the digest of the bytes."""

    name: str
    pairs: list[Labelled]
    unlabelled: int
    digest: str


def read_label(value: Any) -> bool | None:
    """True, False, or None where the value is no label. `A` and `C` stand for nothing here: say yes or no."""
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    return True if word in YES_WORDS else False if word in NO_WORDS else None


def text(value: Any) -> str:
    """A cell as text; nothing for a missing one."""
    return "" if value is None or value != value else str(value).strip()


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a table. Raises DataError naming the file."""
    if path.suffix == ".tsv":
        csv.field_size_limit(1 << 24)
        with path.open(encoding="utf-8", newline="") as file:
            rows: list[dict[str, Any]] = [dict(row) for row in csv.DictReader(file, delimiter="\t")]
        if not rows:
            raise DataError(f"{path} has no rows", "name another file")
        return rows
    return read_source(str(path), "", limit=None, num_tiny=0).rows


def is_table(path: Path) -> bool:
    return path.suffix in (*SUFFIXES, ".tsv")


def choose_columns(available: Sequence[str], wanted: Mapping[str, str], where: str) -> dict[str, str]:
    """Our name -> their column: as wanted, else by the usual names.

    Raises DataError naming the columns there are, where one that is wanted or needed is missing.
    """
    there = ", ".join(available)
    for name, column in wanted.items():
        if name not in CANDIDATES:
            raise DataError(f"--column names {name!r}, which is none of ours", f"use: {', '.join(CANDIDATES)}")
        if column not in available:
            raise DataError(f"{where} has no column {column!r} (--column {name}=...)", f"columns there: {there}")
    chosen = {n: c for n, names in CANDIDATES.items() if (c := next((c for c in names if c in available), ""))}
    chosen |= wanted
    if "response" in wanted and "answer" not in wanted:
        chosen.pop("answer", None)
    for name in ("question", "reference", "label"):
        if name not in chosen:
            raise DataError(f"no column of {where} looks like the {name}", f"--column {name}=ONE OF: {there}")
    if "answer" not in chosen and "response" not in chosen:
        raise DataError(f"no column of {where} looks like an answer or a response", f"--column answer=ONE OF: {there}")
    return chosen


def pairs_of_rows(rows: Sequence[Row], columns: Mapping[str, str], source: str) -> Iterator[Labelled | None]:
    """A pair for every row; None for one without a label, a question or a reference."""
    for row in rows:
        cell = {name: text(row.get(column)) for name, column in columns.items()}
        label = read_label(row.get(columns["label"]))
        if label is None or not cell["question"] or not cell["reference"]:
            yield None
            continue
        answer = (cell["answer"] or None) if "answer" in cell else extract_answer(cell["response"])
        labels = {name: cell.get(name, "") for name in LABELS}
        yield Labelled(cell["question"], cell["reference"], answer, label, **(labels | _source(labels, source)))


def _source(labels: Mapping[str, str], source: str) -> dict[str, str]:
    return {"source": labels["source"] or source}


def gathered(name: str, pairs: Iterator[Labelled | None], digest: str) -> LabelledFile:
    """Pairs and the count of those that were None. Raises DataError where nothing is left."""
    found = list(pairs)
    kept = [pair for pair in found if pair is not None]
    if not kept:
        raise DataError(f"{name} holds no labelled pair", "labels are yes/no, true/false, 1/0, correct/incorrect")
    return LabelledFile(name, kept, len(found) - len(kept), digest)


def digest_of(paths: Sequence[Path]) -> str:
    """sha256 over the files' bytes, in their order."""
    total = hashlib.sha256()
    for path in paths:
        total.update(path.read_bytes())
    return total.hexdigest()


def tiny_pairs(num: int, seed: int = 1, make: Callable[..., Any] = honest_pair) -> LabelledFile:
    """Held-out pairs of the tiny world, the same number of every domain, labelled by the strict oracle."""
    rng = random.Random(seed)
    per_domain = -(-num // len(DOMAINS))
    pairs: list[Labelled | None] = []
    for domain in DOMAINS:
        for _ in range(per_domain):
            made = make(tiny.draw_task(rng, domain, False), rng)
            labels = domain.answer_type, domain.category, "tiny"
            pairs.append(Labelled(made.task.question, made.reference, made.answer, made.equivalent, *labels))
    digest = hashlib.sha256(repr(pairs).encode()).hexdigest()
    return gathered(f"tiny:{num}", iter(pairs), digest)
