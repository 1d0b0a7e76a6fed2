"""What rank 0 alone does around each step of GRPO: decide, publish, record.

Does not know: the model. Invariant: as a Keeper's: only one Chief of a run can write.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from grhpc.config import Config
from grhpc.data.prepare import load_prompts
from grhpc.lifetime import Lifetime
from grhpc.records import Verdict
from grhpc.store.events import waited_s
from grhpc.store.ledger import StepEntry
from grhpc.store.recorded import archive_batches
from grhpc.store.rundir import RunDir
from grhpc.train.curriculum import Curriculum
from grhpc.train.flow import Flow
from grhpc.train.keeper import Keeper
from grhpc.train.summary import summarize

WAIT, STOP = "wait", "stop"
PATIENCE_S = 20.0  # between two words from rank 0 to the others: well under any collective's timeout


class Chief(Keeper):
    """Rank 0's hands: a Keeper's, and the flow of groups, the published weights."""

    def __init__(self, run: RunDir, config: Config, life: Lifetime) -> None:
        super().__init__(run, "train", life, config.train)
        self._config = config
        self._inherited_step = self._ledger.state.last_step  # later versions can only come from a superseded trainer
        prepared = Path(config.data.prepared)
        curriculum = Curriculum(load_prompts(prepared, "train"), config.run.seed)
        self._heldout = load_prompts(prepared, "heldout") if config.evaluate.heldout_every else []
        self._flow = Flow(run, config, self._ledger, self._events, life, curriculum)
        # How long earlier lives of this job waited for the step that is next; a person's `resume` is another job.
        self._next_step = self._inherited_step + 1
        self._waited_s = waited_s(event for event in self._events.past() if event.get("step") == self._next_step)
        self._events.emit("start", generation=self._ledger.generation, restart=life.restart)

    def recover(self, step: int) -> None:
        """Bring queue and ledger together again, then say that the trainer is ready."""
        self._flow.recover()
        self._events.emit("ready", step=step)
        for version in filter(self._is_heldout_due, self._run.weights.versions()):
            self._flow.request_heldout(version, self._heldout)  # a life may end between publishing and asking

    def decide(self, step: int, since_s: float, needed_s: float) -> StepEntry | str:
        """What every rank does next: train this entry, WAIT (ask again), or STOP; `needed_s` is a step and a save."""
        if not self.may_go_on(needed_s):
            return STOP
        entry = self._flow.next_step(step, PATIENCE_S)
        if entry is not None:
            return entry
        if not self.may_go_on(needed_s):
            return STOP
        before_s = self._waited_s if step == self._next_step else 0.0
        self._flow.check_patience(before_s + time.time() - since_s, step)
        self._events.emit("waiting", **{"for": self._flow.waiting_for()}, step=step, since_s=since_s)
        return WAIT

    def begin_publish(self, version: int) -> Path | None:
        """A staging folder for the weights of `version`; None where they are published or a later step replays them."""
        if version < self._ledger.state.last_step:
            return None
        newest = self._run.weights.newest()
        if newest is not None and newest.version == version <= self._inherited_step:
            return None
        self._ledger.check_alone()
        return self._run.weights.begin(self._ledger.generation, version)

    def commit_publish(self, version: int, files: dict[str, dict[str, Any]]) -> None:
        self._run.weights.commit(
            self._ledger.generation, version, base=self._config.policy.model, extra={"step": version}, written=files
        )
        protect = self._flow.heldout_versions() | self._run.awaiting_evaluation(self._config.evaluate.every)
        self._run.weights.prune(self._config.store.keep_weights, protect=protect)
        if self._is_heldout_due(version):
            self._flow.request_heldout(version, self._heldout)
        self._flow.admit(version + 1)

    def checkpointed(self, step: int, seconds: float) -> None:
        """Also archive the batches that the checkpoint covers."""
        super().checkpointed(step, seconds)
        covered = [entry for entry in self._ledger.state.steps.values() if entry.step <= step]
        for problem in archive_batches(self._run, covered, self._config.store.archive_every):
            self._events.emit("error", problem=problem)

    def stepped(self, entry: StepEntry, rows: Sequence[Verdict], figures: dict[str, Any]) -> None:
        """One line about the step that just ended."""
        dropped = dict(self._flow.dropped)
        self._flow.dropped.clear()
        self._events.emit(
            "step",
            step=entry.step,
            version=entry.version,
            **summarize(rows, entry.version),
            dropped=dropped,
            duplicates=self._flow.duplicates,
            **figures,
        )

    def close(self, step: int) -> None:
        """The run is finished, or this process stops and another goes on."""
        if step >= self._config.train.steps and self._has_heldout():
            self._flow.finish()
            self._events.emit("finish", step=step)
            self._run.finish({"step": step})
        self.stopped(step)

    def _has_heldout(self) -> bool:
        """Wait, at most `store.idle_s`, for the last held-out answers; False: drained, and the next life waits on."""
        since_s = time.time()
        self._flow.collect_heldout(0.0)
        while missing := sorted(self._flow.heldout_versions()):
            left_s = since_s + self._config.store.idle_s - time.time()
            if left_s <= 0:
                self._events.emit("heldout_missing", versions=missing)
                break
            if not self.may_go_on(0.0):
                return False
            what = f"held-out answers under weights {', '.join(f'v{version}' for version in missing)}"
            self._events.emit("waiting", **{"for": what}, since_s=since_s)
            self._flow.collect_heldout(min(PATIENCE_S, left_s))
        return True

    def _is_heldout_due(self, version: int) -> bool:
        every = self._config.evaluate.heldout_every
        return bool(every) and (version % every == 0 or version == self._config.train.steps)
