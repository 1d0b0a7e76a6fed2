"""Claims: of all tasks one at a time holds a name, until it lets go of it or dies.

    .<holder>.<nonce>.tmp    the seat of a task that holds anything: says who it is, and is touched as a lease is
    .claim-<name>            a hard link of the holder's seat, so one touch keeps all its claims alive

They stand in the very directory whose files they guard: a client that has just made a link in a directory has its next
listing from the server, so whoever gets a claim sees all files that were there when it was let go.

Does not know: what a name stands for, who waits for it. Invariant: a name has one living holder, unless that one was
silent for `lease_s` by the server's clock and lives on.
"""

import contextlib
import os
from collections.abc import Collection
from pathlib import Path

from grhpc.store.atomic import (
    as_store_error,
    make_dir,
    read_bytes,
    remove_quietly,
    server_now,
    storing,
    sweep_temps,
    temp_path,
    write_all,
)
from grhpc.store.heartbeat import Heartbeat

_CLAIM = ".claim-"


class Claims:
    """What one task holds in `directory`. `holder` names it to the others."""

    def __init__(self, directory: Path, holder: str, lease_s: float) -> None:
        self._directory, self._holder, self._lease_s = Path(directory), holder, lease_s
        self._heartbeat = Heartbeat(lease_s / 4)
        self._seat: Path | None = None
        self._inode = 0
        self._held: set[str] = set()
        self._swept = False

    def take(self, names: Collection[str]) -> set[str]:
        """Those of `names` that are ours from now until `leave`. Waits for nobody. Raises StoreError."""
        try:
            seat = self._seat or self._sit_down()
            for name in names:
                if name not in self._held and self._take(seat, self._path(name)):
                    self._held.add(name)
        except OSError as error:
            raise as_store_error(error, self._directory) from error
        return self._held.intersection(names)

    def leave(self) -> None:
        """Let go of everything. What the filesystem refuses to remove is free once the lease has passed."""
        seat, held = self._seat, self._held
        self._seat, self._held = None, set()
        if seat is None:
            return
        self._heartbeat.forget(seat)
        all_ours = False  # we may have slept for longer than the lease, and others have what was ours
        with contextlib.suppress(OSError):
            there = _look(seat)
            all_ours = there is not None and there.st_nlink == 1 + len(held)
        for path in map(self._path, held):
            if all_ours or self._is_ours(path):
                remove_quietly(path)
        remove_quietly(seat)

    def holder(self, name: str) -> str:
        """Who has it, for people to read; "" where nobody does."""
        return _holder_of(self._path(name))

    def _path(self, name: str) -> Path:
        return self._directory / f"{_CLAIM}{name}"

    def _sit_down(self) -> Path:
        if not self._swept:
            make_dir(self._directory)
        seat = temp_path(self._directory / self._holder)
        descriptor = os.open(seat, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            write_all(descriptor, self._holder.encode())
            self._inode = os.fstat(descriptor).st_ino
        finally:
            os.close(descriptor)
        self._seat = seat
        self._heartbeat.watch(seat)
        if not self._swept:
            self._sweep(seat, older_than_s=max(4 * self._lease_s, 60.0))
            self._swept = True
        return seat

    def _sweep(self, seat: Path, older_than_s: float) -> None:
        """Remove what the dead left that nobody has wanted since."""
        now = server_now(seat)
        sweep_temps(self._directory, now, older_than_s)
        for path in (self._directory / name for name in os.listdir(self._directory) if name.startswith(_CLAIM)):
            there = _look(path)
            if there is not None and now - there.st_mtime > older_than_s:
                self._bury(seat, path, there)

    def _take(self, seat: Path, path: Path) -> bool:
        for _ in range(2):
            try:
                os.link(seat, path)
                return True
            except OSError as error:
                there = _look(path)
                if there is not None and there.st_ino == self._inode:
                    return True  # a lost reply makes a link that worked look as if it had not
                if there is None and not isinstance(error, FileExistsError):
                    raise
            if there is not None and not self._bury(seat, path, there):
                break
        return False

    def _bury(self, seat: Path, path: Path, there: os.stat_result) -> bool:
        """Take a dead holder's claim out of the way. False: it lives."""
        if server_now(seat) - there.st_mtime <= self._lease_s:
            return False
        aside = temp_path(path)
        with contextlib.suppress(OSError):  # whatever became of it, the next link tells who has the name
            os.rename(path, aside)
            moved = _look(aside)
            if moved is not None and (moved.st_ino, moved.st_mtime_ns) != (there.st_ino, there.st_mtime_ns):
                os.link(aside, path)  # another has buried it, and what we caught is its new claim
        remove_quietly(aside)
        return True

    def _is_ours(self, path: Path) -> bool:
        with contextlib.suppress(OSError):
            there = _look(path)
            return there is not None and there.st_ino == self._inode
        return False


def reclaim(directory: Path, *holders: str) -> None:
    """Free at once what `holders`, of whom the caller knows that they are no more, hold. Raises StoreError."""
    with contextlib.suppress(FileNotFoundError), storing(directory):
        for name in os.listdir(directory):
            if name.startswith(_CLAIM) and _holder_of(directory / name) in holders:
                remove_quietly(directory / name)


def _holder_of(path: Path) -> str:
    with contextlib.suppress(FileNotFoundError):
        return read_bytes(path).decode(errors="replace")
    return ""


def _look(path: Path) -> os.stat_result | None:
    """What the server knows of a file now; None where there is none. Opening makes NFS ask it."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)
