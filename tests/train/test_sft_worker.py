"""Fine-tuning as a run: killed at any moment it ends with the same bits; it drains in time; its model is never half."""

import hashlib
import os
import random
import shutil
import signal
import time
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import pytest
import transformers
from lives import LIFE_LIMIT_S, TEST_LIMIT_S, begin, forking, wait_until
from sft_cases import lesson_config, make_run, write_lessons

from grhpc.answer.judge import load_template
from grhpc.config import Config
from grhpc.config_file import load_as, with_absolute_paths
from grhpc.data.tiny import MODELS_DIR
from grhpc.errors import ConfigError, DataError
from grhpc.lifetime import Lifetime
from grhpc.sft_config import SftConfig
from grhpc.start import with_steps
from grhpc.store.events import read_events
from grhpc.store.ledger import read_ledger
from grhpc.store.rundir import RunDir
from grhpc.train import sft_worker
from grhpc.train.sft_data import prepare

STEPS, KILLS = 6, 5
pytestmark = pytest.mark.timeout(TEST_LIMIT_S)


def live(run_dir: str, restart: int) -> None:
    """One life of the trainer, in a process of its own."""
    os.environ.pop("WORLD_SIZE", None)
    sft_worker.main(Path(run_dir), Lifetime(job=f"test-{restart}", restart=restart))


