"""The trainer: batch -> step -> weights, until the last step.

Consumes recorded batches (train/flow.py makes them from verdicts); produces weights, checkpoints and one event a step;
waits for verdicts, which the rollout and verify tasks unblock. Every rank runs this loop; rank 0 alone decides (class
Chief) and tells the others.
Does not know: how rollouts are sampled or judged. Invariant: a step is trained only from the batch file that the ledger
names, so live training and replay after a restart are one code path and give the same bits.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grhpc.engine.snapshot import model_folder
from grhpc.errors import ConfigError
from grhpc.grpo.batch import build_batch
from grhpc.lifetime import Lifetime
from grhpc.store.ledger import StepEntry
from grhpc.store.recorded import read_batch
from grhpc.store.rundir import RunDir
from grhpc.train.chief import STOP, WAIT, Chief
from grhpc.train.keeper import Saver
from grhpc.train.step import Trainer


def main(run_dir: Path, life: Lifetime) -> None:
    """Train the run at `run_dir` until its last step, a stop request, or the end of this process's life."""
    run = RunDir.open(run_dir)
    if run.finished():
        return
    config = run.config()
    trainer = Trainer(config, model_folder(config.policy.model))
    try:
        Loop(run, trainer, life).run()
    finally:
        trainer.close()


@dataclass
class Clock:
    """Seconds since the last call of `lap`."""

    since_s: float

    def lap(self) -> float:
        now_s = time.monotonic()
        passed_s, self.since_s = now_s - self.since_s, now_s
        return passed_s


class Loop:
    """One trainer process; `chief` exists on rank 0 only."""

    def __init__(self, run: RunDir, trainer: Trainer, life: Lifetime) -> None:
        self.store, self.config, self.trainer = run, run.config(), trainer
        self.chief = Chief(run, self.config, life) if trainer.is_main else None
        self.saver = Saver(run, trainer.learner, self.chief)
        self.step_s = 0.0  # the longest step so far, publishing included

    def run(self) -> None:
        step = self.resume()
        while step < self.config.train.steps:
            clock = Clock(time.monotonic())
            entry = self.next_entry(step + 1)
            if entry is None:
                break
            times = {"wait_s": clock.lap()}
            rows = read_batch(self.store, entry, on_wait=lambda what: print(f"waiting for {what}", flush=True))
            batch = build_batch(rows, current_version=step)
            metrics = self.trainer.step(batch, entry.step)
            step = entry.step
            times["train_s"] = clock.lap()
            self.publish(step)
            times["publish_s"] = clock.lap()
            self.step_s = max(self.step_s, times["train_s"] + times["publish_s"])
            if step % self.config.train.checkpoint_every == 0 or step == self.config.train.steps:
                self.saver.save(step)
            times["checkpoint_s"] = clock.lap()
            if self.chief:
                self.chief.stepped(entry, rows, {**metrics, **times})
        if step > self.saver.saved_step:
            self.saver.save(step)
        if self.chief:
            self.chief.close(step)

    def resume(self) -> int:
        """Go back to the newest checkpoint, and publish its weights. Returns its step, 0 for none."""
        step = self.saver.load()
        self.publish(step)
        if self.chief:
            self.chief.recover(step)
        return step

    def next_entry(self, step: int) -> StepEntry | None:
        """The recorded batch of `step` as rank 0 finds it; None when it is time to stop."""
        since_s = time.time()
        while True:
            decision: Any = self.trainer.broadcast(
                self.chief.decide(step, since_s, self.saver.needs_s(self.step_s)) if self.chief else None
            )
            if decision == STOP:
                return None
            if decision != WAIT:
                entry: StepEntry = decision
                return entry

    def publish(self, version: int) -> None:
        """Publish the weights of `version` for the rollout tasks, unless a replay or an earlier life already did."""
        folder: Path | None = self.trainer.broadcast(self.chief.begin_publish(version) if self.chief else None)
        if folder is None:
            return
        if not self.trainer.all_finite():
            raise ConfigError(  # a replay would end in the same bits: no retry can help
                f"the weights of step {version} are not finite and were not published",
                "begin a new run with a lower train.lr, from the last weights in the run's weights/ folder",
            )
        files = self.trainer.write_weights(folder)
        if self.chief:
            self.chief.commit_publish(version, files)
