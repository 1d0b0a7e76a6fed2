"""Where rows come from: a local file, a local folder or Hub id (`id` or `id:configuration`), or the tiny world.

Does not know: what the columns mean. Invariant: a source yields its rows in one fixed order.
"""

import csv
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from grhpc.data import hub, tiny
from grhpc.errors import DataError

TINY = "tiny"
SUFFIXES = (".parquet", ".jsonl", ".json", ".csv")


@dataclass(frozen=True)
class Source:
    """Rows with the union of their columns; `digest` is of the rows' content, `name` is for people."""

    name: str
    columns: list[str]
    rows: list[dict[str, Any]]
    digest: str


def read_source(source: str, split: str, *, limit: int | None, num_tiny: int) -> Source:
    """All rows (or the first `limit`) of a split. Raises DataError where it is missing or not readable."""
    if source == TINY:
        rows = tiny.rows(split, min(num_tiny, limit or num_tiny), seed=0)
        return as_source(f"tiny:{split}", rows)
    path = Path(source)
    if path.suffix in SUFFIXES:
        if not path.is_file():
            raise DataError(f"no such dataset file: {source}", "mend data.source")
        return as_source(str(path), _read_file(path)[:limit])
    return as_source(f"{source}:{split}", _load_dataset(source, split)[:limit])


def has_split(source: str, split: str) -> bool:
    """Whether a folder or Hub dataset has this split (a file has none, the tiny world any)."""
    if source == TINY:
        return True
    if not source or Path(source).suffix in SUFFIXES:
        return False
    import datasets

    _ask_hub(source)
    try:
        return split in datasets.get_dataset_split_names(*_name_and_subset(source))
    except _library_errors() as error:
        raise _unreadable(source, error) from None


def as_source(name: str, rows: list[dict[str, Any]]) -> Source:
    """Rows that are there, with their columns and digest. Raises DataError where there are none, or one is no text."""
    if not rows:
        raise DataError(f"dataset {name} has no rows", "name another source or split")
    columns = list(dict.fromkeys(column for row in rows for column in row))
    digest = hashlib.sha256()
    for number, row in enumerate(rows, start=1):
        try:
            digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False, default=str).encode())
        except UnicodeEncodeError:  # JSON can say it
            raise DataError(f"{name}: row {number} has half of a surrogate pair, which is no text", "mend it") from None
    return Source(name, columns, rows, digest.hexdigest())


def _read_file(path: Path) -> list[dict[str, Any]]:
    readers = {".parquet": _read_parquet, ".jsonl": _read_jsonl, ".json": _read_json, ".csv": _read_csv}
    try:
        rows = list(readers[path.suffix](path))
    except (ValueError, csv.Error, pa.ArrowException) as error:  # JSON and encoding errors are ValueErrors
        raise DataError(f"{path} is not valid {path.suffix[1:]}: {error}", "mend or re-download the file") from None
    other = next((number for number, row in enumerate(rows, start=1) if not isinstance(row, dict)), None)
    if other is not None:
        raise DataError(f"{path}: row {other} is not one object", "give rows of named columns")
    return rows


def _read_parquet(path: Path) -> Iterator[dict[str, Any]]:
    for batch in pq.ParquetFile(path).iter_batches():
        yield from batch.to_pylist()


def _read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as lines:  # a text file would decode ahead, and not know which line it could not
        for number, line in enumerate(lines, start=1):
            try:
                text = line.decode().rstrip()
                if text:
                    yield json.loads(text)
            except json.JSONDecodeError as error:
                raise ValueError(f"line {number}, column {error.colno}: {error.msg}") from None
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from None


def _read_json(path: Path) -> list[dict[str, Any]]:
    """A JSON array; also JSON lines under the wrong name, which is common."""
    text = path.read_text(encoding="utf-8")
    if text.lstrip().startswith("["):
        rows: list[dict[str, Any]] = json.loads(text)
        return rows
    return list(_read_jsonl(path))


def _read_csv(path: Path) -> list[dict[str, Any]]:
    csv.field_size_limit(1 << 24)
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _load_dataset(source: str, split: str) -> list[dict[str, Any]]:
    import datasets

    name, subset = _name_and_subset(source)
    _ask_hub(source)
    try:
        loaded = datasets.load_dataset(name, subset, split=split)
    except _library_errors() as error:
        raise _unreadable(source, error) from None
    return [dict(row) for row in loaded]


def _name_and_subset(source: str) -> tuple[str, str | None]:
    """ "openai/gsm8k:main" is the configuration `main` of that dataset; a folder may have a colon in its name."""
    if Path(source).is_dir():
        return source, None
    name, _, subset = source.partition(":")
    return name, subset or None


def _library_errors() -> tuple[type[Exception], ...]:
    """What `datasets` raises: its own errors and the Hub's share no base."""
    from datasets.exceptions import DatasetsError

    return (DatasetsError, *hub.errors())


def _unreadable(source: str, error: Exception) -> DataError:
    kinds = f"a folder, or a {'/'.join(s[1:] for s in SUFFIXES)} file"
    if _is_path(source) or hub.answers():
        why = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
        return DataError(
            f"dataset {source!r} cannot be read: {why}", f"give a Hub id, {kinds}; without network, a local one"
        )
    return DataError(f"dataset {source!r} cannot be read: {hub.reason(error)}", f"{hub.REMEDY}; or name {kinds}")


def _ask_hub(source: str) -> None:
    """For a dataset that is not here: `datasets` has a switch of its own, which it set when it was imported."""
    import datasets

    if not _is_path(source) and not hub.answers():
        datasets.config.HF_HUB_OFFLINE = datasets.config.HF_DATASETS_OFFLINE = True


def _is_path(source: str) -> bool:
    return source.startswith(("/", ".")) or Path(source).exists()
