"""The shards that an evaluation's task works on together, each from being taken to being delivered.

Does not know: stages, engines, why it may take further ones. Invariant: a shard that somebody has delivered is not
worked on; of shards that overlap each second is told once.
"""

import time
from collections.abc import Callable
from typing import Any

from grhpc.store.hand import More
from grhpc.store.lease import Lease


class InHand:
    """`more` brings further shards; `is_new` says whether one is still to be done. The task was idle since
    `idle_since_s`. `shards` are those that were not delivered yet, by the number in which they were taken."""

    def __init__(self, more: More, is_new: Callable[[Lease[Any]], bool], idle_since_s: float) -> None:
        self._more, self._is_new = more, is_new
        self.shards: dict[int, Lease[Any]] = {}
        self._begun_s: list[float] = []
        self.last_s = time.monotonic()  # the last delivery or, before the first, the begin
        self._wait_s = self.last_s - idle_since_s

    def take(self, lease: Lease[Any]) -> bool:
        """Whether the shard is to be worked on; one that a task which was taken for dead has delivered ends here."""
        if not self._is_new(lease):
            lease.done()
            return False
        self._hold(lease)
        return True

    def further(self) -> int | None:
        """The number of another shard, which is in hand now; None: not now."""
        lease = self._more(self._is_new)
        return None if lease is None else self._hold(lease)

    def end(self, number: int) -> dict[str, Any]:
        """The shard is delivered; what an event says of it."""
        lease = self.shards[number]
        lease.done()
        del self.shards[number]
        now_s = time.monotonic()
        told = {"shard": lease.name, "seconds": now_s - self.last_s, "held_s": now_s - self._begun_s[number]}
        told["wait_s"], self._wait_s, self.last_s = self._wait_s, 0.0, now_s
        return told

    @property
    def open(self) -> list[Lease[Any]]:
        """Those that nobody has ended."""
        return [lease for lease in list(self.shards.values()) if not lease.ended]

    def _hold(self, lease: Lease[Any]) -> int:
        self._begun_s.append(time.monotonic())
        self.shards[len(self._begun_s) - 1] = lease
        return len(self._begun_s) - 1
