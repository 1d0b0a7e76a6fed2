"""Follow a run as it goes: new events as they come, the held-out answers behind them, and who is still alive.

Does not know: how it is shown. Invariant: every whole event line is seen once, in each file's order; reads only.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path

from grhpc.cluster import states
from grhpc.cluster.sacct import JobState, tasks_of
from grhpc.config import Config
from grhpc.eval_config import EvalConfig
from grhpc.report.alive import may_live
from grhpc.report.evaluating import STAGES
from grhpc.report.history import ORACLES, Event, Judged, judged, read_heldout, seconds_by_role
from grhpc.report.roles import told_ends
from grhpc.store.atomic import list_names
from grhpc.store.events import parse_lines
from grhpc.store.questions import Extent
from grhpc.store.rundir import RunDir

JOBS_EVERY_S = {"local": 3.0, "slurm": 15.0}  # a login node is shared: one call to SLURM a quarter of a minute
GONE_S = 10.0  # a role without a live job for this long is gone; a requeue passes through such a gap


@dataclass
class Following:
    """What was seen so far. `poll` brings it up to date."""

    run: RunDir
    steps: dict[int, Event] = field(default_factory=dict)
    heldout: dict[int, Judged] = field(default_factory=dict)
    newest: dict[tuple[str, str], Event] = field(default_factory=dict)  # (role, job) -> its last event
    ready: set[tuple[str, str]] = field(default_factory=set)
    errors: list[Event] = field(default_factory=list)
    jobs: list[JobState] = field(default_factory=list)
    died: dict[str, JobState] = field(default_factory=dict)  # in the order in which that was seen
    began_s: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        config = self.run.settings()
        self.total_steps = 0 if isinstance(config, EvalConfig) else config.train.steps
        self.roles = config.roles
        self._extent = Extent.of(self.run.about) if isinstance(config, EvalConfig) else None
        self._shards: dict[str, set[str]] = {stage: set() for stage in STAGES}
        self._oracle = ORACLES.get(config.evaluate.oracle) if isinstance(config, Config) else None
        self._jobs_every_s = JOBS_EVERY_S[config.cluster.executor]
        self.patience_s = config.store.wait_s
        self.loading_s: dict[tuple[str, str], float] = {}  # (role, job) -> from its newest start to its being ready
        self._started: dict[tuple[str, str], float] = {}
        self._offsets: dict[Path, int] = {}
        self._spent: list[Event] = []
        self._jobs_seen_s = 0.0
        self._gone_since: dict[str, float] = {}

    def poll(self) -> list[Event]:
        """Take in what is new and return the new events, oldest first."""
        fresh = [event for name in list_names(self.run.events_dir) for event in self._read(self.run.events_dir / name)]
        fresh.sort(key=lambda event: float(event["t"]))
        for event in fresh:
            self._take_in(event)
        if time.monotonic() - self._jobs_seen_s >= self._jobs_every_s or not self._jobs_seen_s:
            self.jobs = told_ends(tasks_of(self.run), list(self.newest.values()))
            self.died |= {job.name: job for job in self.jobs if job.kind == states.FAILED and job.state != "CANCELLED"}
            self._jobs_seen_s = time.monotonic()
            self._note_gone()
        return fresh

    @property
    def last_step(self) -> int:
        return max(self.steps, default=0)

    def seconds(self) -> dict[str, dict[str, float]]:
        return seconds_by_role(self._spent)

    def progress(self) -> str:
        """How much of all is done, in a few words."""
        if self._extent is None:
            return f"step {self.last_step} of {self.total_steps}"
        total = sum(1 for _ in self._extent.shards())
        parts = [f"{len(self._shards[stage])} {word}" for stage, word in STAGES.items()]
        return f"{', '.join(parts)} of {total} shards"

    def idle_roles(self) -> list[str]:
        """Roles that have had no live job for a while."""
        return self._without_job(GONE_S)

    def awaited_roles(self) -> list[str]:
        """Roles that never had a job: nobody submitted one, or a batch script of theirs is still in SLURM's queue."""
        return [role for role in self.roles if role in self._gone_since and role not in {job.role for job in self.jobs}]

    def gone_roles(self) -> list[str]:
        """Roles without a live job for a while; for `patience_s` where they are awaited."""
        awaited, given_up = self.awaited_roles(), self._without_job(self.patience_s)
        return [role for role in self.idle_roles() if role not in awaited or role in given_up]

    def any_live(self) -> bool:
        return any(may_live(job) for job in self.jobs)

    def doing(self, role: str) -> str:
        """What a role does now, in words."""
        jobs = [job for job in self.jobs if job.role == role]
        if jobs and not any(may_live(job) for job in jobs):
            return f"ended ({jobs[-1].words})"
        if jobs and not any(job.kind in (states.RUNNING, states.UNKNOWN) for job in jobs):
            return f"in SLURM's queue ({jobs[-1].reason or jobs[-1].state})"
        heard = {key: event for key, event in self.newest.items() if key[0] == role}
        if not heard:
            return "not submitted yet" if role in self.awaited_roles() else "starting"
        (_, job), event = max(heard.items(), key=lambda item: float(item[1]["t"]))
        if not any(key in self.ready for key in heard):
            return "loading its model"
        num_live = sum(map(may_live, jobs)) or len(heard)
        return f"{_describe(event)} ({job})" if role == "train" or num_live == 1 else f"{num_live} tasks"

    def _take_in(self, event: Event) -> None:
        key = (str(event.get("role", "")), str(event.get("job", "")))
        self.newest[key] = event
        kind = event["event"]
        if kind == "start":
            self.ready.discard(key)
            self._started[key] = float(event["t"])
        elif kind == "step":
            self.steps[event["step"]] = event
            self.ready.add(key)
        elif kind == "heldout" and "version" in event:
            self.heldout[event["version"]] = judged(read_heldout(self.run, event["version"]), self._oracle)
        elif kind == "error":
            self.errors.append(event)
        if kind == "ready" and key in self._started:
            self.loading_s[key] = float(event["t"]) - self._started[key]
        if kind == "shard" and event.get("stage") in self._shards:
            self._shards[event["stage"]].add(str(event.get("shard")))
        if kind in ("ready", "shard"):
            self.ready.add(key)
        if kind in ("step", "shard"):
            self._spent.append(event)

    def _without_job(self, seconds: float) -> list[str]:
        return [role for role, since in self._gone_since.items() if time.monotonic() - since >= seconds]

    def _note_gone(self) -> None:
        for role in self.roles:
            if not any(may_live(job) for job in self.jobs if job.role == role):
                self._gone_since.setdefault(role, time.monotonic())
            else:
                self._gone_since.pop(role, None)

    def _read(self, path: Path) -> list[Event]:
        """New whole lines of one file; what follows the last newline is left for the next time."""
        if path.suffix != ".jsonl":
            return []
        with path.open("rb") as file:
            file.seek(self._offsets.get(path, 0))
            whole = file.read().rpartition(b"\n")[0]
        if not whole:
            return []
        self._offsets[path] = self._offsets.get(path, 0) + len(whole) + 1
        return parse_lines(whole)


def _describe(event: Event) -> str:
    match event["event"]:
        case "waiting":
            return f"waits for {event.get('for', '?')}"
        case "shard":
            weights = f", weights {event['weight_version']}" if event.get("weight_version") is not None else ""
            return f"shard {event.get('shard', '')} done{weights}"
        case "step":
            return f"step {event['step']} done"
        case kind:
            return str(kind)
