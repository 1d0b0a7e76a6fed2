"""What every trainer's loop keeps: checkpoints that the ledger names, and the end of this process's life in sight.

Keeper is rank 0's part, Saver every rank's. Used by GRPO's loop (worker.py) and fine-tuning's (sft_worker.py).
Does not know: what a step does. Invariant: only one Keeper of a run can write: a newer one fences the older by the
ledger's generation, and an older one that lives on is told so (Superseded) at its next line; a checkpoint that the
ledger does not name is loaded by nobody.
"""

import os
import shutil
import time
from typing import Any

from grhpc.config import TrainConfig
from grhpc.lifetime import Lifetime
from grhpc.sft_config import SftTrainConfig
from grhpc.store.atomic import list_names, storing
from grhpc.store.events import read_events
from grhpc.store.ledger import Ledger
from grhpc.store.rundir import RunDir
from grhpc.train.checkpoint import load_checkpoint, save_checkpoint, verify_checkpoint
from grhpc.train.learner import Learner

STEP_MARGIN = 1.2  # a step is begun when 1.2 times the longest one so far, and a save, fit into the allocation
_RECENT = 20  # steps and saves of earlier lives that tell how long the next will take
_TAIL_BYTES = 1 << 18


class Keeper:
    """Rank 0's hands around checkpoints: the ledger, the events, the folders."""

    def __init__(self, run: RunDir, role: str, life: Lifetime, settings: TrainConfig | SftTrainConfig) -> None:
        self._run, self._life = run, life
        self._margin_s, self._num_kept = settings.checkpoint_margin_s, settings.checkpoint_keep
        # With half its time left a life begins a step in any case: what fits into none would be put off for ever.
        self.expected_s = min(_needed_s(read_events(run.events_dir, role, _TAIL_BYTES)), life.remaining_s() / 2)
        self._events = run.events(role, life.job)
        self._ledger = Ledger.open_next(run.ledger_dir, run_id=run.run_id)

    def choose_checkpoint(self) -> int:
        """The step of the newest checkpoint that the ledger names and that verifies; 0 if there is none."""
        present = set(list_names(self._run.checkpoints_dir))
        for step in sorted(set(self._ledger.state.checkpoints), reverse=True):
            folder = self._run.checkpoint_dir(step)
            if folder.name not in present:
                continue
            problem = verify_checkpoint(folder)
            if not problem:
                return step
            kept = self._run.set_aside(folder, problem)
            self._events.emit("error", problem=f"checkpoint {folder.name} is corrupt ({problem}); moved to {kept}")
        return 0

    def resumed(self, step: int) -> None:
        last = self._ledger.state.last_step
        self._events.emit("resume", step=step, generation=self._ledger.generation, replayed=max(0, last - step))

    def clear_checkpoint(self, step: int) -> None:
        """Remove what an unfinished save of this very step left; the ledger does not name it."""
        self._ledger.check_alone()
        folder = self._run.checkpoint_dir(step)
        if folder.name in list_names(self._run.checkpoints_dir):
            shutil.rmtree(folder)

    def checkpointed(self, step: int, seconds: float) -> None:
        """Record the checkpoint; remove all others, unfinished ones too, but the newest `train.checkpoint_keep`."""
        self._ledger.append({"kind": "checkpoint", "step": step})
        self._events.emit("checkpoint", step=step, seconds=seconds)
        folder = self._run.checkpoints_dir
        with storing(folder):
            present = os.listdir(folder)  # hidden names too: what a save that died left
        self._ledger.check_alone()  # what was there before this look is nobody's but ours
        named = [self._run.checkpoint_dir(s).name for s in sorted(set(self._ledger.state.checkpoints))]
        kept = [name for name in named if name in present][-self._num_kept :]
        for name in set(present) - set(kept):
            shutil.rmtree(folder / name, ignore_errors=True)  # what is refused now goes the next time

    def may_go_on(self, needed_s: float) -> bool:
        """Whether `needed_s` seconds of work fit before the end, and nobody asked for a stop."""
        reason = self._run.stop_reason()
        if reason:
            self._life.drain(f"stop requested: {reason}")
        if self._life.remaining_s() <= needed_s + self._margin_s:
            self._life.drain("the allocation ends")
        return not self._life.draining

    def stopped(self, step: int) -> None:
        reason = "finished" if self._run.finished() else self._life.drain_reason or self._run.stop_reason() or ""
        self._events.emit("stop", step=step, reason=reason)


class Saver:
    """Every rank's part; all ranks call the same methods in the same order. `keeper` exists on rank 0 only."""

    def __init__(self, run: RunDir, learner: Learner, keeper: Keeper | None) -> None:
        self._run, self._learner, self._keeper = run, learner, keeper
        self.saved_step = -1
        self.save_s = 0.0

    def load(self) -> int:
        """Load the newest checkpoint that the ledger knows and that verifies. Returns its step, 0 for none."""
        keeper = self._keeper
        step: int = self._learner.parallel.broadcast(keeper.choose_checkpoint() if keeper else None)
        if step:
            load_checkpoint(self._learner, self._run.checkpoint_dir(step))
        self.saved_step = step
        if keeper:
            keeper.resumed(step)
        return step

    def save(self, step: int) -> None:
        """Save the full state, then let the ledger know."""
        begin_s = time.monotonic()
        if self._keeper:
            self._keeper.clear_checkpoint(step)
        self._learner.parallel.barrier()
        save_checkpoint(self._learner, self._run.checkpoint_dir(step), {"step": step})
        self.saved_step = step
        self.save_s = time.monotonic() - begin_s
        if self._keeper:
            self._keeper.checkpointed(step, self.save_s)

    def needs_s(self, step_s: float) -> float:
        """The seconds that must be left for another step, given this life's longest so far, and a save."""
        return max(STEP_MARGIN * step_s + self.save_s, self._keeper.expected_s if self._keeper else 0.0)


def _needed_s(past: list[dict[str, Any]]) -> float:
    """What a step and a save took at most of late, by the events of earlier lives."""
    steps = [(e.get("train_s") or 0.0) + (e.get("publish_s") or 0.0) for e in past if e["event"] == "step"]
    saves = [e.get("seconds") or 0.0 for e in past if e["event"] == "checkpoint"]
    return float(STEP_MARGIN * max(steps[-_RECENT:], default=0.0) + max(saves[-_RECENT:], default=0.0))
