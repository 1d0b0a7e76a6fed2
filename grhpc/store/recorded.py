"""The recorded batches: one file a step until a checkpoint covers it, then one archive of N steps' files.

    batches/s000012-g0003.parquet    archive/s000001-s000050.zip    the same files, byte for byte, stored uncompressed

Any unzip opens an archive; one step is read from it without the others, and is held against the ledger's SHA-256.
Does not know: why a batch is what it is, nor how it is trained. Invariant: a step's rows can be read, as they were
trained, at every moment from the ledger line on; a batch file is deleted only when its archive is durable.
"""

import hashlib
import os
import struct
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from grhpc.errors import CorruptFile
from grhpc.records import Trained
from grhpc.store.atomic import fsync_dir, list_names, read_bytes, remove_quietly, storing, temp_path
from grhpc.store.ledger_state import StepEntry
from grhpc.store.rundir import RunDir
from grhpc.store.shard import decode

_REMEDY = "restore it, or start a new run"
_VISIBLE_S = 90.0  # how long a batch that rank 0 recorded may take to show on another rank's machine
# What zipfile raises over a damaged archive.
_DAMAGE = (zipfile.BadZipFile, EOFError, LookupError, OverflowError, RuntimeError, ValueError, struct.error)


def read_batch(run: RunDir, entry: StepEntry, on_wait: Callable[[str], None] | None = None) -> list[Trained]:
    """The rows of a recorded step, from its own file or from an archive. Raises CorruptFile, StoreError.

    With `on_wait`, which is told what for, a batch that was recorded a moment ago on another machine is waited for.
    """
    data = batch_bytes(run, entry, on_wait)
    return decode(data, run.named_batch(entry.batch), Trained, run_id=run.run_id)


def batch_bytes(run: RunDir, entry: StepEntry, on_wait: Callable[[str], None] | None = None) -> bytes:
    """The file of a recorded step as it was trained, wherever it stands now. Raises CorruptFile naming the file."""
    found, give_up_s = _find(run, entry), time.monotonic() + _VISIBLE_S
    if found is None and on_wait is not None:
        on_wait(f"{run.named_batch(entry.batch)} to show on this machine")
        while found is None and time.monotonic() < give_up_s:
            time.sleep(1.0)
            found = _find(run, entry)
    if found is None:
        waited = f", not even after {_VISIBLE_S:.0f} s" if on_wait is not None else ""
        raise CorruptFile(
            f"the batch of step {entry.step} ({entry.batch}) is neither in {run.batches_dir} nor archived{waited}",
            _REMEDY,
        )
    where, data = found
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise CorruptFile(f"{where} is not the batch that the ledger recorded", _REMEDY)
    return data


def archive_batches(run: RunDir, entries: Iterable[StepEntry], every: int) -> list[str]:
    """Pack whole spans of `every` steps among `entries` (all covered by a checkpoint).

    A batch that is not what was recorded cannot be archived: it is set aside, since training no longer needs it.
    Returns what is wrong with each such, in a line.
    """
    spans: dict[int, list[StepEntry]] = {}
    for entry in sorted(entries, key=lambda entry: entry.step):
        spans.setdefault((entry.step - 1) // every, []).append(entry)
    covered = max((span[-1].step for span in spans.values()), default=0)
    present, problems = set(list_names(run.batches_dir)), list[str]()
    for number, span in spans.items():
        path = run.archive_path(number * every + 1, (number + 1) * every)
        left = [entry.batch for entry in span if entry.batch in present]
        if not left or covered < (number + 1) * every:
            continue
        if not set(left) <= _members(path):  # else we died while removing them
            _write(path, _good(run, span, problems))
        with storing(run.batches_dir):
            for name in left:
                run.named_batch(name).unlink(missing_ok=True)
    return problems


def _find(run: RunDir, entry: StepEntry) -> tuple[str, bytes] | None:
    """Where the batch stands, in words, and its bytes; None where this machine sees it nowhere.

    Opened without a look at the listing, which may be a minute old; the name was probed by nobody before.
    """
    path = run.named_batch(entry.batch)
    try:
        return str(path), read_bytes(path)
    except FileNotFoundError:
        pass
    for name in list_names(run.archive_dir):
        first, last = (int(number[1:]) for number in name.removesuffix(".zip").split("-"))
        if first <= entry.step <= last:
            path = run.archive_dir / name
            return f"{entry.batch} in {path}", _read_member(path, entry.batch)
    return None


def _read_member(path: Path, name: str) -> bytes:
    with storing(path):
        try:
            with zipfile.ZipFile(path) as archive:
                if archive.getinfo(name).compress_type == zipfile.ZIP_STORED:
                    return archive.read(name)
            problem = "it is compressed"
        except _DAMAGE as error:
            problem = str(error)
    raise CorruptFile(f"{name} in {path} cannot be read: {problem}", _REMEDY)


def _members(path: Path) -> set[str]:
    """The files in an archive; none where it is absent or damaged."""
    if path.name not in list_names(path.parent):
        return set()
    try:
        with storing(path), zipfile.ZipFile(path) as archive:
            return set(archive.namelist())
    except _DAMAGE:
        return set()


def _good(run: RunDir, span: list[StepEntry], problems: list[str]) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of the batches of a span that are what was recorded, one at a time."""
    for entry in span:
        try:
            data = batch_bytes(run, entry)
        except CorruptFile as error:
            kept = ""
            if entry.batch in list_names(run.batches_dir):
                kept = f"; moved to {run.set_aside(run.named_batch(entry.batch), error.problem)}"
            problems.append(error.problem + kept)
            continue
        yield entry.batch, data


def _write(path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    """Make an archive, whole or not at all; what an earlier one that died half-way left is removed."""
    temp = temp_path(path)
    with storing(path):
        for name in os.listdir(path.parent):
            if name.startswith("."):
                remove_quietly(path.parent / name)
        try:
            with open(temp, "xb") as file:
                with zipfile.ZipFile(file, "w") as archive:
                    for name, data in members:
                        archive.writestr(zipfile.ZipInfo(name), data)
                file.flush()
                os.fsync(file.fileno())
            os.rename(temp, path)
            fsync_dir(path.parent)
        except BaseException:
            remove_quietly(temp)
            raise
