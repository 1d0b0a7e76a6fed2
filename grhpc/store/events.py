"""What happened, one JSON line an event, one file a process.

Telemetry, not truth: nothing is decided by it, so lines are not synced. The ledger is the truth.
Does not know: the events' vocabulary. Invariant: a reader gets whole lines only; a torn one is dropped, and the line
after it is whole.
"""

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from grhpc.store.atomic import list_names, make_dir, storing, to_json, write_all


class EventLog:
    """Appends to `path` (one writer). `common` fields are in every line."""

    def __init__(self, path: Path, **common: Any) -> None:
        self.path, self.common = Path(path), common
        make_dir(self.path.parent)
        # A requeued job writes on where its killed predecessor stopped, perhaps in the middle of a line.
        self._torn = self.path.name in list_names(self.path.parent)

    def emit(self, event: str, **fields: Any) -> None:
        """Append one event with the time `t` (seconds, this machine's clock). Raises StoreError."""
        line = to_json({"t": round(time.time(), 3), "event": event, **self.common, **fields}) + "\n"
        with storing(self.path):
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            try:
                torn, self._torn = self._torn, True
                write_all(descriptor, ("\n" + line if torn else line).encode())
                self._torn = False
            finally:
                os.close(descriptor)

    def past(self, tail_bytes: int = 1 << 20) -> list[dict[str, Any]]:
        """What this process, and earlier lives of the same job, wrote, in order; the end of it where that is long."""
        return _read(self.path, tail_bytes)


def waited_s(events: Iterable[dict[str, Any]]) -> float:
    """Seconds that the `waiting` events among `events` tell of; a wait (one `since_s`) lasts until its last event."""
    waits = {event["since_s"]: event["t"] for event in events if event["event"] == "waiting"}
    return float(sum(end_s - since_s for since_s, end_s in waits.items()))


def read_events(directory: Path, role: str | None = None, tail_bytes: int | None = None) -> list[dict[str, Any]]:
    """Every whole event in `directory`, by time; of one `role` (`<role>-<job>.jsonl`) if given.

    `tail_bytes` reads only the end of each file: a status wants the latest, not a week.
    """
    events: list[dict[str, Any]] = []
    for name in list_names(directory):
        if name.endswith(".jsonl") and (role is None or name.startswith(f"{role}-")):
            events += _read(directory / name, tail_bytes)
    return sorted(events, key=lambda event: event["t"])


def _read(path: Path, tail_bytes: int | None) -> list[dict[str, Any]]:
    try:
        with storing(path), open(path, "rb") as file:
            start = 0 if tail_bytes is None else max(0, file.seek(0, os.SEEK_END) - tail_bytes)
            file.seek(start)
            data = file.read()
    except FileNotFoundError:
        return []
    return parse_lines(data.partition(b"\n")[2] if start else data)


def parse_lines(data: bytes) -> list[dict[str, Any]]:
    """The whole events in the text of an event file."""
    events = (_parse(line) for line in data.split(b"\n") if line)
    return [event for event in events if event is not None]


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    whole = isinstance(event, dict) and isinstance(event.get("t"), (int, float)) and "event" in event
    return event if whole else None
