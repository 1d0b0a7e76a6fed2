"""When the next request to a server may go out: by the rate that was agreed on, and after one that failed.

Does not know: what is asked, of whom. Invariant: no wait is longer than LONGEST_WAIT_S, whatever a server asks for,
beside the turns of the agreed rate; a wait that is cut short takes no turn.
"""

import asyncio
import email.utils
import random
import time

LONGEST_WAIT_S = 60.0  # between two tries of a request
_FIRST_WAIT_S = 0.5


class Pace:
    """Lets calls through one after the other, no more than so many a minute; None: all at once."""

    def __init__(self, per_min: float | None) -> None:
        self._gap_s = 60.0 / per_min if per_min else 0.0
        self._next_s = 0.0

    async def turn(self, order: asyncio.Lock) -> None:
        """Until it is this call's turn; `order` is one for all calls of a time."""
        if not self._gap_s:
            return
        async with order:
            await asyncio.sleep(self._next_s - time.monotonic())
            self._next_s = time.monotonic() + self._gap_s


def back_off_s(failed: int, wish: str | None) -> float:
    """How long to wait after the try number `failed` (from 1): twice as long each time, not all clients at once; where
    the server asks for more by its Retry-After header (`wish`: seconds or a date), so long."""
    wait_s = _FIRST_WAIT_S * 2.0 ** min(failed - 1, 16) * random.uniform(0.75, 1.25)
    return min(LONGEST_WAIT_S, max(wait_s, _wish_s(wish or "")))


def _wish_s(wish: str) -> float:
    """0 where it is neither seconds nor a date: it is a stranger's text."""
    if wish.strip().isdecimal():
        return float(wish)
    try:
        until = email.utils.parsedate_to_datetime(wish)
        return until.timestamp() - time.time()
    except (ValueError, OverflowError):
        return 0.0
