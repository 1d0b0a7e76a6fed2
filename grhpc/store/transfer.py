"""Reading and copying large files with a check of every byte.

Does not know: versions, folders. Invariant: a file that `copy_checked` made has the size and digest it was asked for.
Files are read, never mapped: a mapped page of a file that another machine removes kills the reader with SIGBUS.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from grhpc.errors import CorruptFile
from grhpc.store.atomic import as_store_error, list_names, storing, sync_file

Described = dict[str, Any]
Manifest = Mapping[str, Described]  # by the files' names
_CHUNK = 8 << 20


def sync_and_describe(path: Path) -> Described:
    """Make a file durable; its size and digest."""
    sync_file(path)
    return describe(path)


def describe(path: Path) -> Described:
    """{"bytes": size, "sha256": hex} of a file."""
    digest, size = hashlib.sha256(), 0
    with storing(path), open(path, "rb") as file:
        for chunk in _chunks(file, path):
            digest.update(chunk)
            size += len(chunk)
    return {"bytes": size, "sha256": digest.hexdigest()}


def not_whole(folder: Path, written: Manifest) -> list[str]:
    """Which of the files this machine does not see in the folder, or not yet with their sizes."""
    seen = set(list_names(folder))
    return sorted(name for name in written if name not in seen or _size(folder / name) != written[name]["bytes"])


def _size(path: Path) -> int:
    with storing(path), open(path, "rb") as file:  # opened: a mere look may answer what was known of it before
        return os.fstat(file.fileno()).st_size


def copy_checked(source: Path, target: Path, entry: Described) -> None:
    """Copy a file while checking it against `describe`'s answer. Raises CorruptFile, FileNotFoundError, StoreError."""
    digest, size = hashlib.sha256(), 0
    with storing(source):
        file = open(source, "rb")  # noqa: SIM115
    with file, storing(target), open(target, "xb") as copy:
        for chunk in _chunks(file, source):
            digest.update(chunk)
            size += len(chunk)
            copy.write(chunk)
    if {"bytes": size, "sha256": digest.hexdigest()} != entry:
        raise CorruptFile(f"{source} is not what its manifest says", f"remove {source.parent}, or restore the file")


def digest_of_files(files: Manifest) -> str:
    """One digest over names and contents."""
    lines = "".join(f"{name} {files[name]['bytes']} {files[name]['sha256']}\n" for name in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()


def _chunks(file: BinaryIO, path: Path) -> Iterator[bytes]:
    while True:
        try:
            chunk = file.read(_CHUNK)
        except OSError as error:
            raise as_store_error(error, path) from error
        if not chunk:
            return
        yield chunk
