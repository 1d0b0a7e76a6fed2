"""Real processes on one queue, some of them killed in the middle: every group arrives, and is counted once."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

from store_rows import open_queue, rows_of

NUM_SHARDS = 40
NUM_WORKERS = 4


def work(root: Path, seed: int) -> None:
    """Move shards from `a` to `b`. Two of the first workers die with their second shard, two when it is delivered."""
    num_taken = 0
    a, b = open_queue(root / "a", lease_s=1.0, max_attempts=1000), open_queue(root / "b")
    while True:
        lease = a.claim(f"worker{seed}")
        if lease is None:
            if not any(a.counts()[state] for state in ("ready", "leased")):
                return
            a.reap()
            time.sleep(0.02)
            continue
        with lease.keep_alive():
            num_taken += 1
            if seed in (1, 2) and num_taken == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            b.put(lease.name, lease.rows)
            if seed in (3, 4) and num_taken == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            lease.done()


def test_many_processes_share_the_work_and_lose_nothing(tmp_path: Path) -> None:
    queue, last = open_queue(tmp_path / "a"), open_queue(tmp_path / "b")
    for n in range(NUM_SHARDS):
        queue.put(f"g{n:03d}", rows_of(2 * n, 2 * n + 1))
    context = multiprocessing.get_context("spawn")
    workers, seed, deaths = [], 0, 0
    while True:
        for worker in [worker for worker in workers if not worker.is_alive()]:
            workers.remove(worker)
            deaths += worker.exitcode == -signal.SIGKILL
            assert worker.exitcode in (0, -signal.SIGKILL)
        if last.counts()["ready"] == NUM_SHARDS:  # nothing leaves it; what moves in `a` a look there may miss
            break
        while len(workers) < NUM_WORKERS:
            seed += 1
            workers.append(context.Process(target=work, args=(tmp_path, seed)))
            workers[-1].start()
        time.sleep(0.05)
    for worker in workers:
        worker.join()
    arrived: list[int] = []
    while (lease := last.claim("train")) is not None:
        groups = sorted({row.group for row in lease.rows})
        assert lease.rows == rows_of(*groups)
        arrived += groups
        lease.done()
    assert sorted(set(arrived)) == list(range(2 * NUM_SHARDS))
    assert sorted(arrived) == sorted(set(arrived)), "put knows the names that are still downstream"
    assert deaths > 0, "nobody died: the test shows nothing"


def claim_all(root: Path, barrier, taken) -> None:
    queue = open_queue(root / "a")
    barrier.wait(120)
    while queue.counts()["ready"]:
        if (lease := queue.claim(str(os.getpid()))) is not None:
            taken.put(lease.name)
            lease.done()


def test_a_shard_is_given_to_one_claimer_only(tmp_path: Path) -> None:
    queue = open_queue(tmp_path / "a")
    for n in range(NUM_SHARDS):
        queue.put(f"g{n:03d}", rows_of(n))
    context = multiprocessing.get_context("spawn")
    barrier, taken = context.Barrier(NUM_WORKERS), context.Queue()
    workers = [context.Process(target=claim_all, args=(tmp_path, barrier, taken)) for _ in range(NUM_WORKERS)]
    for worker in workers:
        worker.start()
    names = [taken.get(timeout=120) for _ in range(NUM_SHARDS)]
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert sorted(names) == sorted({f"g{n:03d}" for n in range(NUM_SHARDS)})
    assert taken.empty()
