"""The state of a run's jobs: one sacct call for all of them, and one squeue call for what accounting does not know.

Consumes the run's submissions; produces one JobState a task, local jobs in the same form. Does not know: what roles
do. Invariant: two calls at most, however many jobs; no answer is `unknown`, never an end. A job of our own that squeue
answers for and does not list has ended; another person's may only be hidden from us (SLURM's PrivateData).
"""

import getpass
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from grhpc.cluster import states
from grhpc.cluster.local_task import read_signals
from grhpc.cluster.processes import is_here, is_live
from grhpc.cluster.submissions import Submission, read_submissions
from grhpc.store.rundir import RunDir

LAG_S = 120.0  # accounting may not know a job yet for so long after its submission
ANSWER_S = 15.0  # with its controller gone, SLURM's programs try again for a minute and more
RETURN_S = 1800.0  # a job that SLURM was to requeue and that is not back after so long is not coming back
HIDDEN = "HIDDEN"  # the state of another person's job that SLURM, which answers, does not list
_SACCT_FIELDS = ("JobID", "State", "ExitCode", "Submit", "Start", "End", "NodeList", "Reason")
_SQUEUE_FORMAT = "%i|%T||%V|%S|%e|%N|%r"


@dataclass(frozen=True)
class JobState:
    """One task. `state` is SLURM's own word, `kind` one of states.KINDS; times are `time.time()` seconds or None.

    `by` is who submitted it; `restarts` counts how often the same job id began anew. `exit_code` is SLURM's
    "code:signal", empty where unknown.
    """

    job_id: str
    role: str = ""
    executor: str = "slurm"
    state: str = "UNKNOWN"
    kind: str = states.UNKNOWN
    by: str = ""
    restarts: int = 0
    exit_code: str = ""
    node: str = ""
    reason: str = ""
    submitted_s: float = 0.0
    started_s: float | None = None
    ended_s: float | None = None

    @property
    def name(self) -> str:
        """The task's name in events and logs."""
        return self.job_id if self.executor == "slurm" else f"{self.executor}-{self.job_id}"

    @property
    def words(self) -> str:
        """Its state for people; where it failed by a signal, with that: `FAILED by SIGKILL`."""
        number = self.exit_code.partition(":")[2]
        if self.state != "FAILED" or not number.isdecimal() or int(number) == 0:
            return self.state
        known = {int(known): known.name for known in signal.Signals}
        return f"FAILED by {known.get(int(number), f'signal {number}')}"

    @property
    def live(self) -> bool:
        return self.kind in states.LIVE

    @property
    def running(self) -> bool:
        return self.kind == states.RUNNING

    @property
    def since_s(self) -> float:
        """Since when it has been in its state, as far as that is known."""
        if self.running:
            return self.started_s or self.submitted_s
        return self.submitted_s if self.live else self.ended_s or self.submitted_s


def tasks_of(run: RunDir, now_s: float | None = None) -> list[JobState]:
    """Every task that was ever submitted for the run, in the order of submission."""
    now_s = time.time() if now_s is None else now_s
    submissions = read_submissions(run.jobs_dir)
    answer = ask_slurm([s for s in submissions if s.executor == "slurm"], now_s)
    signals = read_signals(run.jobs_dir)
    found: list[JobState] = []
    for submission in submissions:
        if submission.executor == "local":
            found.append(_local_state(submission, signals))
            continue
        for job_id in submission.task_ids():
            state = answer.jobs.get(job_id) or _not_listed(job_id, submission, answer, now_s)
            found.append(replace(_judge_age(state, now_s), role=submission.role, by=submission.by))
    return found


@dataclass(frozen=True)
class Answer:
    """The jobs that are known, by task id, and who was asked and answered."""

    jobs: dict[str, JobState]
    sacct: bool = False
    squeue: bool = False


