"""Rank 0 alone: which checkpoints are kept, which weights are published, what is asked for again after a death."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
from feeder import Feeder
from small_run import GROUPS, STEPS, make_run

from grhpc.errors import GaveUp, StoreError, Superseded
from grhpc.lifetime import Lifetime
from grhpc.store.events import read_events
from grhpc.store.ledger import Ledger, read_ledger
from grhpc.store.polling import Backoff
from grhpc.store.rundir import RunDir
from grhpc.store.transfer import describe
from grhpc.train import chief as chief_module
from grhpc.train.chief import STOP, WAIT, Chief
from grhpc.train.keeper import STEP_MARGIN, Saver


@pytest.fixture
def run(base: Path, tmp_path: Path) -> RunDir:
    return make_run(base, tmp_path / "run")


def chief_of(run: RunDir) -> Chief:
    """A new incarnation of rank 0."""
    return Chief(run, run.config(), Lifetime(job="test"))


def earlier_life(run: RunDir, *, steps: int, checkpoints: tuple[int, ...] = ()) -> Ledger:
    """A trainer that recorded so many steps, and saved these checkpoints in this order."""
    ledger = Ledger.open_next(run.ledger_dir, run_id=run.run_id)
    ledger.append({"kind": "admit", "first": 0, "count": steps * GROUPS, "version": 0})
    for step in range(1, steps + 1):
        ledger.append(step_entry(step, ledger.generation))
    for step in checkpoints:
        run.checkpoint_dir(step).mkdir(exist_ok=True)
        ledger.append({"kind": "checkpoint", "step": step})
    return ledger


def step_entry(step: int, generation: int) -> dict:
    groups = list(range((step - 1) * GROUPS, step * GROUPS))
    batch = f"s{step:06d}-g{generation:04d}.parquet"
    return {"kind": "step", "step": step, "version": step - 1, "batch": batch, "sha256": "", "groups": groups}


def publish(run: RunDir, generation: int, version: int) -> None:
    (run.weights.begin(generation, version) / "model.safetensors").write_bytes(b"weights")
    run.weights.commit(generation, version, base="tiny", extra={})


def heldout_shards(run: RunDir) -> list[str]:
    """The held-out shards that stand anywhere, by queue."""
    found = []
    for queue in ("prompts", "rollouts", "verdicts"):
        for names in run.queue(queue).names().values():
            found += [f"{queue}/{name}" for name in names if name.startswith("h")]
    return sorted(found)


def test_a_checkpoint_saved_twice_counts_once_among_those_kept(run: RunDir) -> None:
    """After a corrupt one was set aside its step is saved again: two lines, one folder."""
    earlier_life(run, steps=4, checkpoints=(1, 2, 4, 4))
    chief = chief_of(run)
    chief.checkpointed(4, 0.1)
    assert sorted(path.name for path in run.checkpoints_dir.iterdir()) == ["s000002", "s000004"]


def test_what_unfinished_saves_left_is_removed_at_the_next_checkpoint(run: RunDir) -> None:
    earlier_life(run, steps=4, checkpoints=(2, 4))
    for left in (".s000003.tmp", "s000003"):  # died while saving; died between the rename and the ledger's line
        (run.checkpoints_dir / left).mkdir()
        (run.checkpoints_dir / left / "__0_0.distcp").write_bytes(b"many gigabytes")
    chief_of(run).checkpointed(4, 0.1)
    assert sorted(path.name for path in run.checkpoints_dir.iterdir()) == ["s000002", "s000004"]


def test_a_superseded_trainer_removes_no_checkpoint(run: RunDir) -> None:
    earlier_life(run, steps=4, checkpoints=(2, 4))
    chief = chief_of(run)
    chief_of(run)
    (run.checkpoints_dir / ".s000004.tmp").mkdir()
    with pytest.raises(Superseded):
        chief.checkpointed(4, 0.1)
    assert sorted(path.name for path in run.checkpoints_dir.iterdir()) == [".s000004.tmp", "s000002", "s000004"]


def test_heldout_is_asked_for_once_though_the_trainer_died_between_publishing_and_asking(run: RunDir) -> None:
    earlier_life(run, steps=3)
    publish(run, 1, 3)
    chief_of(run).recover(3)
    assert heldout_shards(run) == ["prompts/h000003-00000000-0005"]
    assert Feeder(run, 1).feed_once(), "the roles go on while the trainer dies again"
    chief_of(run).recover(3)
    assert heldout_shards(run) == ["verdicts/h000003-00000000-0005"], "asked twice"
    chief = chief_of(run)
    chief.recover(3)
    chief._flow.collect()
    assert run.heldout_versions() == [3] and heldout_shards(run) == []
    chief_of(run).recover(3)
    assert heldout_shards(run) == [], "answered before"


def test_held_out_answers_are_asked_for_under_one_version_at_a_time(run: RunDir) -> None:
    """Of two at a time, different verify tasks would put the same questions to the judge."""
    earlier_life(run, steps=6)
    publish(run, 1, 3)
    publish(run, 1, 6)
    chief = chief_of(run)
    chief.recover(6)
    assert heldout_shards(run) == ["prompts/h000003-00000000-0005"]
    assert chief._flow.heldout_versions() == {3, 6}, "the second one's weights would be pruned"
    assert Feeder(run, 1).feed_once()
    chief._flow.collect()
    assert run.heldout_versions() == [3] and heldout_shards(run) == ["prompts/h000006-00000000-0005"]


def test_a_superseded_trainers_weights_of_the_same_number_are_not_taken_for_ours(run: RunDir) -> None:
    """Weights of step 5 are there, but no ledger line of it was when this trainer began: they are of other groups."""
    earlier_life(run, steps=4)
    chief = chief_of(run)
    publish(run, 1, 5)
    chief._ledger.append({"kind": "admit", "first": 4 * GROUPS, "count": GROUPS, "version": 4})
    chief._ledger.append(step_entry(5, 2))
    folder = chief.begin_publish(5)
    assert folder is not None
    (folder / "model.safetensors").write_bytes(b"ours")
    chief.commit_publish(5, {"model.safetensors": describe(folder / "model.safetensors")})
    newest = run.weights.newest()
    assert newest is not None and (newest.generation, newest.version) == (2, 5)


def test_groups_admitted_just_before_a_death_are_asked_for_as_they_were_admitted(run: RunDir) -> None:
    """The trainer died between ledger and queue, and resumes from a checkpoint that is older than what they wait for:
    rollouts of the checkpoint's age would be too stale for their step, and be dropped for no fault of theirs."""
    ledger = earlier_life(run, steps=4, checkpoints=(2,))
    ledger.append({"kind": "admit", "first": 4 * GROUPS, "count": GROUPS, "version": 4})
    chief_of(run).recover(2)
    queue = run.queue("prompts")
    leases = [queue.claim("reader") for _ in range(GROUPS // 2)]
    rows = [row for lease in leases if lease is not None for row in lease.rows]
    assert [(row.group, row.admitted_version) for row in rows] == [(4 * GROUPS + i, 4) for i in range(GROUPS)]
    assert queue.counts()["ready"] == 0


def test_the_ledgers_line_comes_before_the_prompts(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts without their line would be admitted again under another version, and answered twice."""
    chief = chief_of(run)

    def refuse(entry: dict) -> None:
        raise StoreError("no space left", "free some")

    monkeypatch.setattr(chief._ledger, "append", refuse)
    with pytest.raises(StoreError, match="no space left"):
        chief._flow.admit(1)
    assert run.queue("prompts").counts() == {"ready": 0, "leased": 0, "failed": 0}
    monkeypatch.undo()
    chief._flow.admit(1)
    assert run.queue("prompts").counts()["ready"] == GROUPS // 2


def test_weights_that_somebody_still_needs_are_not_pruned(run: RunDir) -> None:
    """v2: its held-out shard is on its way; v4: an evaluation is due of it, and none was made yet."""
    config = run.config()
    run.amend(
        replace(
            config,
            evaluate=replace(config.evaluate, every=4, config="eval.yaml"),
            store=replace(config.store, keep_weights=1),
        )
    )
    earlier_life(run, steps=STEPS)
    for version in range(1, STEPS):
        publish(run, 1, version)
    chief = chief_of(run)
    chief._flow.request_heldout(2, chief._heldout)
    folder = chief.begin_publish(STEPS)
    assert folder is not None
    (folder / "model.safetensors").write_bytes(b"the newest")
    chief.commit_publish(STEPS, {"model.safetensors": describe(folder / "model.safetensors")})
    assert run.weights.versions() == [2, 4, STEPS]


def test_a_later_life_knows_how_long_a_step_and_a_save_take(run: RunDir) -> None:
    earlier_life(run, steps=4)
    before = run.events("train", "an-earlier-job")
    for seconds in (500.0, 10.0):
        before.emit("step", step=3, train_s=seconds, publish_s=20.0)
    before.emit("checkpoint", step=4, seconds=100.0)

    def needs_s(left_s: float) -> float:
        chief = Chief(run, run.config(), Lifetime(job="test", end_s=time.time() + left_s))
        return Saver(run, None, chief).needs_s(0.0)  # type: ignore[arg-type]

    assert needs_s(5000) == pytest.approx(STEP_MARGIN * 520 + 100)
    assert needs_s(1000) == pytest.approx(500, abs=5), "half a life is enough to try: what never fits is not put off"


@pytest.mark.parametrize("job", ["test", "resumed-by-a-person"])
def test_a_wait_is_bounded_over_all_lives_of_a_job(base: Path, tmp_path: Path, monkeypatch, job: str) -> None:
    """Each life of a requeued job is as long as `wait_s` at most, so that none of them alone could reach it."""
    monkeypatch.setattr(chief_module, "PATIENCE_S", 0.0)
    run = make_run(base, tmp_path / "run", wait_s=1000.0)
    earlier_life(run, steps=4)
    for step, waited_s in ((4, 5000), (5, 1), (5, 700), (5, 301)):
        run.events("train", "test").emit("waiting", step=step, since_s=time.time() - waited_s)
    chief = Chief(run, run.config(), Lifetime(job=job, restart=2))
    if job != "test":
        assert chief.decide(5, time.time(), 0.0) == WAIT
        return
    with pytest.raises(GaveUp, match=r"no batch for step 5 after 100\d s: 0 of 4.*for a rollout task and none works"):
        chief.decide(5, time.time(), 0.0)


def test_weights_that_an_earlier_life_published_are_not_published_again(run: RunDir) -> None:
    earlier_life(run, steps=5)
    publish(run, 1, 5)
    chief = chief_of(run)
    assert [chief.begin_publish(version) for version in (3, 4, 5)] == [None, None, None]


def test_a_drain_while_the_last_heldout_is_missing_leaves_the_run_to_be_resumed(run: RunDir) -> None:
    earlier_life(run, steps=STEPS, checkpoints=(STEPS,))
    publish(run, 1, STEPS)
    life = Lifetime(job="drained")
    chief = Chief(run, run.config(), life)
    chief.recover(STEPS)
    life.drain("signal SIGUSR2")
    chief.close(STEPS)
    assert run.finished() is None and not read_ledger(run.ledger_dir, run_id=run.run_id).finished
    assert heldout_shards(run) == ["prompts/h000006-00000000-0005"]
    assert Feeder(run, 1).feed_once()
    chief = chief_of(run)
    chief.recover(STEPS)
    chief.close(STEPS)
    assert (run.finished() or {})["step"] == STEPS and run.heldout_versions() == [STEPS]
    assert read_ledger(run.ledger_dir, run_id=run.run_id).finished


def test_a_stop_while_the_last_heldout_is_missing_is_obeyed(run: RunDir) -> None:
    earlier_life(run, steps=STEPS)
    publish(run, 1, STEPS)
    chief = chief_of(run)
    chief.recover(STEPS)
    run.request_stop("enough")
    chief.close(STEPS)
    assert run.finished() is None and heldout_shards(run) == ["prompts/h000006-00000000-0005"]


@pytest.mark.parametrize("step", [5, STEPS], ids=["a batch", "the last held-out answers"])
def test_a_stop_ends_a_wait_at_its_next_look(run: RunDir, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Not after the trainer's patience: what it waits for will not come."""
    earlier_life(run, steps=step - 1 if step < STEPS else STEPS)
    publish(run, 1, step - 1 if step < STEPS else STEPS)
    chief = chief_of(run)
    chief.recover(step)
    looks: list[float] = []

    def wait(backoff: Backoff, limit_s: float = 0.0) -> None:
        looks.append(limit_s)
        run.request_stop("enough")
        assert len(looks) < 3, "it waits on"

    monkeypatch.setattr(Backoff, "wait", wait)
    if step < STEPS:
        assert chief.decide(step, time.time(), 0.0) == STOP
    else:
        chief.close(STEPS)
    assert len(looks) == 1 and run.finished() is None


def test_the_wait_for_the_last_heldout_says_so_and_is_bounded(base: Path, tmp_path: Path) -> None:
    run = make_run(base, tmp_path / "run", idle_s=0.3)
    earlier_life(run, steps=STEPS)
    publish(run, 1, STEPS)
    chief = chief_of(run)
    chief.recover(STEPS)
    chief.close(STEPS)
    told = {event["event"]: event for event in read_events(run.events_dir, "train")}
    assert told["waiting"]["for"] == "held-out answers under weights v6" and told["waiting"]["since_s"] > 0
    assert told["heldout_missing"]["versions"] == [STEPS] and run.finished() is not None
