"""Copies of published folders on this node's own disk: made once, shared by the node's processes.

Locks are flock's, which a shared filesystem may not keep: this disk is the node's own. They end with their process,
save copies, and keep a folder from being removed while a process reads it; no correctness hangs on them, since a
folder appears by one rename and says which digest it was checked against.

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

FOLDER_PREFIX = f"grhpc-weights-{os.getuid()}-"  # then the run id: on a node everybody has copies of their own

_MARK, _LOCK = "local.json", ".lock"
_LOCK_S = 1800.0  # after this long we copy for ourselves
_LEAVING_S = 10.0  # who copies for longer stays, and takes everything away when it leaves


def node_dir(chosen: str) -> Path:
    """The node-local folder for weights: the one that the configuration names, or what the node offers."""
    return Path(chosen or os.environ.get("SLURM_TMPDIR") or os.environ.get("TMPDIR") or "/tmp")


class LocalCopies:
    """The folders under `root`, named FOLDER_PREFIX and the run's id. An instance holds on to the one it gave last."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._held: int | None = None
        self._swept = False

    def get(self, name: str, digest: str, make: Callable[[Path], None]) -> Path:
        """The folder `name` with `digest`; `make(folder)` fills a new one if it is not there. Raises what it does."""
        final = self.root / name
        with self._telling(), storing(self.root):
            if not self._swept:
                self._swept = True
                _sweep_runs(self.root)
            with _locked(self.root, _LOCK_S) as alone:
                if not _is_good(final, digest):
                    self._make(final, digest, make)
                self._hold(final)
                if alone:
                    with contextlib.suppress(OSError):  # the copy is good, whatever becomes of the others
                        _remove_others(final)
        return final

    def leave(self) -> None:
        """Let go of the copy, and remove those that no other process of this node holds."""
        if self._held is None:
            return
        os.close(self._held)
        self._held = None
        with contextlib.suppress(OSError):
            _sweep(self.root, _LEAVING_S)

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

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise StoreError(f"a local copy vanished: {error.filename}", "find out what empties that folder") from error


@contextlib.contextmanager
def _locked(root: Path, patience_s: float) -> Iterator[bool]:
    """Make the folder of one run's copies, and wait for its lock; False where that cannot be had."""
    descriptor, alone = _take_lock(root, time.monotonic() + patience_s)
    try:
        yield alone
    finally:
        os.close(descriptor)


def _take_lock(root: Path, deadline: float) -> tuple[int, bool]:
    """The open lock file, and whether the lock was had. Again from the start where the last to leave removed it."""
    lock = root / _LOCK
    while True:
        try:
            root.mkdir(parents=True, exist_ok=True)
        except FileExistsError:  # also where the folder was there, and is gone by now
            if root.is_file():
                raise
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
            alone = _flock(descriptor, deadline)
            with contextlib.suppress(FileNotFoundError):
                if not alone or os.path.samestat(os.fstat(descriptor), os.stat(lock)):
                    return descriptor, alone
            os.close(descriptor)


def _remove_others(final: Path) -> None:
    """Remove copies of other versions that no process holds, and what dead copiers left; only the lock's owner may."""
    for name in os.listdir(final.parent):
        path = final.parent / name
        if path == final or not path.is_dir():
            continue
        if name.startswith(".") or _nobody_holds(path):
            shutil.rmtree(path, ignore_errors=True)


def _sweep(root: Path, patience_s: float) -> None:
    """Remove the copies in `root` that this node made and nobody holds, unless somebody copies for longer than that."""
    with _locked(root, patience_s) as alone:
        for name in list_names(root) if alone else []:
            path = root / name
            with contextlib.suppress(OSError, CorruptFile):  # no whole copy
                # A "local" folder that nodes share after all holds others' copies, whose locks may not be seen here.
                if read_json(path / _MARK)["boot"] == _boot() and _nobody_holds(path):
                    shutil.rmtree(path, ignore_errors=True)
        if alone and os.listdir(root) == [_LOCK]:
            os.unlink(root / _LOCK)
            os.rmdir(root)


def _sweep_runs(root: Path) -> None:
    """Remove what other runs' killed tasks left on this node."""
    with contextlib.suppress(OSError):
        for name in os.listdir(root.parent):
            if name.startswith(FOLDER_PREFIX) and name != root.name:
                with contextlib.suppress(OSError):  # another person's, perhaps
                    _sweep(root.parent / name, 0.0)


def _flock(descriptor: int, deadline: float) -> bool:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.05)
        except OSError:
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
