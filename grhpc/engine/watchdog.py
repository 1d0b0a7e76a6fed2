"""Notice that an engine hangs: a thread that acts when no sign of progress came for too long.

A hung engine cannot be interrupted from the thread that waits for it, and its process would keep its lease alive for
ever. Does not know: what is watched. Invariant: `on_stall` is called at most once in each `watching`.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator


class Watchdog:
    """Calls `on_stall` from a thread of its own when `beat` was not called for `limit_s` seconds while watching."""

    def __init__(self, limit_s: float, on_stall: Callable[[], None]) -> None:
        self.limit_s, self._on_stall = limit_s, on_stall
        self._last_s = time.monotonic()

    def beat(self) -> None:
        self._last_s = time.monotonic()

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        over = threading.Event()
        self.beat()
        thread = threading.Thread(target=self._watch, args=(over,), name="watchdog", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _watch(self, over: threading.Event) -> None:
        while not over.wait(max(0.01, self._last_s + self.limit_s - time.monotonic())):
            if time.monotonic() - self._last_s >= self.limit_s:
                self._on_stall()
                return
