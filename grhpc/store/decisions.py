"""What the judge decided, shared by all verify tasks of a run: a question to it is asked once.

    decisions/<task>-<nonce>.jsonl    {"kind":"open","run_id":…,"task":…}  {"key":…,"decision":"yes","text":…}…

Every incarnation of a verify task appends to a file of its own. Before it asks it claims what its questions are about,
then reads what the others added, and lets go when its own decisions are written: of two tasks that meet the same
question at the same moment one asks, the other waits and reads. Only keys and places are kept in memory; a text is read
again where it stands.

Does not know: questions, judges. Invariant: `recall` returns only what some task of this run recorded, whole; what
cannot be read is as if it had never been recorded, and is told by `news`. Nobody waits while holding a claim.
"""

import contextlib
import itertools
import os
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grhpc.errors import WaitTimeout
from grhpc.store.atomic import fsync_dir, list_names, make_dir, storing, write_all
from grhpc.store.claims import Claims
from grhpc.store.events import EventLog
from grhpc.store.journal import encode_line, parse_line
from grhpc.store.polling import Backoff
from grhpc.store.rundir import RunDir

MOST_KEPT = 2_000_000  # keys in memory, some 200 bytes each; the oldest are forgotten first
_PLACE_BITS = 44  # of a key's value for the place in its file; above them the file's number
_PLACE = (1 << _PLACE_BITS) - 1
_CHUNK = 16 << 20
_POLL_S = 0.05, 1.0
_TELL_AFTER_S, _TELL_EVERY_S = 1.0, 30.0


@dataclass(frozen=True)
class Made:
    """A decision as the judge made it; `by` says who asked, "TASK SHARD"."""

    decision: str
    text: str
    confidence: float | None = None
    by: str = ""


@dataclass
class _File:
    number: int
    path: Path
    end: int = 0  # of what was read
    task: str = ""  # "" until the opening line was read
    usable: bool = True