def live_until(run_dir: str, restart: int, moment: str) -> None:
    """A life that is killed at a moment: right after a ledger line, a checkpoint's rename, or the model's."""

    def die(*_args: Any, **_kwargs: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if moment == "saved, not recorded":
        sft_worker.Chief.checkpointed = die  # type: ignore[method-assign]
    elif moment == "model written, not renamed":
        sft_worker.Chief.commit_model = die  # type: ignore[method-assign]
    elif moment == "model there, not finished":
        sft_worker.Chief.close = die  # type: ignore[method-assign]
    elif moment == "row recorded, not trained":
        sft_worker.Tuner.step = die  # type: ignore[method-assign]
    live(run_dir, restart)


@pytest.fixture(scope="module")
def lives() -> BaseContext:
    return forking("grhpc.train.sft_worker")


@pytest.fixture(scope="module")
def lessons(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lessons, and a model to start from."""
    folder = tmp_path_factory.mktemp("lessons")
    write_lessons(folder / "lessons.jsonl", 40)
    shutil.copytree(MODELS_DIR / "policy", folder / "model")
    return folder


@pytest.fixture
def run(lessons: Path, tmp_path: Path) -> RunDir:
    return make_run(lessons, tmp_path / "run")


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def steps_of(run: RunDir) -> dict[int, dict[str, Any]]:
    """The newest event of each step, without what differs between lives."""
    timed = ("t", "job", "train_s", "tokens_per_s")
    events = [event for event in read_events(run.events_dir, "sft") if event["event"] == "step"]
    return {event["step"]: {k: v for k, v in event.items() if k not in timed} for event in events}


@pytest.fixture(scope="module")
def calm(lessons: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDir, float]:
    """A run that nobody disturbed, and how long it took."""
    run = make_run(lessons, tmp_path_factory.mktemp("calm") / "run")
    begin_s = time.monotonic()
    sft_worker.main(run.root, Lifetime(job="calm"))
    return run, time.monotonic() - begin_s


def test_a_run_ends_with_a_model_that_transformers_loads(calm: tuple[RunDir, float]) -> None:
    run, _ = calm
    assert (run.finished() or {})["step"] == STEPS
    model = transformers.AutoModelForCausalLM.from_pretrained(run.model_dir)
    tokenizer = transformers.AutoTokenizer.from_pretrained(run.model_dir)
    assert model.config.vocab_size == len(tokenizer)
    assert load_template(str(run.model_dir / "template.txt")) == load_template(run.settings().data.template)  # type: ignore[union-attr]
    steps = steps_of(run)
    assert sorted(steps) == list(range(1, STEPS + 1))
    assert steps[STEPS]["loss"] < steps[1]["loss"] - 1, "it learns"
    assert all(0 <= step["padding"] < 0.6 and step["refused"] == 0 for step in steps.values())
    heldout = {e["step"]: e["loss"] for e in read_events(run.events_dir, "sft") if e["event"] == "heldout"}
    assert sorted(heldout) == [0, 3, 6] and heldout[6] < heldout[0]


def test_it_keeps_the_last_checkpoints_and_no_folder_of_grpo(calm: tuple[RunDir, float]) -> None:
    run, _ = calm
    assert sorted(path.name for path in run.checkpoints_dir.iterdir()) == ["s000004", "s000006"]
    assert not (run.root / "queue").exists() and not (run.root / "weights").exists()
    assert read_ledger(run.ledger_dir, run_id=run.run_id).finished


def test_killed_at_random_moments_it_ends_with_the_same_bits(
    run: RunDir, lives: BaseContext, calm: tuple[RunDir, float]
) -> None:
    undisturbed, seconds = calm
    moments = random.Random(20261122)
    for kill in range(KILLS):
        if run.finished():
            break  # `seconds` were measured on a busier machine
        process = begin(lives, live, run, kill)
        wait_until(lambda kill=kill: read_ledger(run.ledger_dir, run_id=run.run_id).generation > kill, process)
        process.join(moments.uniform(0.0, 0.5) * seconds)
        process.kill()
        process.join()
    assert run.finished() is None or run.model_dir.exists()
    process = begin(lives, live, run, KILLS)
    process.join(LIFE_LIMIT_S)
    assert process.exitcode == 0, read_events(run.events_dir, "sft")[-3:]
    assert digests(run.model_dir) == digests(undisturbed.model_dir)
    assert steps_of(run) == steps_of(undisturbed)


def test_killed_where_it_hurts_it_ends_with_the_same_bits(
    run: RunDir, lives: BaseContext, calm: tuple[RunDir, float]
) -> None:
    moments = ("row recorded, not trained", "saved, not recorded", "model written, not renamed")
    for number, moment in enumerate((*moments, "model there, not finished")):
        process = begin(lives, live_until, run, number, moment)
        process.join(LIFE_LIMIT_S)
        assert process.exitcode == -signal.SIGKILL, moment
        assert run.model_dir.exists() == (moment == "model there, not finished")
        assert run.finished() is None
    sft_worker.main(run.root, Lifetime(job="last"))
    assert run.finished() and digests(run.model_dir) == digests(calm[0].model_dir)
    assert [path.name for path in run.root.glob(".*")] == []


def test_the_template_beside_the_model_is_the_one_it_was_taught_with(
    lessons: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file changes in the middle of the run: what is written is what was read, and no later life goes on."""
    words = load_template(str(MODELS_DIR / "verifier" / "template.txt"))
    shutil.copytree(lessons, tmp_path / "base", ignore=shutil.ignore_patterns("prepared"))
    template = tmp_path / "base" / "template.txt"
    template.write_text(words)
    run = make_run(tmp_path / "base", tmp_path / "run", template=str(template))
    ready = sft_worker.Chief.ready

    def ready_and_changed(self: sft_worker.Chief, step: int) -> None:
        ready(self, step)
        template.write_text(f"Be kind. {words}")

    monkeypatch.setattr(sft_worker.Chief, "ready", ready_and_changed)
    sft_worker.main(run.root, Lifetime(job="first"))
    assert (run.model_dir / "template.txt").read_text() == words
    other = RunDir.create(tmp_path / "other", run.settings())
    with pytest.raises(DataError, match="is not the one that the examples were made with"):
        sft_worker.main(other.root, Lifetime(job="second"))


def test_the_shipped_recipe_runs_with_a_smaller_model(root: Path, tmp_path: Path) -> None:
    """Every key of configs/verifier-1.5b.yaml, bfloat16 among them; only what must be smaller here is."""
    smaller = {
        "model.model": MODELS_DIR / "verifier",
        "data.source": write_lessons(tmp_path / "lessons.jsonl", 24),
        "data.prepared": tmp_path / "prepared",
        "data.max_tokens": 1024,
        "data.heldout_share": 0.2,
        "train.rows_per_step": 2,
        "train.checkpoint_margin_s": 0,
        "cluster.executor": "local",
        "cluster.train.tasks_per_node": 1,
        "cluster.train.gpus_per_node": 0,
    }
    config = load_as(
        SftConfig, root / "configs" / "verifier-1.5b.yaml", [f"{key}={value}" for key, value in smaller.items()]
    )
    manifest = prepare(config)
    run = RunDir.create(tmp_path / "run", with_steps(with_absolute_paths(config)))
    sft_worker.main(run.root, Lifetime(job="recipe"))
    assert manifest["dropped"] == {} and sum(manifest["examples"].values()) == 24
    assert (run.finished() or {})["step"] == run.settings().train.steps >= 4
    losses = [e["loss"] for e in read_events(run.events_dir, "sft") if e["event"] == "heldout"]
    assert len(losses) == 2 and all(0 < loss < 10 for loss in losses)
    assert (run.model_dir / "template.txt").read_text() == load_template("general-verifier")


class LongSteps:
    """A clock in which every step takes an hour; the rest of its time is real."""

    HOUR_S = 3600.0

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._late_s, step = 0.0, sft_worker.Tuner.step

        def long_step(*args: Any) -> dict[str, float]:
            self._late_s += self.HOUR_S
            return step(*args)

        monkeypatch.setattr(sft_worker.Tuner, "step", long_step)
        monkeypatch.setattr(sft_worker, "time", self)

    def monotonic(self) -> float:
        return time.monotonic() + self._late_s


def test_a_step_that_would_not_fit_is_not_begun_and_the_next_life_goes_on(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, calm: tuple[RunDir, float]
) -> None:
    life = Lifetime(job="first", end_s=time.time() + 1.1 * LongSteps.HOUR_S)
    with monkeypatch.context() as patched:
        LongSteps(patched)
        sft_worker.main(run.root, life)
    assert life.drain_reason == "the allocation ends" and run.finished() is None
    ledger = read_ledger(run.ledger_dir, run_id=run.run_id)
    assert (ledger.last_step, ledger.checkpoints) == (1, [1])
    sft_worker.main(run.root, Lifetime(job="second"))
    resumed = [e for e in read_events(run.events_dir, "sft") if e["event"] == "resume"]
    assert [(e["step"], e["replayed"]) for e in resumed] == [(0, 0), (1, 0)]
    assert digests(run.model_dir) == digests(calm[0].model_dir)


def test_a_stop_request_is_heeded_and_saved(run: RunDir) -> None:
    run.request_stop("enough")
    sft_worker.main(run.root, Lifetime(job="stopped"))
    assert run.finished() is None and not run.model_dir.exists()
    assert read_events(run.events_dir, "sft")[-1]["reason"] == "stop requested: enough"


def test_a_corrupt_checkpoint_is_set_aside_and_the_one_before_serves(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, calm: tuple[RunDir, float]
) -> None:
    with monkeypatch.context() as patched:  # a life that ends before its model
        patched.setattr(sft_worker.Loop, "write_model", lambda loop: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            sft_worker.main(run.root, Lifetime(job="first"))
    damaged = max(run.checkpoint_dir(STEPS).glob("*.distcp"), key=lambda path: path.stat().st_size)
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    sft_worker.main(run.root, Lifetime(job="second"))
    (told,) = [event for event in read_events(run.events_dir, "sft") if event["event"] == "error"]
    assert "s000006" in told["problem"] and damaged.name in told["problem"]
    assert digests(run.model_dir) == digests(calm[0].model_dir)


def test_other_data_under_a_run_that_began_is_refused(
    run: RunDir, lessons: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        LongSteps(patched)
        sft_worker.main(run.root, Lifetime(job="first", end_s=time.time() + 1.1 * LongSteps.HOUR_S))
    write_lessons(tmp_path / "lessons.jsonl", 30)
    config = lesson_config(tmp_path, lessons / "model")
    prepare(config)
    run.amend(config)
    shutil.rmtree(run.checkpoints_dir)
    run.checkpoints_dir.mkdir()
    with pytest.raises(DataError, match="rows of step 1 are not those"):
        sft_worker.main(run.root, Lifetime(job="second"))


def test_weights_that_are_not_finite_are_no_model(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sft_worker.Tuner, "step", lambda *_args: {"loss": 0.0})
    monkeypatch.setattr("grhpc.train.learner.Learner.all_finite", lambda learner: False)
    with pytest.raises(ConfigError, match="not finite"):
        sft_worker.main(run.root, Lifetime(job="first"))
    assert not run.model_dir.exists() and run.finished() is None


def test_a_run_of_fine_tuning_is_no_run_of_grpo(run: RunDir) -> None:
    assert run.kind == "sft" and not isinstance(run.settings(), Config)
    with pytest.raises(ConfigError, match="run of sft"):
        run.config()
