"""The trainer's side of the queues: prompts admitted, verdicts collected, every group given exactly one fate.

Runs on rank 0 alone. Consumes verdict shards and failed shards; produces prompt shards, recorded batches and ledger
lines; waits for verdicts, which the rollout and verify tasks unblock.
Does not know: models, gradients. Invariant: the ledger line comes before its effect (a prompt shard put, a verdict
shard deleted), so that a crash between the two is mended by doing the effect again.
"""

import time
from collections import Counter
from collections.abc import Iterable, Sequence

from grhpc.config import Config
from grhpc.errors import GaveUp
from grhpc.grpo.batch import drop_reason
from grhpc.lifetime import Lifetime
from grhpc.records import HELDOUT, GroupPrompt, Prompt, Trained, Verdict
from grhpc.store.events import EventLog
from grhpc.store.groups import groups_of, heldout_name, heldout_version, is_heldout, train_name
from grhpc.store.ledger import Ledger, StepEntry
from grhpc.store.polling import Backoff
from grhpc.store.queue import Lease
from grhpc.store.rundir import RunDir
from grhpc.store.shard import write_shard
from grhpc.train.curriculum import Curriculum, heldout_groups

FAILED_SCAN_S = 2.0
HOLDER = "train"  # every incarnation alike: only the trainer consumes verdicts, and the ledger fences its older selves


