"""Copies of published folders on this node's own disk: made once, shared by the node's processes.

flock is used here and nowhere else: the disk is the node's own, and a lock ends with its process. It saves copies and
keeps a folder from being removed while a process reads it; no correctness hangs on it, since a folder appears by one
rename and says which digest it was checked against.

Does not know: what is copied. Invariant: a folder with a visible name and this boot's mark is whole.
"""

import contextlib
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from grhpc.errors import CorruptFile, StoreError
from grhpc.store.atomic import list_names, read_json, storing, write_json

_MARK = "local.json"
_LOCK_S = 1800.0  # after this long we copy for ourselves


class LocalCopies:
    """The folders under `root`. An instance holds on to the folder it handed out last."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._held: int | None = None

    def get(self, name: str, digest: str, make: Callable[[Path], None]) -> Path:
        """The folder `name` with `digest`; `make(folder)` fills a new one if it is not there. Raises what it does."""
        final = self.root / name
        with self._telling(), storing(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            with self._lock() as alone:
                if not _is_good(final, digest):
                    self._make(final, digest, make)
                self._hold(final)
                if alone:
                    with contextlib.suppress(OSError):  # the copy is good, whatever becomes of the others
                        self._remove_others(final)
        return final

    def _make(self, final: Path, digest: str, make: Callable[[Path], None]) -> None:
        temp = self.root / f".{final.name}.{secrets.token_hex(4)}"
        try:
            temp.mkdir()
            make(temp)
            write_json(temp / _MARK, {"digest": digest, "boot": _boot()})
            if final.name in list_names(self.root) and not _is_good(final, digest):
                os.rename(final, self.root / f".{final.name}.{secrets.token_hex(4)}")
            with contextlib.suppress(FileExistsError):  # somebody else was faster
                _rename_new(temp, final)
        finally:
            shutil.rmtree(temp, ignore_errors=True)

    def _hold(self, final: Path) -> None:
        """Share-lock the folder's mark, so that other processes leave the folder alone while we read it."""
        held = os.open(final / _MARK, os.O_RDONLY)
        with contextlib.suppress(OSError):
            fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
        if self._held is not None:
            os.close(self._held)
        self._held = held

    def _remove_others(self, final: Path) -> None:
        """Remove copies that no process holds, and what dead copiers left; only we may copy now."""
        for name in os.listdir(self.root):
            path = self.root / name
            if path == final or not path.is_dir():
                continue
            if name.startswith(".") or _nobody_holds(path):
                shutil.rmtree(path, ignore_errors=True)

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise StoreError(f"a local copy vanished: {error.filename}", "find out what empties that folder") from error

    @contextlib.contextmanager
    def _lock(self) -> Iterator[bool]:
        """Wait for the node's lock; False where it cannot be had."""
        descriptor = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            yield _flock(descriptor, time.monotonic() + _LOCK_S)
        finally:
            os.close(descriptor)


def _flock(descriptor: int, deadline: float) -> bool:
    while time.monotonic() < deadline:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(0.05)
        except OSError:
            return False
    return False


def _is_good(final: Path, digest: str) -> bool:
    try:
        return bool(read_json(final / _MARK) == {"digest": digest, "boot": _boot()})
    except (FileNotFoundError, NotADirectoryError, CorruptFile):
        return False


def _nobody_holds(path: Path) -> bool:
    try:
        descriptor = os.open(path / _MARK, os.O_RDONLY)
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _rename_new(source: Path, target: Path) -> None:
    """Rename a folder to a name that is free, or FileExistsError."""
    try:
        os.rename(source, target)
    except OSError as error:
        if target.is_dir():
            raise FileExistsError(target) from error
        raise


def _boot() -> str:
    """Which boot of this machine it is: a copy is not synced, so one from before a crash is not trusted."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return "unknown"
