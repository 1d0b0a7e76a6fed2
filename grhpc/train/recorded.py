"""The recorded batches: one file a step until a checkpoint covers it, then one archive file per N steps.

Does not know: why a batch is what it is, nor how it is trained. Invariant: a step's rows can be read, as they were
trained, at every moment from the ledger line on; a batch file is deleted only when its archive is durable.
"""

import hashlib

from grhpc.errors import CorruptFile
from grhpc.records import Trained
from grhpc.store.atomic import list_names, read_bytes
from grhpc.store.ledger import StepEntry
from grhpc.store.rundir import RunDir
from grhpc.store.shard import decode, read_shard, write_shard


def read_batch(run: RunDir, entry: StepEntry) -> list[Trained]:
    """The rows of a recorded step, from its own file or from an archive. Raises CorruptFile."""
    if entry.batch in list_names(run.batches_dir):
        path = run.named_batch(entry.batch)
        data = read_bytes(path)
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            raise CorruptFile(f"{path} is not the batch that the ledger recorded", "restore it, or start a new run")
        return decode(data, path, Trained, run_id=run.run_id)
    for name in list_names(run.archive_dir):
        first, last = archived_steps(name)
        if first <= entry.step <= last:
            rows = read_shard(run.archive_dir / name, Trained, run_id=run.run_id)
            return [row for row in rows if row.step == entry.step]
    raise CorruptFile(
        f"the batch of step {entry.step} ({entry.batch}) is neither in {run.batches_dir} nor archived",
        "restore it, or start a new run",
    )


def archive_batches(run: RunDir, entries: list[StepEntry], every: int) -> list[str]:
    """Pack whole spans of `every` steps among `entries` (all covered by a checkpoint); returns the archives' names."""
    present, packed = set(list_names(run.batches_dir)), []
    waiting = sorted((e for e in entries if e.batch in present), key=lambda e: e.step)
    for span in _whole_spans(waiting, every):
        path = run.archive_path(span[0].step, span[-1].step)
        rows = [row for entry in span for row in read_batch(run, entry)]
        write_shard(path, rows, run_id=run.run_id)
        for entry in span:
            run.named_batch(entry.batch).unlink()
        packed.append(path.name)
    return packed


def archived_steps(name: str) -> tuple[int, int]:
    """First and last step of an archive file, from its name."""
    first, last = name.removesuffix(".parquet").split("-")
    return int(first[1:]), int(last[1:])


def _whole_spans(entries: list[StepEntry], every: int) -> list[list[StepEntry]]:
    spans: dict[int, list[StepEntry]] = {}
    for entry in entries:
        spans.setdefault((entry.step - 1) // every, []).append(entry)
    return [span for key, span in sorted(spans.items()) if span[-1].step == (key + 1) * every]