def ask_slurm(submissions: list[Submission], now_s: float) -> Answer:
    """Ask sacct; and squeue, where sacct does not answer or should know a job by now and does not."""
    if not submissions:
        return Answer({})
    since = time.strftime("%Y-%m-%d", time.localtime(min(s.submitted_s for s in submissions) - 86400))
    ids = ",".join(s.job_id for s in submissions)
    text = _output(["sacct", "-X", "-D", "-n", "--parsable2", "-S", since, "-j", ids, "-o", ",".join(_SACCT_FIELDS)])
    known = parse(text or "")
    due = {job_id for s in submissions if now_s - s.submitted_s > LAG_S for job_id in s.task_ids()}
    if text is not None and due <= known.keys():
        return Answer(known, sacct=True)
    users = ",".join(sorted({s.by for s in submissions}))
    listing = _output(["squeue", "-h", "-r", f"--users={users}", "--states=all", "-o", _SQUEUE_FORMAT])
    return Answer({**parse(listing or ""), **known}, sacct=text is not None, squeue=listing is not None)


def parse(text: str) -> dict[str, JobState]:
    """States by task id from lines of id|state|exit|submit|start|end|nodes|reason; an id's last line is its newest."""
    found: dict[str, JobState] = {}
    for line in text.splitlines():
        fields = line.strip().split("|")
        if len(fields) != len(_SACCT_FIELDS) or "." in fields[0]:
            continue
        ids, state, exit_code, submitted, started, ended, nodes, reason = fields
        for job_id in expand(ids):
            before = found.get(job_id)
            found[job_id] = JobState(
                job_id,
                state=states.word(state) or "UNKNOWN",
                kind=states.kind(state),
                restarts=before.restarts + 1 if before else 0,
                exit_code=exit_code,
                node="" if nodes.startswith("None") else nodes,
                reason="" if reason == "None" else reason,
                submitted_s=_seconds(submitted) or 0.0,
                started_s=_seconds(started),
                ended_s=_seconds(ended),
            )
    return found


def expand(ids: str) -> Iterator[str]:
    """ "7" -> 7; "7_1" -> 7_1; "7_[0-2,5%4]" (tasks that wait together) -> 7_0, 7_1, 7_2, 7_5."""
    base, bracket, inside = ids.partition("_[")
    if not bracket:
        yield ids
        return
    for part in inside.rstrip("]").partition("%")[0].split(","):
        numbers = re.fullmatch(r"(\d+)(?:-(\d+))?(?::(\d+))?", part.strip())
        if numbers:
            first, last = int(numbers[1]), int(numbers[2] or numbers[1])
            for index in range(first, last + 1, int(numbers[3] or 1)):
                yield f"{base}_{index}"


def _judge_age(state: JobState, now_s: float) -> JobState:
    late = state.kind == states.RETURNING and state.ended_s is not None and now_s - state.ended_s > RETURN_S
    return replace(state, kind=states.FAILED) if late else state


def _not_listed(job_id: str, submission: Submission, answer: Answer, now_s: float) -> JobState:
    state, kind = "UNKNOWN", states.UNKNOWN
    if answer.squeue and submission.by not in ("", getpass.getuser()):
        state = HIDDEN
    elif answer.squeue:
        state, kind = "ENDED", states.DONE
    elif answer.sacct and now_s - submission.submitted_s <= LAG_S:
        state, kind = "SUBMITTED", states.WAITING
    return JobState(job_id, state=state, kind=kind, submitted_s=submission.submitted_s)


def _local_state(submission: Submission, signals: Mapping[str, tuple[float, int]]) -> JobState:
    found = JobState(
        submission.job_id,
        submission.role,
        "local",
        node=submission.host,
        submitted_s=submission.submitted_s,
        started_s=submission.submitted_s,
    )
    if not is_here(submission):
        return found
    if is_live(submission):
        return replace(found, state="RUNNING", kind=states.RUNNING)
    ended_by = signals.get(f"local-{submission.job_id}-{submission.started}")
    if ended_by is None:
        return replace(found, state="ENDED", kind=states.DONE)
    return replace(found, state="FAILED", kind=states.FAILED, ended_s=ended_by[0], exit_code=f"0:{ended_by[1]}")


def missing_conf() -> str:
    """What SLURM_CONF names and is not there: SLURM's programs would look for it for a minute; else empty."""
    named = os.environ.get("SLURM_CONF", "")
    return named if named and not Path(named).is_file() else ""


def _output(words: list[str]) -> str | None:
    if missing_conf():
        return None
    env = {**os.environ, "SLURM_TIME_FORMAT": "%s", "SLURM_BITSTR_LEN": "0"}
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=ANSWER_S, env=env, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _seconds(text: str) -> float | None:
    return float(text) if text.isdigit() else None
