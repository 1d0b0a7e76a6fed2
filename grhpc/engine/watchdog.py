"""Notice that an engine hangs: a thread acts when no sign of progress came for too long.

A hung engine cannot be interrupted from the thread that waits for it, and its process would keep its lease alive for
ever. Does not know: what is watched. Invariant: `on_stall` is called at most once in each `watching`.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator


class Watchdog:
    """Calls `on_stall` from a thread of its own when `beat` was not called for `limit_s` seconds while watching.

    The thread outlives a `watching`, which may be as short as a step of the engine, and ends when none came for long.
    """

    def __init__(self, limit_s: float, on_stall: Callable[[], None]) -> None:
        self.limit_s, self._on_stall = limit_s, on_stall
        self._lock = threading.Lock()
        self._last_s: float | None = None  # the last sign of progress; None where nothing is watched
        self._is_here = False

    def beat(self) -> None:
        if self._last_s is not None:
            self._last_s = time.monotonic()

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        with self._lock:
            self._last_s = time.monotonic()
            if not self._is_here:
                self._is_here = True
                threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        try:
            yield
        finally:
            self._last_s = None

    def _watch(self) -> None:
        last_s = self._last_s
        while True:
            # Where nothing is watched it sleeps no longer than what may begin meanwhile is allowed to be silent.
            silent_s = 0.0 if last_s is None else time.monotonic() - last_s
            time.sleep(max(0.01, self.limit_s - silent_s))
            with self._lock:
                now_s = time.monotonic()  # first: a sign that comes meanwhile must not look as old as the one before
                before_s, last_s = last_s, self._last_s
                is_stalled = last_s is not None and now_s - last_s >= self.limit_s
                if is_stalled or (last_s is None and before_s is None):
                    self._is_here, self._last_s = False, None
                    break
        if is_stalled:
            self._on_stall()
