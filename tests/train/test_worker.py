"""The trainer's loop as users rely on it: killed at any moment, it ends with the same bits, every group with one fate.

The rollout and verify tasks are played by a Feeder; queues, ledger, weights, checkpoints and Megatron-Core are real.
"""

import hashlib
import os
import random
import signal
import time
from collections import Counter
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import pytest
from feeder import Feeder
from lives import LIFE_LIMIT_S, TEST_LIMIT_S, begin, forking, wait_until
from safetensors.numpy import load_file
from small_run import GROUPS, SIZE, STEPS, make_run

from grhpc.lifetime import Lifetime
from grhpc.records import Verdict
from grhpc.store.events import read_events
from grhpc.store.ledger import read_ledger
from grhpc.store.recorded import read_batch
from grhpc.store.rundir import RunDir
from grhpc.store.shard import read_shard

KILLS = 10
pytestmark = pytest.mark.timeout(TEST_LIMIT_S)


def live(run_dir: str, restart: int) -> None:
    """One life of the trainer, in a process of its own."""
    from grhpc.train.worker import main

    os.environ.pop("WORLD_SIZE", None)
    main(Path(run_dir), Lifetime(job=f"test-{restart}", restart=restart))


def live_until_a_line(run_dir: str, restart: int) -> None:
    """A life that is killed as soon as it has written a line of the ledger, before it can act on it."""
    from grhpc.store.ledger import Ledger

    append = Ledger.append

    def last(ledger: Ledger, entry: dict[str, Any]) -> None:
        append(ledger, entry)
        os.kill(os.getpid(), signal.SIGKILL)

    Ledger.append = last  # type: ignore[method-assign]
    live(run_dir, restart)


@pytest.fixture(scope="module")
def lives() -> BaseContext:
    return forking("grhpc.train.worker")


def generation_of(run: RunDir) -> int:
    return read_ledger(run.ledger_dir, run_id=run.run_id).generation


def train_to_end(lives: BaseContext, run: RunDir) -> float:
    start_s = time.monotonic()
    process = begin(lives, live, run, 0)
    process.join(LIFE_LIMIT_S)
    assert process.exitcode == 0, read_events(run.events_dir, "train")[-3:]
    return time.monotonic() - start_s


def final_weights(run: RunDir) -> dict[str, str]:
    """The digest of every tensor."""
    newest = run.weights.newest()
    assert newest is not None and newest.version == STEPS
    return {
        name: hashlib.sha256(value.tobytes()).hexdigest()
        for path in sorted(newest.path.glob("*.safetensors"))
        for name, value in load_file(path).items()
    }


def assert_every_group_has_one_fate(run: RunDir) -> None:
    state = read_ledger(run.ledger_dir, run_id=run.run_id)
    assert state.finished and not state.open_groups()
    assert set(state.fates) == set(range(state.next_group))
    trained = Counter(group for entry in state.steps.values() for group in entry.groups)
    assert sorted(state.steps) == list(range(1, STEPS + 1))
    assert len(trained) == STEPS * GROUPS and set(trained.values()) == {1}
    for entry in state.steps.values():
        rows = read_batch(run, entry)
        assert sorted({row.group for row in rows}) == entry.groups
        assert Counter(row.group for row in rows) == dict.fromkeys(entry.groups, SIZE)


@pytest.fixture(scope="module")
def undisturbed(base: Path, tmp_path_factory: pytest.TempPathFactory, lives: BaseContext) -> tuple[RunDir, float]:
    run = make_run(base, tmp_path_factory.mktemp("undisturbed") / "run")
    feeder = Feeder(run, SIZE)
    feeder.start()
    seconds = train_to_end(lives, run)
    feeder.close()
    return run, seconds


def test_a_run_ends_with_every_group_in_one_step_and_every_queue_empty(undisturbed: tuple[RunDir, float]) -> None:
    run, _ = undisturbed
    assert_every_group_has_one_fate(run)
    for name in ("prompts", "rollouts", "verdicts"):
        assert run.queue(name).counts() == {"ready": 0, "leased": 0, "failed": 0}
    assert (run.finished() or {})["step"] == STEPS
    steps = [event for event in read_events(run.events_dir, "train") if event["event"] == "step"]
    assert [event["step"] for event in steps] == list(range(1, STEPS + 1))
    assert all(event["staleness_max"] == 0 and event["groups"] == GROUPS for event in steps)


