"""One thread that keeps all of a process's leases alive.

Does not know: what the files are. Invariant: a file that is gone is never touched again, and is reported as lost.
"""

import contextlib
import os
import threading
from pathlib import Path


class Heartbeat:
    """Touches each watched file every `interval_s`, as the server's clock tells the time."""

    def __init__(self, interval_s: float) -> None:
        self.interval_s = interval_s
        self._watched: set[Path] = set()
        self._lost: set[Path] = set()
        self._change = threading.Condition()
        self._thread: threading.Thread | None = None

    def watch(self, path: Path) -> None:
        with self._change:
            self._watched.add(path)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="lease-heartbeat", daemon=True)
                self._thread.start()

    def forget(self, path: Path) -> None:
        with self._change:
            self._watched.discard(path)
            self._lost.discard(path)
            self._change.notify()

    def lost(self, path: Path) -> bool:
        """Whether a watched file was found gone: somebody else holds the lease now."""
        return path in self._lost

    def _run(self) -> None:
        while True:
            with self._change:
                if not self._watched:
                    self._thread = None
                    return
                watched = list(self._watched)
            for path in watched:
                self._touch(path)
            with self._change:
                self._change.wait_for(lambda: not self._watched, timeout=self.interval_s)

    def _touch(self, path: Path) -> None:
        try:
            with contextlib.suppress(PermissionError):
                os.utime(path)
        except FileNotFoundError:
            with self._change:
                if path in self._watched:
                    self._watched.discard(path)
                    self._lost.add(path)
        except OSError:
            return  # the filesystem hiccups: the next beat tries again, and the lease allows for several
