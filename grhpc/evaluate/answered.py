"""A finished evaluation as its two files have it, wherever they were copied to: summary.json and samples.parquet.

Does not know: who made them, how they are compared. Invariant: the samples are those that the summary was made from.
"""

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grhpc.errors import CorruptFile, StoreError
from grhpc.evaluate.figures import Asked
from grhpc.evaluate.statistics import known, read_groups
from grhpc.store.atomic import list_names, read_json
from grhpc.store.rundir import SAMPLES, SUMMARY
from grhpc.store.transfer import describe

COLUMNS = ("benchmark", "item", "sample", "score", "groups", "question", "prompt", "options", "gold")


@dataclass(frozen=True)
class Answered:
    """One question and what became of it. `put` is a digest of what was asked and of what is right."""

    asked: Asked
    put: str
    undecided: bool  # one of its samples has no verdict


@dataclass(frozen=True)
class Evaluation:
    """`questions` are by benchmark and by item."""

    name: str
    summary: dict[str, Any]
    questions: dict[str, dict[str, Answered]]


def read_summary(folder: Path) -> dict[str, Any] | None:
    """The folder's summary; None where there is none yet. Raises CorruptFile where it is no evaluation's."""
    if SUMMARY not in list_names(folder):
        return None
    summary = read_json(folder / SUMMARY)
    if not isinstance(summary, dict) or not isinstance(summary.get("benchmarks"), dict):
        raise CorruptFile(f"{folder / SUMMARY} is no evaluation's", "restore it, or evaluate again")
    return summary


def read_evaluation(folder: Path, name: str) -> Evaluation:
    """Both files. Raises StoreError where one is missing, CorruptFile where they do not belong together."""
    summary, path = read_summary(folder), folder / SAMPLES
    if summary is None or path.name not in list_names(folder):
        missing = SUMMARY if summary is None else SAMPLES
        raise StoreError(f"{name} has no {missing}", f"is it finished? see: python submit.py status {name}")
    if describe(path)["sha256"] != summary.get("samples_sha256"):
        raise CorruptFile(f"{path} is not what {SUMMARY} was made from", "restore both files, or evaluate again")
    return Evaluation(name, summary, _questions(path))


def _questions(path: Path) -> dict[str, dict[str, Answered]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if missing := set(COLUMNS) - set(pq.read_schema(path).names):
            raise CorruptFile(f"{path} has no column {min(missing)}", "restore it, or evaluate again")
        rows = pq.read_table(path, columns=list(COLUMNS), page_checksum_verification=True).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise CorruptFile(f"{path} is not readable Parquet: {error}", "restore it, or evaluate again") from None
    samples: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for row in sorted(rows, key=lambda row: (row["benchmark"], row["item"], row["sample"])):
        samples.setdefault(row["benchmark"], {}).setdefault(row["item"], []).append(row)
    return {name: {item: _answered(of) for item, of in items.items()} for name, items in samples.items()}


def _answered(rows: list[dict[str, Any]]) -> Answered:
    first, scores = rows[0], [math.nan if row["score"] is None else float(row["score"]) for row in rows]
    put = json.dumps([first[key] for key in ("question", "prompt", "options", "gold")])
    asked = Asked(first["item"], tuple(known(score) for score in scores), read_groups(first["groups"]))
    return Answered(asked, hashlib.sha256(put.encode()).hexdigest(), any(map(math.isnan, scores)))
