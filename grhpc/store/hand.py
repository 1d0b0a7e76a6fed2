"""The shards that a task has in hand at one time, from their claim to their end.

Work that has room for more than one shard, such as an engine whose last sequences are long, takes further ones beside
it. Does not know: what the work is, when a life has no time left. Invariant: a shard that was tried before is never in
hand with another: after a failure among several nobody can say whose it was, and alone each one shows.
"""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from grhpc.errors import StoreError
from grhpc.store.lease import DONE, Lease

Row = TypeVar("Row")

_MISFIT_PAUSES = 4  # further pauses before the next look


class More(Protocol):
    """Another shard to be worked on beside those in hand; None: not now. One that `fits` refuses goes back untouched.
    Cheap enough to be called at every turn of the work."""

    def __call__(self, fits: Callable[[Lease[Any]], bool] = ..., /) -> Lease[Any] | None: ...


def anything(lease: Lease[Any]) -> bool:
    """Any shard fits."""
    return True


def nothing(fits: Callable[[Lease[Any]], bool] = anything, /) -> None:
    """A `More` for work on a single shard."""


@dataclass(frozen=True)
class Held(Generic[Row]):
    """A lease, when its work began, and how many seconds of the task's life were left then."""

    lease: Lease[Row]
    begun_s: float
    left_s: float

    @property
    def seconds(self) -> float:
        """How long it has been in hand, or was to its end."""
        return (self.lease.ended_s or time.monotonic()) - self.begun_s


class Hand(Generic[Row]):
    """`first`, and what `claim` finds beside it, which is asked every `pause_s` at most while it finds nothing.

    `left_s` says how much is left of the task's life. Leases stay alive inside of `with`.
    """

    def __init__(
        self, first: Lease[Row], claim: Callable[[], Lease[Row] | None], left_s: Callable[[], float], pause_s: float
    ) -> None:
        self._claim, self._left_s, self._pause_s = claim, left_s, pause_s
        self._first, self._alone = first, first.attempt > 1
        self._held: list[Held[Row]] = []
        self._longest_s, self._look_s = 0.0, 0.0
        self._delivered = False

    def __enter__(self) -> "Hand[Row]":
        self._take(self._first)
        return self

    def __exit__(self, *exception: object) -> None:
        for held in self._held:
            held.lease.forget()

    def more(self, fits: Callable[[Lease[Row]], bool] = anything, /) -> Lease[Row] | None:
        """As `More`."""
        if self._alone or time.monotonic() < self._look_s:
            return None
        self._look_s = time.monotonic() + self._pause_s
        lease = self._claim()
        if lease is None:
            return None
        try:
            does_fit = lease.attempt == 1 and fits(lease)
        except StoreError:  # a hiccup of the filesystem must not cost what is in hand
            does_fit = False
        except BaseException:
            lease.release("whether it goes with what is in hand could not be seen")
            raise
        if not does_fit:  # it would come again at once, and others may be free for it
            with contextlib.suppress(StoreError):  # its lease will end
                lease.release("it does not go with what is in hand")
            self._look_s += _MISFIT_PAUSES * self._pause_s
            return None
        self._look_s = 0.0
        self._take(lease)
        return lease

    def open(self) -> list[Held[Row]]:
        """Those that have not ended, the oldest first."""
        return [held for held in list(self._held) if not held.lease.ended]

    def longest_s(self) -> float:
        """The longest that one of them was in hand, of those that have ended."""
        return max([self._longest_s, *(held.seconds for held in self._held if held.lease.ended)])

    def has_delivered(self) -> bool:
        """Whether one of them is done."""
        return self._delivered or any(held.lease.ended == DONE for held in self._held)

    def _take(self, lease: Lease[Row]) -> None:
        self._longest_s, self._delivered, self._held = self.longest_s(), self.has_delivered(), self.open()
        lease.hold()
        self._held.append(Held(lease, time.monotonic(), self._left_s()))
