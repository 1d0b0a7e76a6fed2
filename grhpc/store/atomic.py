"""Files that appear whole or not at all, on a filesystem that many machines share.

A file is written under a hidden temporary name, synced, and renamed; the directory is synced after it. A rename whose
reply was lost (NFS answers a repeated rename with ENOENT although the first one worked) is settled by looking at the
result. Existence is learned by listing a directory, never by probing a name: NFS remembers an absence for a minute.

Does not know: shards, queues, weights. Invariant: a visible name (one that does not begin with a dot) holds exactly the
bytes its writer meant, or its writer's machine crashed after `fsync` lied.
"""

import contextlib
import errno
import json
import math
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from grhpc.errors import CorruptFile, StoreError

TEMP_SUFFIX = ".tmp"
SHARING = "check owner and mode; a run of several people needs `umask 002` from its beginning (docs/slurm.md, Together)"


def write_bytes(path: Path, data: bytes, *, temp_dir: Path | None = None) -> None:
    """Make `path` hold `data`, durably, replacing what was there. Raises StoreError and leaves nothing half-made.

    `temp_dir` is where the temporary file is written; it must be on the same filesystem (default: beside `path`).
    """
    temp = temp_path(path, temp_dir)
    with storing(path):
        try:
            write_new(temp, data)
        except OSError:
            remove_quietly(temp)
            raise
        try:
            os.rename(temp, path)
        except OSError:
            if not _holds(path, data):
                remove_quietly(temp)
                raise
        fsync_dir(path.parent)


def write_json(path: Path, obj: Any) -> None:
    """Make `path` hold `obj` as JSON; a number that JSON has no word for (NaN, infinity) becomes null."""
    write_bytes(path, (to_json(obj, indent=1) + "\n").encode())


def to_json(obj: Any, indent: int | None = None) -> str:
    """JSON text that every reader accepts: NaN and infinities become null, paths become text."""
    return json.dumps(_plain(obj), indent=indent, ensure_ascii=False, allow_nan=False)


def read_bytes(path: Path) -> bytes:
    """The bytes of a file. Raises FileNotFoundError where there is none, StoreError for any other refusal."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise as_store_error(error, path) from error


def read_json(path: Path) -> Any:
    """The value that `write_json` wrote. Raises FileNotFoundError, CorruptFile, StoreError."""
    try:
        return json.loads(read_bytes(path))
    except ValueError as error:
        raise CorruptFile(f"{path} is not valid JSON: {error}", "restore it, or set it aside") from None


def list_names(directory: Path) -> list[str]:
    """The visible names in a directory, sorted, without a stat; [] where there is no such directory."""
    try:
        with storing(directory):
            return sorted(name for name in os.listdir(directory) if not name.startswith("."))
    except FileNotFoundError:
        return []


def fsync_dir(directory: Path) -> None:
    """Make the names in a directory survive a crash of the machine."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network filesystems cannot sync a directory, and need not
            raise
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Make a file that some library wrote survive a crash of the machine; on NFS, send it to the server."""
    with storing(path):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def make_dir(directory: Path) -> None:
    """Make a directory and its parents, durably. It may be there already."""
    with storing(directory):
        directory.mkdir(parents=True, exist_ok=True)
        fsync_dir(directory.parent)


def write_new(path: Path, data: bytes) -> None:
    """Create `path`, which must not exist, with `data`, and sync it. Raises OSError; a part may be left."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        write_all(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes) -> None:
    """Write every byte; a single write may take fewer."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def server_now(clock: Path) -> float:
    """The time by the file server's clock, in seconds: touch `clock` and read back the time that the server gave it.

    Two machines' clocks are never compared: an age is the difference of two times that the same server set.
    """
    descriptor = os.open(clock, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        os.utime(descriptor)
        return os.fstat(descriptor).st_mtime
    finally:
        os.close(descriptor)


def server_mtime(path: Path) -> float:
    """When the server last saw `path` touched. Opening makes NFS ask the server instead of its own memory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.fstat(descriptor).st_mtime
    finally:
        os.close(descriptor)


def sweep_temps(directory: Path, now: float, older_than_s: float) -> None:
    """Remove temporary files whose writer died; `now` is server time. A slow but living writer simply writes again."""
    for name in os.listdir(directory):
        if name.startswith(".") and name.endswith(TEMP_SUFFIX):
            path = directory / name
            with contextlib.suppress(OSError):
                if now - server_mtime(path) > older_than_s:
                    os.unlink(path)


def temp_path(path: Path, temp_dir: Path | None = None) -> Path:
    """A hidden name that nobody else uses, for a file that will become `path`."""
    return (temp_dir or path.parent) / f".{path.name}.{secrets.token_hex(6)}{TEMP_SUFFIX}"


def remove_quietly(path: Path) -> None:
    """Remove a file if that is possible."""
    with contextlib.suppress(OSError):
        os.unlink(path)


@contextlib.contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turn a refusal by the filesystem into a StoreError that names `path`; FileNotFoundError passes unchanged."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise as_store_error(error, path) from error


def as_store_error(error: OSError, path: Path) -> StoreError:
    """What went wrong with `path`, and what a person can do about it."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreError(f"no space left for {path}", "free space or raise the quota there, then resume the run")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StoreError(f"no access to {path}: {error.strerror}{_whose(path)}", SHARING)
    what = error.strerror or str(error)
    return StoreError(f"the filesystem refused {path}: {what}", "check the filesystem's health, then resume the run")


def _whose(path: Path) -> str:
    """Whose the folder is, as the end of a sentence."""
    with contextlib.suppress(OSError, KeyError):  # no such folder, or a person without a name here
        return f" (the folder is {path.parent.owner()}'s)"
    return ""


def _holds(path: Path, data: bytes) -> bool:
    """Whether a rename that reported an error worked all the same."""
    if path.name not in list_names(path.parent):
        return False
    with contextlib.suppress(OSError, StoreError):
        return read_bytes(path) == data
    return False


def _plain(obj: Any) -> Any:
    if isinstance(obj, float):
        return obj if math.isfinite(obj) else None
    if isinstance(obj, dict):
        return {str(key): _plain(value) for key, value in obj.items()}
    if isinstance(obj, (list, tuple, set, frozenset)):
        return [_plain(value) for value in (sorted(obj) if isinstance(obj, (set, frozenset)) else obj)]
    return str(obj) if isinstance(obj, Path) else obj