class Flow:
    """Keeps at most `config.max_in_flight` groups admitted and without a fate, and packs batches from what returns."""

    def __init__(
        self, run: RunDir, config: Config, ledger: Ledger, events: EventLog, life: Lifetime, curriculum: Curriculum
    ) -> None:
        self._run, self._config, self._life = run, config, life
        self._ledger, self._events = ledger, events
        self._curriculum = curriculum
        self._prompts, self._rollouts, self._verdicts = (run.queue(q) for q in ("prompts", "rollouts", "verdicts"))
        self._held: dict[int, list[Verdict]] = {}
        self._leases: dict[str, tuple[Lease[Verdict], set[int]]] = {}
        self._pending_heldout: set[int] = set()
        self._due_heldout: dict[int, Sequence[Prompt]] = {}  # asked for when none is pending
        self._failed_scan_s = 0.0
        self.dropped: Counter[str] = Counter()
        self.duplicates = 0

    @property
    def generation(self) -> int:
        return self._ledger.generation

    def recover(self) -> None:
        """After a restart: take back what an earlier incarnation held, and put again what is admitted but nowhere.

        Under the version that it was admitted at: the checkpoint resumed from may be older, and rollouts of that age
        too stale for the step that is to train them.
        """
        self._verdicts.reclaim(HOLDER)
        present: set[int] = set()
        in_queues: set[str] = set()
        for queue in (self._prompts, self._rollouts, self._verdicts):
            for names in queue.names().values():
                in_queues |= names
        for name in in_queues:
            present.update(groups_of(name))
        self._pending_heldout |= {heldout_version(name) for name in in_queues if is_heldout(name)}
        lost = self._ledger.state.open_groups() - present
        for admit in self._ledger.state.admits if lost else []:
            self._put(sorted(lost.intersection(range(admit.first, admit.first + admit.count))), admit.version)

    def next_step(self, step: int, patience_s: float) -> StepEntry | None:
        """The recorded batch of `step`: from the ledger on a replay, else packed as soon as enough groups are fit.

        None when `patience_s` seconds passed first, or the process should stop.
        """
        deadline = time.monotonic() + patience_s
        backoff = Backoff(self._config.store.poll_min_s, self._config.store.poll_max_s)
        while step not in self._ledger.state.steps:
            self.admit(step)
            if self.collect():
                backoff.reset()
            self._drop_unfit(version=step - 1)
            if len(self._held) >= self._config.grpo.groups_per_step:
                self._record(step)
            elif self._is_to_end() or time.monotonic() >= deadline:
                return None
            else:
                backoff.wait(limit_s=deadline - time.monotonic())
        return self._ledger.state.steps[step]

    def admit(self, step: int) -> None:
        """Admit prompts for `step` and later, up to the bound and to what the remaining steps can use."""
        state, per_step = self._ledger.state, self._config.grpo.groups_per_step
        needed = (self._config.train.steps - step + 1) * per_step
        num_open = state.next_group - len(state.fates)
        room = min(self._config.max_in_flight, needed) - num_open
        shard = self._config.rollout.groups_per_shard
        # Whole shards only, except where the step would otherwise starve: few files are worth a little patience.
        count = room - room % shard if num_open + room - room % shard >= min(per_step, needed) else room
        if count <= 0:
            return
        first, version = state.next_group, step - 1
        self._ledger.append({"kind": "admit", "first": first, "count": count, "version": version})
        self._put(range(first, first + count), version)

    def request_heldout(self, version: int, prompts: Sequence[Prompt]) -> None:
        """Ask the roles to answer held-out prompts greedily under weights `version`, unless that was done.

        One version after the other: of two at a time, different verify tasks would ask the judge the same questions.
        """
        asked = prompts[: self._config.evaluate.heldout_prompts]
        if asked and version not in self._pending_heldout and version not in self._run.heldout_versions():
            self._due_heldout[version] = asked
            self._ask_next_heldout()

    def heldout_versions(self) -> set[int]:
        """Weight versions that a held-out evaluation still needs."""
        return self._pending_heldout.union(self._due_heldout)

    def collect(self) -> int:
        """Take in every verdict shard that is ready and every failed shard. Returns how many shards came in."""
        num_shards = 0
        while (lease := self._verdicts.claim(HOLDER)) is not None:
            num_shards += 1
            if lease.rows and lease.rows[0].kind == HELDOUT:
                self._keep_heldout(lease)
            else:
                self._take_in(lease)
        if time.monotonic() - self._failed_scan_s > FAILED_SCAN_S:
            self._failed_scan_s = time.monotonic()
            self._settle_failed()
        self._ask_next_heldout()
        return num_shards

    def collect_heldout(self, patience_s: float) -> None:
        """Take in shards until no held-out answers are missing, for at most `patience_s` seconds or until a drain or a
        request to stop."""
        deadline = time.monotonic() + patience_s
        backoff = Backoff(self._config.store.poll_min_s, self._config.store.poll_max_s)
        self.collect()
        while self.heldout_versions() and not self._is_to_end() and time.monotonic() < deadline:
            backoff.wait(limit_s=deadline - time.monotonic())
            self.collect()

    def finish(self) -> None:
        """The last step is done: give what is left over its fate."""
        self._drop(dict.fromkeys(self._ledger.state.open_groups(), "run_ended"))
        self._ledger.append({"kind": "finish"})

    def check_patience(self, waited_s: float, step: int) -> None:
        """Raise GaveUp when the wait for step `step` has lasted too long, and say which role nobody plays."""
        if waited_s > self._config.store.wait_s:
            counts = {"rollout": self._prompts.counts(), "verify": self._rollouts.counts()}
            idle = [role for role, count in counts.items() if count["ready"] and not count["leased"]]
            raise GaveUp(
                f"no batch for step {step} after {waited_s:.0f} s: {len(self._held)} of "
                f"{self._config.grpo.groups_per_step} groups are judged"
                + "".join(f"; shards wait for a {role} task and none works" for role in idle),
                "see `python submit.py status RUN` for the rollout and verify tasks, then `resume RUN`",
            )

    def waiting_for(self) -> str:
        """What a wait is for, in words."""
        return f"{self._config.grpo.groups_per_step - len(self._held)} more judged groups"

    def _is_to_end(self) -> bool:
        """The other roles obey a request to stop at once, so what is missing then will not come."""
        return self._life.draining or self._run.stop_reason() is not None

    def _put(self, groups: Iterable[int], version: int) -> None:
        for first, count in consecutive(groups, self._config.rollout.groups_per_shard):
            rows: list[GroupPrompt] = self._curriculum.groups(first, count, version)
            self._prompts.put(train_name(first, count), rows)

    def _take_in(self, lease: Lease[Verdict]) -> None:
        fates, groups = self._ledger.state.fates, {row.group for row in lease.rows}
        fresh = {g for g in groups if g not in fates and g not in self._held}
        if lease.name not in self._leases:
            self.duplicates += len(groups - fresh)
        for row in lease.rows:
            if row.group in fresh:
                self._held.setdefault(row.group, []).append(row)
        if fresh:
            lease.hold()
            self._leases[lease.name] = (lease, fresh)
        else:
            lease.done()

    def _ask_next_heldout(self) -> None:
        if self._due_heldout and not self._pending_heldout:
            version = min(self._due_heldout)
            asked = self._due_heldout.pop(version)
            self._prompts.put(heldout_name(version, len(asked)), heldout_groups(asked, version))
            self._pending_heldout.add(version)

    def _keep_heldout(self, lease: Lease[Verdict]) -> None:
        version = lease.rows[0].weight_version
        path = self._run.heldout_path(version)
        write_shard(path, lease.rows, run_id=self._run.run_id)
        accepted = sum(row.decision == "yes" for row in lease.rows)
        rate = accepted / len(lease.rows)
        self._events.emit("heldout", version=version, prompts=len(lease.rows), accept_rate=rate, path=path.name)
        self._pending_heldout.discard(lease.rows[0].admitted_version)
        lease.done()

    def _settle_failed(self) -> None:
        lost = {}
        for queue in (self._prompts, self._rollouts, self._verdicts):
            for shard in queue.failed():
                if is_heldout(shard.name):
                    self._pending_heldout.discard(heldout_version(shard.name))
                lost.update(dict.fromkeys(groups_of(shard.name), "failed"))
        open_groups = self._ledger.state.open_groups() - set(self._held) if lost else set()
        self._drop({g: reason for g, reason in lost.items() if g in open_groups})

    def _drop_unfit(self, version: int) -> None:
        size, settings = self._config.rollout.group_size, self._config.grpo
        reasons = {g: drop_reason(rows, version, size, settings) for g, rows in self._held.items()}
        self._drop({g: reason for g, reason in reasons.items() if reason})

    def _drop(self, reasons: dict[int, str]) -> None:
        if not reasons:
            return
        self._ledger.append({"kind": "drop", "groups": {str(g): r for g, r in sorted(reasons.items())}})
        self.dropped.update(reasons.values())
        for group in reasons:
            self._held.pop(group, None)
        self._release_settled()

    def _record(self, step: int) -> None:
        groups = sorted(self._held)[: self._config.grpo.groups_per_step]
        rows = [
            Trained(**vars(row), step=step)
            for group in groups
            for row in sorted(self._held[group], key=lambda row: row.sample)
        ]
        path = self._run.batch_path(step, self.generation)
        digest = write_shard(path, rows, run_id=self._run.run_id)
        self._ledger.append(
            {
                "kind": "step",
                "step": step,
                "version": step - 1,
                "batch": path.name,
                "sha256": digest,
                "groups": groups,
            }
        )
        for group in groups:
            del self._held[group]
        self._release_settled()

    def _release_settled(self) -> None:
        fates = self._ledger.state.fates
        for name, (lease, groups) in list(self._leases.items()):
            if all(group in fates for group in groups):
                lease.done()
                del self._leases[name]


def consecutive(groups: Iterable[int], longest: int) -> Iterable[tuple[int, int]]:
    """(first, count) runs of consecutive numbers, each at most `longest` long and none across a multiple of it."""
    first, count = -1, 0
    for group in groups:
        if count and group == first + count and count < longest and group % longest:
            count += 1
            continue
        if count:
            yield first, count
        first, count = group, 1
    if count:
        yield first, count
