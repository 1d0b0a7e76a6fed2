"""The rows of a benchmark: from one file, several, a folder, the Hub, or the tiny world.

Beside what data/source reads: a pattern ("folder/*.json"), a folder of plain data files (those whose path names the
split, or all where none does), and a JSON object that wraps its rows ({"examples": [...]}). Rows of several files have
one column more, `_folder`: the name of the folder that their file is in. Pictures are left out: no model sees them.

Does not know: benchmarks, columns. Invariant: the rows of several files come in the order of the files' paths; the same
rows have the same digest.
"""

import json
from pathlib import Path
from typing import Any

from grhpc.data.source import SUFFIXES, TINY, Source, as_source, read_source
from grhpc.errors import DataError

NUM_TINY = 512
FOLDER = "_folder"
_SPLITS = {"train", "test", "validation", "valid", "val", "dev", "heldout"}


def read_rows(source: str, split: str) -> Source:
    """All rows. Raises DataError where there are none, or they cannot be read."""
    if source == TINY:
        return read_source(TINY, split, limit=None, num_tiny=NUM_TINY)
    path = Path(source)
    if _is_pattern(source) or (path.is_dir() and not _is_copy(path)):
        return _files(source, local_files(source, split))
    if path.suffix in SUFFIXES:
        return _file(path)
    found = read_source(source, split, limit=None, num_tiny=0)
    return as_source(found.name, [{key: _plain(value) for key, value in row.items()} for row in found.rows])


def local_files(source: str, split: str) -> list[Path]:
    """The files here that rows are read from; none for the Hub, the tiny world, and a place that is not here."""
    path = Path(source)
    if source == TINY:
        return []
    if _is_pattern(source):
        return sorted(path for path in _glob(path) if path.suffix in SUFFIXES)
    if path.is_dir():
        return _data_files(path) if _is_copy(path) else _of_split(path, split)
    return [path] if path.suffix in SUFFIXES and path.is_file() else []


def _is_copy(folder: Path) -> bool:
    """Whether it is a copy of a Hub data set, which says itself what is what."""
    return (folder / "README.md").exists()


def _data_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix in SUFFIXES and path.is_file())


def _plain(value: Any) -> Any:
    """A value, or its type alone where it is a picture or the like, whose text would be an address in memory."""
    is_plain = value is None or isinstance(value, str | int | float | bool | list | dict)
    return value if is_plain else f"({type(value).__name__})"


def is_file(source: str) -> bool:
    """Whether the source is a file or files by name, which have no splits."""
    return _is_pattern(source) or Path(source).suffix in SUFFIXES


def _is_pattern(source: str) -> bool:
    return any(mark in source for mark in "*?[") and not Path(source).exists()


def _glob(pattern: Path) -> list[Path]:
    root = Path(pattern.anchor)
    return list(root.glob(str(pattern.relative_to(root))))


def _of_split(folder: Path, split: str) -> list[Path]:
    files = _data_files(folder)
    words = {path: set(_words(str(path.relative_to(folder)))) for path in files}
    if not any(words[path] & _SPLITS for path in files):
        return files
    found = [path for path in files if split in words[path]]
    if not found:
        there = ", ".join(str(path.relative_to(folder)) for path in files[:5])
        raise DataError(f"no file in {folder} has {split!r} in its name", f"name a file or a pattern; there: {there}")
    return found


def _words(text: str) -> list[str]:
    return "".join(c if c.isalnum() else " " for c in text.lower()).split()


def _files(source: str, paths: list[Path]) -> Source:
    if not paths:
        kinds = "/".join(suffix[1:] for suffix in SUFFIXES)
        raise DataError(f"no data file in {source}", f"name another place, with {kinds} files")
    if len(paths) == 1:
        return _file(paths[0])
    rows: list[dict[str, Any]] = []
    for path in paths:
        rows += [row | {FOLDER: path.parent.name} for row in _file(path).rows]
    return as_source(source, rows)


def _file(path: Path) -> Source:
    if not path.is_file():
        raise DataError(f"no such dataset file: {path}", "name one that is there")
    if path.suffix == ".json":
        rows = _wrapped(path)
        if rows is not None:
            return as_source(str(path), rows)
    return read_source(str(path), "", limit=None, num_tiny=0)


def _wrapped(path: Path) -> list[dict[str, Any]] | None:
    """The rows of a JSON object with one list of objects in it; None where the file is anything else."""
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None
    if not isinstance(tree, dict):
        return None
    lists = [v for v in tree.values() if isinstance(v, list) and v and all(isinstance(row, dict) for row in v)]
    return lists[0] if len(lists) == 1 else None
