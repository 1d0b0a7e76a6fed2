"""Shards handed from one role to the next through directories: ready -> leased -> gone, or failed.

    put      a temporary file, synced, renamed into ready/
    claim    a rename from ready/ to a name of the claimer's own in leased/
    done     the removal of that own name; release and fail are renames of it
    reap     a lease without a heartbeat for `lease_s`, by the server's clock, is renamed back to ready/ or to failed/

Delivery is at least once: a holder that was declared dead may still deliver, and so may its successor. Rows name their
groups, and the ledger takes each group once. docs/queue.md has the protocol and why it holds.

Does not know: what a row means, who calls. Invariant: from the rename in `put` to the removal in `done` a shard's bytes
stand whole under at least one name, whichever process dies between whichever two system calls.
"""

import contextlib
import random
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from grhpc.errors import CorruptFile, ForeignFile, OtherVersion, StoreError
from grhpc.store import names
from grhpc.store.atomic import list_names, read_bytes, server_mtime, server_now, storing, sweep_temps, write_bytes
from grhpc.store.folders import FAILED, LEASED, READY, STATES, Folders
from grhpc.store.heartbeat import Heartbeat
from grhpc.store.lease import Lease
from grhpc.store.names import ShardFile
from grhpc.store.shard import check_columns, decode, encode

__all__ = ["FailedShard", "Lease", "Queue"]

Row = TypeVar("Row")

_MOST_LOSSES = 16  # names lost to other claimers before `claim` answers None and its caller waits a little
_LOSSES_A_LISTING = 4
_PATIENCE_S = (0.05, 0.2, 1.0, 2.0)  # waits for a file that the directory lists but `open` does not find yet


@dataclass(frozen=True)
class FailedShard:
    """A shard that nobody will try again: its name (which names its groups), the attempts made and the last reason."""

    name: str
    attempts: int
    reason: str
    path: Path


