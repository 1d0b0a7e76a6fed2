"""What a shard costs the file server, and how many files a step makes: counts, bounded."""

from pathlib import Path

import pytest
from store_crowd import counting, crowd
from store_faults import folder as folder
from store_rows import open_queue, rows_of, small_config

from grhpc.store.ledger import Ledger
from grhpc.store.rundir import RunDir
from grhpc.store.weights import WeightStore

PUT, CLAIM, DONE, IDLE = 8, 4, 1, 1
HOP_IN_A_CROWD = 30


def cost(operation) -> int:
    with counting() as counts:
        operation()
    return counts.total()


def test_a_shard_alone_costs_a_dozen_operations(folder: Path) -> None:
    queue, leases = open_queue(folder), []
    assert cost(lambda: queue.put("g0", rows_of(0))) <= PUT
    assert cost(lambda: leases.append(queue.claim("w"))) <= CLAIM
    assert cost(leases[0].done) <= DONE
    assert cost(lambda: queue.claim("w")) <= IDLE, "an idle look is one listing"


def test_a_thousand_shards_cost_the_same_each(folder: Path) -> None:
    queue, leases = open_queue(folder), []
    for n in range(1000):
        (folder / "ready" / f"g{n:08d}-0001.a1-0.parquet").touch()
    queue.put("f", rows_of(0))
    assert cost(lambda: queue.put("e", rows_of(0))) <= PUT
    assert cost(lambda: leases.append(queue.claim("w"))) <= CLAIM


@pytest.mark.parametrize(("num_claimers", "num_shards"), [(100, 100), (100, 10)])
def test_a_crowd_pays_a_bounded_price_for_contention(folder: Path, num_claimers: int, num_shards: int) -> None:
    told = crowd(folder, num_claimers, num_shards)
    # A look that finds nothing is one listing; how many there are depends on how fast this machine is.
    spent = sum(told["operations"].values()) - told["empty_looks"]
    assert spent <= HOP_IN_A_CROWD * max(num_shards, num_claimers)


def test_reaping_costs_one_operation_or_two_a_lease_and_only_now_and_then(folder: Path) -> None:
    queues = [open_queue(folder) for _ in range(10)]
    for n in range(20):
        queues[0].put(f"g{n}", rows_of(n))
        assert queues[0].claim("w")
    assert cost(lambda: queues[0].reap()) <= 2 * 20 + 4
    for _ in range(100):
        assert cost(lambda: queues[0].reap()) == 0, "within the interval it asks the server nothing"


def test_a_step_makes_few_files(folder: Path, tmp_path: Path) -> None:
    """Of a step with 4 shards: 4 in each of three queues, gone by its end; one batch; one folder of weights."""
    run = RunDir.create(folder / "run", small_config())
    before = {path for path in run.root.rglob("*") if path.is_file()}
    ledger = Ledger.open_next(run.ledger_dir, run_id=run.run_id)
    queues = [open_queue(run.root / "queue" / name, run_id=run.run_id) for name in ("prompts", "rollouts", "verdicts")]
    for shard in range(4):
        queues[0].put(f"g{shard}", rows_of(shard))
    for queue, onward in zip(queues, [*queues[1:], None], strict=True):
        while (lease := queue.claim("w")) is not None:
            if onward is not None:
                onward.put(lease.name, lease.rows)
            lease.done()
    ledger.append({"kind": "admit", "first": 0, "count": 4, "version": 0})
    store: WeightStore = run.weights
    for version in (1, 2):
        (store.begin(1, version) / "model.safetensors").write_bytes(b"w")
        store.commit(1, version, base="b", extra={})
        store.fetch_newest(tmp_path / "local")
    store.prune(1, set())
    left = {path for path in run.root.rglob("*") if path.is_file()} - before
    names = {path.relative_to(run.root).parts[0] for path in left}
    assert names <= {"ledger", "weights"}
    assert sorted(path.name for path in left) == ["g0001.jsonl", "manifest.json", "model.safetensors"]
