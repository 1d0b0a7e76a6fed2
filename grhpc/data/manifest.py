"""What a prepared folder was made of: its settings, and the local files of its sources as they were.

A file is known by its size, its time and its digest. As long as size and time are the same it is not read; another
time alone (a copy, a checkout) is no change where the bytes are the same.
Does not know: what is prepared. Invariant: a source that is here and is not what was prepared is never taken for it;
one that is not here (the Hub's, the tiny world, another machine's) says nothing.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from grhpc.data.source import TINY
from grhpc.errors import DataError
from grhpc.store.atomic import list_names, read_json, storing
from grhpc.store.transfer import describe

NAME = "manifest.json"
Files = dict[str, dict[str, dict[str, Any]]]  # source -> file -> what it was


def read_manifest(prepared_dir: Path) -> dict[str, Any] | None:
    """What a preparation wrote last, or None where the folder is not (wholly) prepared."""
    if NAME not in list_names(prepared_dir):
        return None
    manifest: dict[str, Any] = read_json(prepared_dir / NAME)
    return manifest


def unchanged(folder: Path, settings: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
    """The manifest of a prepared folder, None where there is none.

    Raises DataError where its settings were others, or the files of its sources say something else now.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        return None
    remedy = "name another folder in data.prepared, or remove this one if no run needs it"
    now = settings()
    different = [key for key in now if manifest["settings"].get(key) != now[key]]
    if different:
        raise DataError(f"{folder} was prepared with other settings ({', '.join(different)})", remedy)
    if changed := _changed(manifest.get("files", {})):
        raise DataError(f"{folder} was prepared before {changed}", f"{remedy}; or put the data back")
    return manifest


def as_files(sources: Iterable[str]) -> Files:
    """The local files of the sources, for a manifest; take them before they are read."""
    return {
        source: {name: _stamp(path) | describe(path) for name, path in files.items()}
        for source in sources
        if (files := _files(source))
    }


def _files(source: str) -> dict[str, Path]:
    """The files that are here of a source, by their name in it. A folder's description is no data."""
    path = Path(source)
    if source in ("", TINY):
        return {}
    if path.is_dir():
        inside = {str(file.relative_to(path)): file for file in sorted(path.rglob("*")) if file.is_file()}
        return {name: f for name, f in inside.items() if f.suffix != ".md" and "/." not in f"/{name}"}
    return {path.name: path} if path.is_file() else {}


def _changed(before: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """The first file that is not what it was, in words; empty where there is none."""
    for source, known in before.items():
        now = _files(source)
        if not now:
            continue
        for name in sorted({*known, *now}):
            if name not in known:
                return f"{now[name]} was there"
            if name not in now:
                return f"{Path(source) / name} went away"
            if _is_other(now[name], known[name]):
                return f"{now[name]} changed"
    return ""


def _is_other(path: Path, known: Mapping[str, Any]) -> bool:
    stamp = _stamp(path)
    if stamp["bytes"] != known["bytes"]:
        return True
    return bool(stamp["mtime_ns"] != known["mtime_ns"] and describe(path)["sha256"] != known["sha256"])


def _stamp(path: Path) -> dict[str, Any]:
    """Size and time. Opening makes NFS ask the server instead of its own memory."""
    with storing(path), open(path, "rb") as file:
        stat = os.fstat(file.fileno())
    return {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}
