"""What a process does to the store, by name: each is run in a child that dies or is lied to at one system call."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from store_asking import ask, open_log
from store_rows import RUN, open_queue, rows_of, small_config

from grhpc.store.atomic import storing
from grhpc.store.code import Code
from grhpc.store.events import EventLog
from grhpc.store.ledger import Ledger, read_ledger
from grhpc.store.recorded import archive_batches
from grhpc.store.rundir import RunDir
from grhpc.store.transfer import sync_and_describe
from grhpc.store.weights import WeightStore


def put(root: Path) -> bool:
    return open_queue(root / "a").put("g2", rows_of(2, 3))


def hop(root: Path) -> str | None:
    """What a rollout or verify task does with one shard: claim, deliver downstream, done."""
    lease = open_queue(root / "a").claim("victim")
    if lease is None:
        return None
    open_queue(root / "b").put(lease.name, lease.rows)
    lease.done()
    return lease.name


def fail(root: Path) -> str | None:
    lease = open_queue(root / "a").claim("victim")
    if lease is not None:
        lease.fail("it went wrong")
    return lease and lease.name


def release(root: Path) -> str | None:
    lease = open_queue(root / "a").claim("victim")
    if lease is not None:
        lease.release("drain")
    return lease and lease.name


def reap(root: Path) -> list[str]:
    return open_queue(root / "a").reap(at_once=True)


def publish(root: Path) -> str:
    store = WeightStore(root / "weights", run_id=RUN)
    staging, written = store.begin(1, 2), {}
    for part in range(2):
        with storing(staging):
            (staging / f"part{part}.safetensors").write_bytes(bytes([part, 2]) * 3000)
        if part:  # the other one is left to the commit
            written[f"part{part}.safetensors"] = sync_and_describe(staging / f"part{part}.safetensors")
    return store.commit(1, 2, base="tiny", extra={"step": 2}, written=written).digest


def prune(root: Path) -> list[str]:
    return WeightStore(root / "weights", run_id=RUN).prune(1, set())


def fetch(root: Path) -> str:
    store = WeightStore(root / "weights", run_id=RUN)
    fetched = store.fetch_newest(root / "local")
    assert fetched is not None
    return fetched[1].name


def journal(root: Path) -> int:
    """A trainer's incarnation: it takes the ledger over and gives three groups their fate."""
    ledger = Ledger.open_next(root / "ledger", run_id=RUN)
    first = ledger.state.next_group
    ledger.append({"kind": "admit", "first": first, "count": 3, "version": 0})
    step = {"kind": "step", "step": ledger.state.last_step + 1, "version": 0, "batch": "b.parquet", "sha256": ""}
    ledger.append({**step, "groups": [first, first + 2]})
    ledger.append({"kind": "drop", "groups": {str(first + 1): "stale"}})
    return ledger.generation


def archive(root: Path) -> list[str]:
    """A checkpoint of step 4 is there: its four batches go into archives of two."""
    run = RunDir.open(root / "run")
    return archive_batches(run, read_ledger(run.ledger_dir, run_id=run.run_id).steps.values(), 2)


ASKED = (1, 2, 4, 5)


def ask_judge(root: Path) -> list[list[int]] | None:
    """What a verify task does about its questions: claim, look what others heard, record what it hears, let go."""
    told = ask(open_log(root / "decisions", "7_3"), *ASKED)
    return told and [sorted(part) for part in told]


SMALL_CODE = Code({"part/__init__.py": b"x = 1\n"}, {"version": "0", "sha256": "0"})


def create(root: Path) -> str:
    return RunDir.create(root / "runs" / "small", small_config(), SMALL_CODE.begin, code=SMALL_CODE.first()).run_id


def emit(root: Path) -> None:
    log = EventLog(root / "events" / "rollout-1.jsonl", role="rollout")
    log.emit("start")
    log.emit("ready")


def plain_hop(root: Path) -> str | None:
    """The queue that everybody writes first, to show what the tests here would say of it."""
    ready = sorted((root / "a" / "ready").iterdir())
    if not ready:
        return None
    data = ready[0].read_bytes()
    ready[0].rename(root / "a" / "leased" / ready[0].name)
    (root / "b" / "ready" / ready[0].name).write_bytes(data)
    (root / "a" / "leased" / ready[0].name).unlink()
    return ready[0].name


OPERATIONS: dict[str, Callable[[Path], Any]] = {
    operation.__name__: operation
    for operation in (
        *(put, hop, fail, release, reap, publish, prune, fetch, journal, archive, create, emit, ask_judge),
        plain_hop,
    )
}
