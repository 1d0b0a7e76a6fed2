"""Reading and copying large files with a check of every byte.

Does not know: versions, folders. Invariant: a file that `copy_checked` made has the size and digest it was asked for.
Files are read, never mapped: a mapped page of a file that another machine removes kills the reader with SIGBUS.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from grhpc.errors import CorruptFile
from grhpc.store.atomic import as_store_error, storing

_CHUNK = 8 << 20


def describe(path: Path) -> dict[str, Any]:
    """{"bytes": size, "sha256": hex} of a file."""
    digest, size = hashlib.sha256(), 0
    with storing(path), open(path, "rb") as file:
        for chunk in _chunks(file, path):
            digest.update(chunk)
            size += len(chunk)
    return {"bytes": size, "sha256": digest.hexdigest()}


def copy_checked(source: Path, target: Path, entry: dict[str, Any]) -> None:
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


def digest_of_files(files: dict[str, dict[str, Any]]) -> str:
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