def test_batches_that_a_checkpoint_covers_are_archived_and_old_checkpoints_removed(
    undisturbed: tuple[RunDir, float],
) -> None:
    run, _ = undisturbed
    assert [path.name for path in sorted(run.archive_dir.iterdir())] == [
        "s000001-s000002.zip",
        "s000003-s000004.zip",
        "s000005-s000006.zip",
    ]
    assert list(run.batches_dir.iterdir()) == []
    assert [path.name for path in sorted(run.checkpoints_dir.iterdir())] == ["s000004", "s000006"]


def test_heldout_answers_are_kept_for_the_versions_asked(undisturbed: tuple[RunDir, float]) -> None:
    run, _ = undisturbed
    assert run.heldout_versions() == [0, 3, 6]
    rows = read_shard(run.heldout_path(3), Verdict, run_id=run.run_id)
    assert {row.prompt_id for row in rows} == {f"heldout{i}" for i in range(5)}
    told = [event["version"] for event in read_events(run.events_dir, "train") if event["event"] == "heldout"]
    assert told == [0, 3, 6]


def test_killed_at_ten_random_moments_it_ends_with_the_same_bits(
    base: Path,
    tmp_path: Path,
    lives: BaseContext,
    undisturbed: tuple[RunDir, float],
) -> None:
    calm, seconds = undisturbed
    run = make_run(base, tmp_path / "run")
    feeder = Feeder(run, SIZE, limit=0)
    feeder.start()
    moments = random.Random(20261121)
    for kill in range(KILLS):
        feeder.limit = 1 + kill  # half a step a life: ten lives cannot reach the end
        before = generation_of(run)
        process = begin(lives, live, run, kill)
        if kill % 2:  # on a busy machine a short life may end before it left a trace: these leave one
            wait_until(lambda before=before: generation_of(run) > before, process)
        process.join(moments.uniform(0.1, 1.0) * seconds)
        assert process.pid is not None and process.exitcode is None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    feeder.limit = None
    process = begin(lives, live, run, KILLS)
    process.join(LIFE_LIMIT_S)
    feeder.close()
    assert process.exitcode == 0, read_events(run.events_dir, "train")[-3:]
    assert KILLS // 2 < generation_of(run) <= KILLS + 1
    assert_every_group_has_one_fate(run)
    assert final_weights(run) == final_weights(calm)


def test_killed_after_every_line_of_the_ledger_it_ends_with_the_same_bits(
    base: Path,
    tmp_path: Path,
    lives: BaseContext,
    undisturbed: tuple[RunDir, float],
) -> None:
    run = make_run(base, tmp_path / "run")
    feeder = Feeder(run, SIZE)
    feeder.start()
    num_lines = 2 * STEPS + STEPS // 2 + 1  # admitted, recorded; every other step a checkpoint; finished
    for life in range(num_lines):
        process = begin(lives, live_until_a_line, run, life)
        process.join(LIFE_LIMIT_S)
        assert process.exitcode == -signal.SIGKILL
    train_to_end(lives, run)
    feeder.close()
    assert_every_group_has_one_fate(run)
    assert final_weights(run) == final_weights(undisturbed[0])


def test_a_corrupt_checkpoint_is_set_aside_and_named_and_the_one_before_serves(
    base: Path, tmp_path: Path, lives: BaseContext, undisturbed: tuple[RunDir, float]
) -> None:
    run = make_run(base, tmp_path / "run")
    feeder = Feeder(run, SIZE, limit=10)  # two held-out shards and four steps
    feeder.start()
    process = begin(lives, live, run, 0)
    wait_until(lambda: 4 in read_ledger(run.ledger_dir, run_id=run.run_id).checkpoints, process)
    process.kill()
    process.join()
    damaged = max(run.checkpoint_dir(4).glob("*.distcp"), key=lambda path: path.stat().st_size)
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    feeder.limit = None
    train_to_end(lives, run)
    feeder.close()
    (told,) = [event for event in read_events(run.events_dir, "train") if event["event"] == "error"]
    assert "s000004" in told["problem"] and damaged.name in told["problem"]
    assert [path for path in run.quarantine_dir.iterdir() if path.name.startswith("s000004") and path.is_dir()]
    assert_every_group_has_one_fate(run)
    assert final_weights(run) == final_weights(undisturbed[0])