class Queue(Generic[Row]):
    """One directory of shards of `row_type`. Any number of processes, on any machines, may have it open.

    `lease_s` is how long a holder may be silent; `max_attempts` how often a shard is tried; names that begin with
    `first` (when not empty) are claimed before others. Every method raises StoreError when the filesystem refuses.
    """

    def __init__(
        self,
        directory: Path,
        row_type: type[Row],
        *,
        run_id: str,
        lease_s: float,
        max_attempts: int,
        first: str = "",
    ) -> None:
        self.directory, self.row_type, self.run_id = Path(directory), row_type, run_id
        self.lease_s, self.max_attempts, self.first = lease_s, max_attempts, first
        self._folders = Folders(self.directory, max_attempts)
        self._heartbeat = Heartbeat(lease_s / 4)
        self._seen_reap: float | None = None  # the clock file's time when we, or as we saw another, last reaped
        self._rest(None)

    def put(self, name: str, rows: Sequence[Row]) -> bool:
        """Make the shard ready. False: a shard of that name is in this queue already, in any state.

        Two processes that put one name at the same moment may both be told True; their shards are one file, or, when
        one was claimed in between, two deliveries of the same groups, of which the ledger drops the second.
        """
        target = self._folders.path(READY, ShardFile(names.check_name(name)))
        if any(name in present for present in self.names().values()):
            return False
        data = encode(rows, run_id=self.run_id)
        for _ in range(3):
            try:
                write_bytes(target, data, temp_dir=self._folders.temp)
                return True
            except FileNotFoundError:
                continue  # we slept, were taken for dead, and our temporary file was swept: write it again
        raise StoreError(f"new files vanish from {self.directory}", "find out what deletes them")

    def claim(self, holder: str) -> Lease[Row] | None:
        """Lease a ready shard, the first by name unless others take it; None when there is none to be had now.

        `holder` names the task to people (job id and restart). A shard that does not read back as what was put is moved
        to failed/ with the reason, and the next one is tried. Now and then a claim also reaps. Raises OtherVersion, and
        leaves the shard as it was, where another version of grhpc wrote it.
        """
        if time.monotonic() >= self._next_look:
            self.reap()
        losses = 0
        while losses < _MOST_LOSSES:
            candidates = self._ready()
            if not candidates:
                return None
            for _ in range(min(_LOSSES_A_LISTING, len(candidates))):
                # The first try takes the oldest; a loss means others are here: spread over more and more names.
                index = random.randrange(min(len(candidates), 8 << losses)) if losses else 0
                file = candidates.pop(index)
                own = file.leased_by(holder, secrets.token_hex(4))
                lease = self._open(own) if self._folders.take(file, own) else None
                if lease is not None:
                    return lease
                losses += 1
        return None

    def reap(self, *, at_once: bool = False) -> list[str]:
        """Put shards back whose holder has been silent for `lease_s`; returns their names.

        After `max_attempts` they go to failed/ instead. Call it in every poll: the first call looks, later ones only
        when no process has looked for about `lease_s / 4`, so a thousand pollers cost one look. `at_once` always looks.
        """
        if not at_once and not self._is_my_turn():
            return []
        with storing(self.directory):
            now = server_now(self._folders.clock)
            sweep_temps(self._folders.temp, now, older_than_s=max(4 * self.lease_s, 60.0))
        self._rest(now)
        reaped = []
        for own in self._folders.files(LEASED):
            silent_s = self._folders.silent_s(own, now)
            reason = f"{own.holder} gave no sign of life for {silent_s:.0f} s"
            if silent_s > self.lease_s and self._folders.give_back(own, reason, next_attempt=True):
                reaped.append(own.name)
        return reaped

    def reclaim(self, *holders: str, failed: str = "") -> list[str]:
        """Put back at once what they hold, counting an attempt only where `failed` says how they failed.

        For who knows that a holder is no more: its successor (the trainer by the ledger's fence, a task in the next
        life of its job), or a person who resumes the run.
        """
        safe = {ShardFile("any").leased_by(holder, "").holder for holder in holders}
        theirs = [own for own in self._folders.files(LEASED) if own.holder in safe]
        return [own.name for own in theirs if self._folders.give_back(own, failed, next_attempt=bool(failed))]

    def failed(self) -> list[FailedShard]:
        """The shards in failed/, by name."""
        folders = self._folders
        return [
            FailedShard(f.name, f.attempt, folders.reason(f), folders.path(FAILED, f)) for f in folders.files(FAILED)
        ]

    def revive(self) -> list[str]:
        """Put every failed shard back, as if it had never been tried; the names of those that can still be read.

        A damaged one stays where it is.
        """
        revived = []
        for file in self._folders.files(FAILED):
            with contextlib.suppress(CorruptFile, ForeignFile):
                self.read(self._folders.path(FAILED, file))
                if self._folders.revive(file):
                    revived.append(file.name)
        return revived

    def ready_paths(self) -> dict[str, Path]:
        """Where each ready shard stands, by its name, for `read`."""
        return {file.name: self._folders.path(READY, file) for file in self._folders.files(READY)}

    def read(self, path: Path) -> list[Row]:
        """The rows of one of this queue's files, unclaimed. Raises FileNotFoundError, and as `decode`."""
        return decode(read_bytes(path), path, self.row_type, run_id=self.run_id)

    def check_columns(self, *states: str) -> None:
        """Raise OtherVersion where another version of grhpc wrote a shard in one of the states."""
        for state in states:
            for file in self._folders.files(state):
                check_columns(self._folders.path(state, file), self.row_type)

    def names(self) -> dict[str, set[str]]:
        """The names of the shards in each state. A shard that moves during the look may show in two, or in none."""
        return {state: {file.name for file in self._folders.files(state)} for state in STATES}

    def counts(self) -> dict[str, int]:
        """How many shards are in each state."""
        return {state: len(present) for state, present in self.names().items()}

    def _ready(self) -> list[ShardFile]:
        files = self._folders.files(READY)
        return sorted(files, key=lambda f: not f.name.startswith(self.first)) if self.first else files

    def _open(self, own: ShardFile) -> Lease[Row] | None:
        path = self._folders.path(LEASED, own)
        for patience_s in _PATIENCE_S:
            try:
                return Lease(self._folders, self._heartbeat, own, self.read(path))
            except FileNotFoundError:
                if path.name not in list_names(path.parent):
                    return None  # we slept so long that the lease was reaped
                time.sleep(patience_s)
            except (CorruptFile, ForeignFile) as error:
                self._folders.set_aside(own, error.problem)
                return None
            except OtherVersion:  # nothing is wrong with it
                self._folders.give_back(own, "", next_attempt=False)
                raise
            except StoreError as error:  # unreadable here and now: another machine may have more luck
                self._folders.give_back(own, error.problem, next_attempt=True)
                raise
        return None

    def _is_my_turn(self) -> bool:
        """Whether nobody, as far as we have seen, has reaped for a whole interval of ours."""
        if self._seen_reap is None:
            return True
        if time.monotonic() < self._next_look:
            return False
        with storing(self._folders.clock):
            seen = server_mtime(self._folders.clock)
        if seen == self._seen_reap:
            return True
        self._rest(seen)
        return False

    def _rest(self, seen: float | None) -> None:
        self._seen_reap = seen
        self._next_look = time.monotonic() + self.lease_s / 4 * random.uniform(1.0, 1.5)
