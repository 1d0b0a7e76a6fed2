"""Waiting politely: pauses that grow, with jitter, so that a thousand pollers do not march in step.

Does not know: what is waited for. Invariant: a pause is never longer than `max_s`, nor than what the caller has left.
"""

import random
import time


class Backoff:
    """Pauses from `min_s` up to `max_s` seconds, half as long again each time; `reset` after something came."""

    def __init__(self, min_s: float, max_s: float) -> None:
        self._min_s, self._max_s = min_s, max_s
        self._next_s = min_s

    def reset(self) -> None:
        self._next_s = self._min_s

    def wait(self, limit_s: float = float("inf")) -> None:
        """Sleep for the next pause, but not for more than `limit_s`."""
        pause_s = self._next_s * random.uniform(0.7, 1.3)
        self._next_s = min(self._max_s, self._next_s * 1.5)
        time.sleep(max(0.0, min(pause_s, self._max_s, limit_s)))
