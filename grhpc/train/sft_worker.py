"""Fine-tuning as a run: rows -> step -> checkpoints, until the last step, then the model.

Consumes prepared examples; produces checkpoints, one event a step, and the model folder; waits for nobody. Every rank
runs this loop; rank 0 alone decides (class Chief) and tells the others.
Does not know: what is taught. Invariant: a step is trained only on the rows that the ledger names, so a resumed run
ends with the same bits; the model's folder appears whole or not at all.
"""

import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from grhpc.answer.judge import load_template
from grhpc.data.manifest import read_manifest
from grhpc.data.prepare import digest_of
from grhpc.engine.snapshot import model_folder
from grhpc.errors import ConfigError, DataError
from grhpc.lifetime import Lifetime
from grhpc.records import HELDOUT, TRAIN
from grhpc.sft_config import SftConfig
from grhpc.store.atomic import fsync_dir, list_names, storing, sync_file
from grhpc.store.rundir import RunDir
from grhpc.train.keeper import Keeper, Saver
from grhpc.train.packing import Row, RowStream, digest, pack
from grhpc.train.sft_data import load_examples
from grhpc.train.tuner import Tuner

TEMPLATE = "template.txt"  # beside the model: what its judge is to be asked with


def main(run_dir: Path, life: Lifetime) -> None:
    """Train the run at `run_dir` until its last step, a stop request, or the end of this process's life."""
    run = RunDir.open(run_dir)
    if run.finished():
        return
    config = run.settings()
    if not isinstance(config, SftConfig):
        raise ConfigError(
            f"{run.root.name} is a run of {run.kind}, not of fine-tuning", "start it with: submit.py start"
        )
    template = taught_template(config)
    model_dir = model_folder(config.model.model)
    tuner = Tuner(config, model_dir)
    try:
        Loop(run, config, tuner, life, model_dir, template).run()
    finally:
        tuner.close()


def taught_template(config: SftConfig) -> str:
    """The template that the examples were rendered with. Raises DataError where its file says something else now."""
    template, manifest = load_template(config.data.template), read_manifest(Path(config.data.prepared))
    if manifest is not None and digest_of(template) != manifest["settings"]["template"]:
        raise DataError(
            f"the template {config.data.template} is not the one that the examples were made with",
            "put the file back as it was, or prepare into another folder and begin another run",
        )
    return template


class Chief(Keeper):
    """Rank 0's hands: a Keeper's, and the record of rows, the events, the finished model."""

    def __init__(self, run: RunDir, config: SftConfig, life: Lifetime, template: str) -> None:
        super().__init__(run, "sft", life, config.train)
        self._config, self._template = config, template
        manifest = read_manifest(Path(config.data.prepared))
        self._data = "" if manifest is None else str(manifest["sha256"][TRAIN])
        self._events.emit("start", generation=self._ledger.generation, restart=life.restart)

    def ready(self, step: int) -> None:
        self._events.emit("ready", step=step)

    def may_train(self, step: int, rows: Sequence[Row], needed_s: float) -> bool:
        """Whether there is time for the step; if so its rows are in the ledger. Raises DataError where others are."""
        if not self.may_go_on(needed_s):
            return False
        name = digest(self._data, rows)
        if step > self._ledger.state.last_step:
            entry = {"kind": "step", "step": step, "version": step - 1, "batch": "", "sha256": name, "groups": []}
            self._ledger.append(entry)
        elif self._ledger.state.steps[step].sha256 != name:
            raise DataError(f"the rows of step {step} are not those it was trained on before", "put the data back")
        return True

    def stepped(self, step: int, figures: dict[str, Any]) -> None:
        self._events.emit("step", step=step, **figures)

    def measured(self, step: int, loss: float, examples: int) -> None:
        self._events.emit("heldout", step=step, loss=loss, examples=examples)

    def begin_model(self) -> Path | None:
        """An empty folder for the model; None where an earlier life made it."""
        self._ledger.check_alone()
        if self._run.model_dir.name in list_names(self._run.root):
            return None
        folder = self._run.model_dir.with_name(".model.tmp")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    def commit_model(self, folder: Path) -> None:
        """What all ranks wrote, durable, under its name at once."""
        self._ledger.check_alone()
        (folder / TEMPLATE).write_text(self._template, encoding="utf-8")
        for name in list_names(folder):
            sync_file(folder / name)
        fsync_dir(folder)
        with storing(self._run.model_dir):
            os.rename(folder, self._run.model_dir)
        fsync_dir(self._run.root)

    def close(self, step: int) -> None:
        """The run is finished, or this process stops and another goes on."""
        if step >= self._config.train.steps:
            self._ledger.append({"kind": "finish"})
            self._events.emit("finish", step=step)
            self._run.finish({"step": step, "model": str(self._run.model_dir)})
        self.stopped(step)


class Loop:
    """One trainer process; `chief` exists on rank 0 only."""

    def __init__(
        self, run: RunDir, config: SftConfig, tuner: Tuner, life: Lifetime, model_dir: Path, template: str
    ) -> None:
        self.config, self.tuner, self.model_dir = config, tuner, model_dir
        self.parallel = tuner.learner.parallel
        self.chief = Chief(run, config, life, template) if self.parallel.is_main else None
        self.saver = Saver(run, tuner.learner, self.chief)
        prepared, room = Path(config.data.prepared), config.data.max_tokens
        self.examples, self.heldout = (load_examples(prepared, split) for split in (TRAIN, HELDOUT))
        self.stream = RowStream(self.examples.lengths, room, config.run.seed)
        self.heldout_rows = pack(self.heldout.lengths, range(len(self.heldout)), room)
        self.step_s = 0.0  # the longest step so far, measuring included

    def run(self) -> None:
        train = self.config.train
        step = self.saver.load()
        if not step:
            self.measure(step)
        if self.chief:
            self.chief.ready(step)
        while step < train.steps:
            rows = self.stream.rows(step * train.rows_per_step, train.rows_per_step)
            if not self.may_train(step + 1, rows):
                break
            begin_s = time.monotonic()
            step += 1
            figures = self.tuner.step(self.examples, rows, step)
            if self.chief:
                self.chief.stepped(step, figures)
            if step == train.steps or (train.heldout_every and step % train.heldout_every == 0):
                self.measure(step)
            self.step_s = max(self.step_s, time.monotonic() - begin_s)
            if step == train.steps or step % train.checkpoint_every == 0:
                self.saver.save(step)
        if step > self.saver.saved_step:
            self.saver.save(step)
        if step == train.steps:
            self.write_model()
        if self.chief:
            self.chief.close(step)

    def may_train(self, step: int, rows: Sequence[Row]) -> bool:
        needed_s = self.saver.needs_s(self.step_s)
        told: bool = self.parallel.broadcast(self.chief.may_train(step, rows, needed_s) if self.chief else None)
        return told

    def measure(self, step: int) -> None:
        """The loss on the held-out examples."""
        if self.heldout_rows:
            loss = self.tuner.measure(self.heldout, self.heldout_rows)
            if self.chief:
                self.chief.measured(step, loss, len(self.heldout))

    def write_model(self) -> None:
        """The Hugging Face folder, with tokenizer and template; every rank writes its part."""
        if not self.tuner.learner.all_finite():
            raise ConfigError(
                "the trained weights are not finite, and no model was written",
                "begin a new run with a lower train.lr",
            )
        folder: Path | None = self.parallel.broadcast(self.chief.begin_model() if self.chief else None)
        if folder is None:
            return
        self.tuner.learner.write_weights(folder, self.model_dir)
        if self.chief:
            self.chief.commit_model(folder)