class DecisionLog:
    """The decisions of a run as one task sees them. `task` names it; `asked_twice` counts the questions that it asked
    though another task asked them too (each such pair of tasks counts once): one of them had been taken for dead.

    `lease_s`: how long a task that asks may be silent; `wait_s`: how long another one waits for it; `on_wait(for what,
    since when)` is told of it, again and again."""

    def __init__(
        self,
        directory: Path,
        *,
        run_id: str,
        task: str,
        most_kept: int = MOST_KEPT,
        lease_s: float = 600.0,
        wait_s: float = 86_400.0,
        on_wait: Callable[[str, float], None] = lambda what, since_s: None,
    ) -> None:
        self._directory, self._run_id, self._task, self._most_kept = Path(directory), run_id, task, most_kept
        self._claims, self._wait_s, self._on_wait = Claims(self._directory, task, lease_s), wait_s, on_wait
        self._places: dict[bytes, int] = {}
        self._files: list[_File] = []
        self._own: _File | None = None
        self.asked_twice = 0
        self._problems: list[str] = []

    @classmethod
    def of_run(cls, run: RunDir, task: str, events: EventLog) -> "DecisionLog":
        """The decisions of `run` as its `task` sees them, under the run's lease; `events` is told of waits."""
        store = run.settings().store

        def tell(what: str, since_s: float) -> None:
            events.emit("waiting", **{"for": what, "since_s": since_s})

        where, run_id = run.decisions_dir, run.run_id
        return cls(where, run_id=run_id, task=task, lease_s=store.lease_s, wait_s=store.wait_s, on_wait=tell)

    def news(self) -> tuple[str, ...]:
        """Files that cannot be read on, since the last call."""
        problems, self._problems = tuple(self._problems), []
        return problems

    @contextlib.contextmanager
    def asking(
        self, topics: Mapping[bytes, bytes], should_stop: Callable[[], bool]
    ) -> Iterator[Collection[bytes] | None]:
        """While inside, keys that no other task asks about; of them, ask what `recall` does not know now.

        `topics` are all keys that are open, each with what it is about: topics are claimed, since they are fewer. What
        others ask about just now is left out, for the next call; only where nothing else is left it is waited for,
        and None is yielded where `should_stop` said so. Raises StoreError, WaitTimeout.
        """
        names = {key: topic.hex() for key, topic in topics.items() if key not in self._places}
        wanted = set(names.values())
        try:
            taken: set[str] | None = self._claims.take(wanted) if wanted else set()
            if not taken and len(names) == len(topics) > 0:
                taken = self._wait(wanted, should_stop)
            yield None if taken is None else {key for key, name in names.items() if name in taken}
        finally:
            self._claims.leave()

    def leave(self) -> None:
        """Let others ask what this process was about to ask: it ends in the middle of `asking`."""
        self._claims.leave()

    def recall(self, keys: Iterable[bytes]) -> dict[bytes, Made]:
        """Those of `keys` (SHA-256 digests) that have been decided, by any task. Raises StoreError."""
        self._read_news()
        wanted = sorted((place, key) for key in keys if (place := self._places.get(key)) is not None)
        found: dict[bytes, Made] = {}
        for number, places in itertools.groupby(wanted, lambda item: item[0] >> _PLACE_BITS):
            file = self._files[number]
            for key, entry in _entries_at(file.path, [(place & _PLACE, key) for place, key in places]):
                if entry is None:
                    del self._places[key]
                    self._distrust(file, "a decision that was in it is there no more")
                else:
                    found[key] = _made(entry, file.task)
        return found

    def record(self, decisions: Mapping[bytes, Made], shard: str) -> None:
        """Add decisions, for this task and all others. Not synced: at worst they are made again. Raises StoreError."""
        if not decisions:
            return
        own = self._own or self._open()
        self._own = None  # after a failed write the end of the file is not known: nothing more may follow it
        lines = [encode_line(_entry(key, made, shard)) for key, made in decisions.items()]
        with storing(own.path):
            descriptor = os.open(own.path, os.O_WRONLY | os.O_APPEND)
            try:
                write_all(descriptor, b"".join(lines))
            finally:
                os.close(descriptor)
        for key, line in zip(decisions, lines, strict=True):
            self._keep(key, own, own.end)
            own.end += len(line)
        self._own = own

    def _wait(self, names: Collection[str], should_stop: Callable[[], bool]) -> set[str] | None:
        """Until one of `names` is ours, but for `should_stop`."""
        backoff, since_s = Backoff(*_POLL_S), time.time()
        tell_s = since_s + _TELL_AFTER_S
        while not should_stop():
            if taken := self._claims.take(names):
                return taken
            now_s = time.time()
            if now_s > min(tell_s, since_s + self._wait_s):
                holders = ", ".join(sorted({holder for name in names if (holder := self._claims.holder(name))}))
                what = f"{holders or 'another task'} to hear from the judge what is to be asked here too"
                if now_s > since_s + self._wait_s:
                    raise WaitTimeout(f"waited {now_s - since_s:.0f} s for {what}", "see whether it goes on")
                self._on_wait(what, since_s)
                tell_s = now_s + _TELL_EVERY_S
            backoff.wait()
        return None

    def _open(self) -> _File:
        """A new file of this incarnation; another one may live on under the same task's name."""
        make_dir(self._directory)
        path = self._directory / f"{self._task}-{secrets.token_hex(4)}.jsonl"
        line = encode_line({"kind": "open", "run_id": self._run_id, "task": self._task})
        with storing(path):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            try:
                write_all(descriptor, line)
            finally:
                os.close(descriptor)
            fsync_dir(self._directory)
        self._files.append(_File(len(self._files), path, len(line), self._task))
        return self._files[-1]

    def _read_news(self) -> None:
        known = {file.path.name for file in self._files}
        names = [name for name in list_names(self._directory) if name.endswith(".jsonl") and name not in known]
        self._files += [_File(len(self._files) + n, self._directory / name) for n, name in enumerate(names)]
        for file in self._files:
            if file.usable and file is not self._own:
                problem = next(filter(None, (self._take_in(file, place, line) for place, line in _new_lines(file))), "")
                if problem:
                    self._distrust(file, problem)

    def _take_in(self, file: _File, place: int, line: bytes) -> str:
        """Why the file cannot be read on, or ""."""
        entry = parse_line(line)
        if entry is None:
            return f"it is damaged before byte {file.end}"
        if place > 0:
            self._take_key(file, place, bytes.fromhex(entry["key"]))
        elif entry.get("run_id") != self._run_id:
            return f"it belongs to run {entry.get('run_id')}, not {self._run_id}"
        file.task = file.task or str(entry.get("task"))
        return ""

    def _take_key(self, file: _File, place: int, key: bytes) -> None:
        own = self._own
        if own is not None and self._places.get(key, -1) >> _PLACE_BITS == own.number:
            self.asked_twice += own.path.name > file.path.name
        else:
            self._keep(key, file, place)

    def _keep(self, key: bytes, file: _File, place: int) -> None:
        self._places[key] = file.number << _PLACE_BITS | place
        if len(self._places) > self._most_kept:
            del self._places[next(iter(self._places))]

    def _distrust(self, file: _File, problem: str) -> None:
        if file.usable:
            file.usable = False
            self._problems.append(f"{file.path} is not read on: {problem}")


def _new_lines(file: _File) -> Iterator[tuple[int, bytes]]:
    """Whole lines after `file.end`, each with its place, moving `file.end`; the rest may still be on its way."""
    with contextlib.suppress(FileNotFoundError), storing(file.path), open(file.path, "rb") as stream:
        stream.seek(file.end)
        while True:
            before = file.end
            for raw in stream.readlines(_CHUNK):
                if not raw.endswith(b"\n"):
                    return
                place, file.end = file.end, file.end + len(raw)
                yield place, raw[:-1]
            if file.end == before:
                return


def _entries_at(path: Path, places: list[tuple[int, bytes]]) -> Iterator[tuple[bytes, dict[str, Any] | None]]:
    """The entry at each place, if it still is the key's."""
    try:
        with storing(path), open(path, "rb") as stream:
            for place, key in places:
                stream.seek(place)
                entry = parse_line(stream.readline().removesuffix(b"\n"))
                yield key, entry if entry is not None and entry.get("key") == key.hex() else None
    except FileNotFoundError:
        for _, key in places:
            yield key, None


def _entry(key: bytes, made: Made, shard: str) -> dict[str, Any]:
    confidence = None if made.confidence is None else round(made.confidence, 6)
    return {"key": key.hex(), "decision": made.decision, "text": made.text, "confidence": confidence, "shard": shard}


def _made(entry: dict[str, Any], task: str) -> Made:
    return Made(entry["decision"], entry["text"], entry["confidence"], f"{task} {entry['shard']}")
