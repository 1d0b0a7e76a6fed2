"""The trainer's journal: which groups were admitted, and the one fate of each.

    ledger/g0003.jsonl    {"kind":"open","generation":3,"run_id":…}  {"kind":"cut","lengths":{"1":812,"2":47}}  entries…

One file a generation. A new incarnation of the trainer first claims the next generation (a hard link: one process gets
it), and then records, for every earlier file, the length up to which it counts: the cut. What a predecessor that was
declared dead writes after its cut is read by nobody. docs/ledger.md has the proof.

Does not know: what a group is, why one is dropped. Invariant: no reader ever sees a group with two fates; an entry
whose `append` returned counts for ever, unless a newer generation had cut its writer off unseen.
"""

import os
import re
import secrets
import time
from pathlib import Path
from typing import Any

from grhpc.errors import CorruptFile, ForeignFile, StoreError, Superseded
from grhpc.store.atomic import (
    fsync_dir,
    list_names,
    make_dir,
    read_bytes,
    remove_quietly,
    storing,
    temp_path,
    write_all,
    write_new,
)
from grhpc.store.journal import encode_line, parse_journal
from grhpc.store.ledger_state import Admit, BadEntry, LedgerState, StepEntry

__all__ = ["Admit", "Ledger", "LedgerState", "StepEntry", "read_ledger"]

_FILE = re.compile(r"g(\d{4,})\.jsonl")


def read_ledger(directory: Path, *, run_id: str) -> LedgerState:
    """Everything the ledger says now; generation 0 where there is none. Raises CorruptFile, ForeignFile, StoreError."""
    directory = Path(directory)
    return _replay(directory, run_id, _generations(directory))[0]


class Ledger:
    """The ledger as its one writer has it open. `state` follows every append."""

    def __init__(self, directory: Path, state: LedgerState, descriptor: int) -> None:
        self.directory, self.generation, self.state = directory, state.generation, state
        self._descriptor = descriptor
        self._broken = False

    @classmethod
    def open_next(cls, directory: Path, *, run_id: str) -> "Ledger":
        """Claim the next generation: from here on every earlier writer is cut off. Raises StoreError, CorruptFile."""
        directory = Path(directory)
        make_dir(directory)
        generation = _claim(directory, run_id)
        # The cuts are measured after the claim shows: an append that returned before it could show is in them.
        state, lengths = _replay(directory, run_id, [g for g in _generations(directory) if g < generation])
        state.generation = generation
        path = directory / file_name(generation)
        with storing(path):
            ledger = cls(directory, state, os.open(path, os.O_WRONLY | os.O_APPEND))
        ledger._write({"kind": "cut", "lengths": {str(g): length for g, length in lengths.items()}})
        return ledger

    def append(self, entry: dict[str, Any]) -> None:
        """Record `entry` durably, then take it into `state`.

        Raises Superseded when a newer generation exists: stop at once. Raises StoreError for an entry that contradicts
        the state (nothing is written) and when the filesystem refuses; after that this object refuses everything,
        because the line may or may not be there: only a new incarnation, by reading, can tell.
        """
        self.check_alone()
        try:
            self.state.check(entry)
        except BadEntry as error:
            raise StoreError(
                f"the ledger refuses an entry: {error}", "this is a bug: report it with the ledger"
            ) from None
        self._write({**entry, "t": round(time.time(), 3)})
        self.state.apply(entry)

    def close(self) -> None:
        """Let go of the file. The generation stays claimed."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self._broken = True

    def _write(self, entry: dict[str, Any]) -> None:
        path = self.directory / file_name(self.generation)
        if self._broken:
            raise StoreError(f"{path} is closed after a failed write", "start the trainer again: it will resume")
        self._broken = True
        with storing(path):
            write_all(self._descriptor, encode_line(entry))
            os.fsync(self._descriptor)
        self.check_alone()
        self._broken = False

    def check_alone(self) -> None:
        """Raises Superseded when a newer generation exists; ask before an effect that no entry guards."""
        newest = max(_generations(self.directory), default=0)
        if newest > self.generation:
            self._broken = True
            raise Superseded(
                f"trainer generation {newest} took over from generation {self.generation}", "let this one end"
            )


def file_name(generation: int) -> str:
    return f"g{generation:04d}.jsonl"


def _generations(directory: Path) -> list[int]:
    matches = (_FILE.fullmatch(name) for name in list_names(directory))
    return sorted(int(match[1]) for match in matches if match)


def _claim(directory: Path, run_id: str) -> int:
    """Make the next generation's file, whole with its first line, as the only process that does."""
    generation = max(_generations(directory), default=0)
    while True:
        generation += 1
        path = directory / file_name(generation)
        opening = {"kind": "open", "generation": generation, "run_id": run_id, "nonce": secrets.token_hex(8)}
        line, temp = encode_line({**opening, "t": round(time.time(), 3)}), temp_path(path)
        with storing(path):
            try:
                write_new(temp, line)
                os.link(temp, path)
            except OSError as error:
                # A lost reply makes a link that worked say EEXIST: look whose it is.
                there = path.name in list_names(directory)
                if not (there and read_bytes(path).startswith(line)):
                    if there and isinstance(error, FileExistsError):
                        continue
                    raise
            finally:
                remove_quietly(temp)
            fsync_dir(directory)
        return generation


def _replay(directory: Path, run_id: str, generations: list[int]) -> tuple[LedgerState, dict[int, int]]:
    """The state after `generations`, and the length in bytes to which each counts."""
    cuts: dict[int, int] = {}
    lengths: dict[int, int] = {}
    entries: dict[int, list[dict[str, Any]]] = {}
    for generation in reversed(generations):  # a newer file says how much of the older ones counts
        path = directory / file_name(generation)
        lines = parse_journal(_read(path), path, cuts.get(generation))
        entries[generation] = [line.entry for line in lines]
        lengths[generation] = lines[-1].end if lines else 0
        _check_opening(path, entries[generation], run_id)
        for entry in entries[generation]:
            if entry["kind"] == "cut":
                cuts.update({int(g): length for g, length in entry["lengths"].items()})
    for missing in set(cuts) - set(generations):
        _read(directory / file_name(missing))
    state = LedgerState(generation=max(generations, default=0))
    for generation in generations:
        for entry in entries[generation]:
            if entry["kind"] not in ("open", "cut"):
                _apply(state, entry, directory / file_name(generation))
    return state, lengths


def _read(path: Path) -> bytes:
    try:
        return read_bytes(path)
    except FileNotFoundError:
        raise CorruptFile(f"{path} is missing", "restore it from a backup") from None


def _apply(state: LedgerState, entry: dict[str, Any], path: Path) -> None:
    try:
        state.check(entry)
    except BadEntry as error:
        raise CorruptFile(f"{path} contradicts itself: {error}", "report it, with the ledger folder") from None
    state.apply(entry)


def _check_opening(path: Path, entries: list[dict[str, Any]], run_id: str) -> None:
    if not entries or entries[0].get("kind") != "open":
        raise CorruptFile(f"{path} has no opening line", "restore it from a backup")
    if entries[0]["run_id"] != run_id:
        raise ForeignFile(f"{path} belongs to run {entries[0]['run_id']}, not {run_id}", "use this run's own ledger")
