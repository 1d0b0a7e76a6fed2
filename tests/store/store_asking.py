"""Keys, topics and decisions for tests of who asks what, and a log that records them."""

import contextlib
import hashlib
import os
from pathlib import Path

from store_rows import RUN

from grhpc.store.claims import Claims
from grhpc.store.decisions import DecisionLog, Made

LEASE_S = 1000.0


def key(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


def topics(*numbers: int) -> dict[bytes, bytes]:
    """Two keys a topic."""
    return {key(n): key(1000 + n // 2) for n in numbers}


class Still:
    """In the place of a heartbeat: time passes only where a test says so."""

    def watch(self, path: Path) -> None:
        pass

    forget = watch


def still(claims: Claims) -> Claims:
    claims._heartbeat = Still()
    return claims


def open_log(folder: Path, task: str) -> DecisionLog:
    log = DecisionLog(folder, run_id=RUN, task=task, lease_s=LEASE_S)
    still(log._claims)
    return log


def ask(log: DecisionLog, *numbers: int) -> tuple[set[int], set[int]] | None:
    """One turn of a task that needs all of them: (what it asked, what was known); None where it would have to wait."""
    with log.asking(topics(*numbers), lambda: True) as free:
        if free is None:
            return None
        known = {n for n in numbers if key(n) in log.recall([key(n)])}
        asked = {n for n in numbers if key(n) in free and n not in known}
        log.record({key(n): Made("yes", f"reason {n}") for n in asked}, "g0")
    return asked, known


def hidden(folder: Path) -> list[Path]:
    """What of claims is there."""
    return sorted(path for path in folder.iterdir() if path.name.startswith("."))


def age(folder: Path, seconds: float = 10 * LEASE_S, living: frozenset[int] | set[int] = frozenset()) -> None:
    """Time passes, by the server's clock: claims are older, but for those whose inodes are `living`."""
    for path in {path.stat().st_ino: path for path in hidden(folder)}.values():
        with contextlib.suppress(FileNotFoundError):
            seen = path.stat()
            if seen.st_ino not in living:
                os.utime(path, (seen.st_atime - seconds, seen.st_mtime - seconds))
