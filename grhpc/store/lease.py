"""A shard in somebody's hands.

Does not know: how it was claimed. Invariant: whatever a lease does is one rename or removal of a name that is its own;
once another process has taken the shard back, nothing this one does can touch it.
"""

import contextlib
import time
from collections.abc import Iterator
from typing import Generic, TypeVar

from grhpc.store.folders import LEASED, Folders
from grhpc.store.heartbeat import Heartbeat
from grhpc.store.names import ShardFile

Row = TypeVar("Row")

DONE = "done"


class Lease(Generic[Row]):
    """`rows` of the shard `name`, verified. `attempt` counts from 1."""

    def __init__(self, folders: Folders, heartbeat: Heartbeat, file: ShardFile, rows: list[Row]) -> None:
        self._folders, self._heartbeat, self._file = folders, heartbeat, file
        self._path = folders.path(LEASED, file)
        self.name, self.attempt, self.rows = file.name, file.attempt, rows
        self.ended, self.ended_s = "", 0.0  # how, and when by the monotonic clock

    @contextlib.contextmanager
    def keep_alive(self) -> Iterator["Lease[Row]"]:
        """While inside, a background thread gives a sign of life every quarter of the lease."""
        self.hold()
        try:
            yield self
        finally:
            self.forget()

    def hold(self) -> None:
        """Keep the lease alive from now until it is done, released or failed."""
        self._heartbeat.watch(self._path)

    def forget(self) -> None:
        """Give no more signs of life for it."""
        self._heartbeat.forget(self._path)

    @property
    def lost(self) -> bool:
        """Whether the heartbeat found that the lease was taken back. To go on is a waste, but does no harm."""
        return self._heartbeat.lost(self._path)

    def done(self) -> bool:
        """The shard's work is delivered: remove it. False: the lease was lost, and somebody may do it again."""
        self._end(DONE)
        return self._folders.remove(self._file)

    def release(self, reason: str) -> None:
        """Put the shard back for others with the same attempt number: a drain is not a failure."""
        self._end(f"released: {reason}")
        self._folders.give_back(self._file, reason, next_attempt=False)

    def fail(self, reason: str) -> None:
        """The attempt failed: put the shard back for the next one, or into failed/ with `reason` if it was the last."""
        self._end(f"failed: {reason}")
        self._folders.give_back(self._file, reason, next_attempt=True)

    def _end(self, how: str) -> None:
        self.ended, self.ended_s = how, time.monotonic()
        self.forget()
