"""The loop's ends that a calm run never sees: an allocation that ends, weights that are no numbers."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from feeder import Feeder
from safetensors.torch import load_file, save_file
from small_run import GROUPS, SIZE, make_policy, make_prepared, make_run

from grhpc.cluster import role
from grhpc.cluster.role import CRASH, FINAL
from grhpc.errors import CorruptFile, GaveUp, StoreError, WaitTimeout
from grhpc.lifetime import Lifetime
from grhpc.store import weights
from grhpc.store.events import read_events
from grhpc.store.ledger import Ledger, read_ledger
from grhpc.store.rundir import RunDir
from grhpc.train import worker
from grhpc.train.step import Trainer

STEP_S = 1000.0


class SlowSteps:
    """Stands for the module `time`: every step that `trainer` takes lasts STEP_S longer by the monotonic clock."""

    def __init__(self, trainer: Trainer) -> None:
        self._late_s, self._step = 0.0, trainer.step
        trainer.step = self._slow_step  # type: ignore[method-assign]

    def _slow_step(self, *args: object) -> dict[str, float]:
        self._late_s += STEP_S
        return self._step(*args)  # type: ignore[arg-type]

    def monotonic(self) -> float:
        return time.monotonic() + self._late_s

    def time(self) -> float:
        return time.time()


@pytest.fixture
def run(base: Path, tmp_path: Path) -> RunDir:
    return make_run(base, tmp_path / "run")


@pytest.fixture
def trainer(run: RunDir) -> Iterator[Trainer]:
    trainer = Trainer(run.config(), Path(run.config().policy.model))
    yield trainer
    trainer.close()


def run_loop(run: RunDir, trainer: Trainer, life: Lifetime) -> None:
    """One life of the trainer in this process, fed."""
    feeder = Feeder(run, SIZE)
    feeder.start()
    try:
        worker.Loop(run, trainer, life).run()
    finally:
        feeder.close()


def test_a_step_that_would_not_fit_is_not_begun_and_what_is_done_is_saved(
    run: RunDir, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "time", SlowSteps(trainer))
    life = Lifetime(end_s=time.time() + 1.1 * STEP_S)  # one step fits; the next, with its margin, does not
    run_loop(run, trainer, life)
    ledger = read_ledger(run.ledger_dir, run_id=run.run_id)
    assert life.drain_reason == "the allocation ends" and run.finished() is None
    assert (ledger.last_step, ledger.checkpoints) == (1, [1])
    assert read_events(run.events_dir, "train")[-1]["reason"] == "the allocation ends"


def test_weights_are_not_published_without_every_ranks_file(
    run: RunDir, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rank 0's machine does not see what a rank on another one says it wrote."""
    write, unseen = trainer.write_weights, "model-00002-of-00002.safetensors"
    monkeypatch.setattr(trainer, "write_weights", lambda folder: {**write(folder), unseen: {"bytes": 1, "sha256": ""}})
    monkeypatch.setattr(weights, "_VISIBLE_S", 0.0)
    with pytest.raises(StoreError, match=f"lacks {unseen}"):
        run_loop(run, trainer, Lifetime())
    assert run.weights.newest() is None


def test_weights_that_are_not_finite_end_the_role_for_good_and_are_not_published(tmp_path: Path) -> None:
    model = make_policy(tmp_path / "policy")
    make_prepared(tmp_path / "prepared")
    tensors = load_file(model / "model.safetensors")
    tensors["model.norm.weight"][3] = torch.nan
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    run = make_run(tmp_path, tmp_path / "run", wait_s=1.0)
    done = train_role(run)
    assert done.returncode == FINAL, done.stderr
    assert "not finite" in done.stderr and "lower train.lr" in done.stderr
    assert run.weights.newest() is None and run.queue("prompts").counts()["ready"] == 0


def test_a_recorded_batch_that_is_damaged_ends_the_role_for_good_and_is_named(base: Path, tmp_path: Path) -> None:
    run = make_run(base, tmp_path / "run")
    ledger = Ledger.open_next(run.ledger_dir, run_id=run.run_id)
    ledger.append({"kind": "admit", "first": 0, "count": GROUPS, "version": 0})
    path, groups = run.batch_path(1, 1), list(range(GROUPS))
    path.write_bytes(b"not what was recorded")
    ledger.append({"kind": "step", "step": 1, "version": 0, "batch": path.name, "sha256": "0", "groups": groups})
    done = train_role(run)
    assert done.returncode == FINAL and str(path) in done.stderr


_ENDS = [
    (StoreError("no space left for x"), CRASH),
    (WaitTimeout("rank 1 waited"), CRASH),
    (CorruptFile("x"), FINAL),
    (GaveUp("no batch for step 5"), FINAL),
]


@pytest.mark.parametrize(("error", "code"), _ENDS)
def test_an_error_that_may_mend_itself_is_a_crash_which_is_tried_again(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, error: StoreError, code: int
) -> None:
    def fail(run_dir: Path, life: Lifetime) -> None:
        raise error

    monkeypatch.setattr(role, "_install_signals", lambda life: None)
    monkeypatch.setattr(role, "find_role", lambda name: fail)
    assert role.main(["verify", str(run.root)]) == code


def train_role(run: RunDir) -> subprocess.CompletedProcess[str]:
    """The trainer as a job starts it, outside SLURM."""
    ours = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "SUBMITIT_"))}
    command = [sys.executable, "-m", "grhpc.cluster.role", "train", str(run.root)]
    env = {**ours, "PYTHONPATH": str(Path(__file__).parents[2])}
    env.pop("WORLD_SIZE", None)
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=800)
