"""How each role fares: its tasks by state, what came back, what crashed, what is gone and how to bring it back.

Does not know: steps, queues. Invariant: reads only; what SLURM does not know is not taken for an end.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from grhpc.cluster import control, states
from grhpc.cluster.sacct import JobState
from grhpc.cluster.sbatch import ONE_JOB
from grhpc.config import AnyConfig
from grhpc.report.alive import may_live
from grhpc.report.text import duration
from grhpc.store.atomic import list_names
from grhpc.store.rundir import RunDir

MOST_CRASHES = 10  # in a row; then the batch script lets a task end (cluster/sbatch.py, LISTEN)
SHOWN = 5
Event = dict[str, Any]
Seen = dict[str, Any]


def told_ends(jobs: Sequence[JobState], events: Sequence[Event]) -> list[JobState]:
    """The jobs; a local one that is gone and of which every task's last words are that it stopped has COMPLETED,
    whatever befell it on its way out."""
    last = {str(event.get("job", "")): event for event in events}
    well = {task for task, e in last.items() if e["event"] in ("stop", "finish") and e.get("reason") != "error"}
    well = {task.partition(".")[0] for task in well} - {task.partition(".")[0] for task in last.keys() - well}
    over = {j.name for j in jobs if j.executor == "local" and not may_live(j)} & well
    return [replace(j, state="COMPLETED", kind=states.DONE) if j.name in over else j for j in jobs]


def roles(run: RunDir, config: AnyConfig, jobs: Sequence[JobState], events: Sequence[Event], now_s: float) -> Seen:
    """By role: tasks by state, how many there should be, restarts, crashes in a row by task, those that ended badly."""
    told = {str(e.get("job")): int(e["restart"]) for e in events if e["event"] == "start" and e.get("restart")}
    crashes = _crashes(run)
    found = {}
    for role in config.roles:
        ours = [job for job in jobs if job.role == role]
        last = next((e for e in reversed(events) if e.get("role") == role), None)
        found[role] = {
            "states": dict(Counter(job.words for job in ours)),
            "heard": f"{last['event']} {duration(max(0.0, now_s - last['t']))} ago" if last else "never",
            "there": sum(map(may_live, ours)),
            "wanted": 1 if role in ONE_JOB else control.wanted_tasks(run, config, role),
            "restarts": sum(max(job.restarts, told.get(job.name, 0)) for job in ours),
            "crashes": {job.name: crashes[job.name] for job in ours if may_live(job) and job.name in crashes},
            "failed": [f"{job.name} {job.words}" for job in ours if _ended_badly(job)],
        }
    return found


def line(role: str, seen: Seen) -> str:
    """A role for people."""
    text = ", ".join(f"{num} {state}" for state, num in seen["states"].items()) or "no job"
    notes = [f"{seen['restarts']} {'restart' if seen['restarts'] == 1 else 'restarts'}"] if seen["restarts"] else []
    if seen["crashes"]:
        job, num = max(seen["crashes"].items(), key=lambda item: item[1])
        who = f"{job}: " if seen["there"] > 1 else ""
        notes.append(f"{who}{num} {'crash' if num == 1 else 'crashes'} in a row, {MOST_CRASHES} end it")
    return f"{role}: {text}{' (' + '; '.join(notes) + ')' if notes else ''}; last heard {seen['heard']}"


def gone(found: Seen, name: str) -> str:
    """What a person does about tasks that ended badly while the rest of the run goes on; empty where all are there."""
    for role, seen in found.items():
        if seen["failed"] and 0 < seen["there"] < seen["wanted"]:
            few = ", ".join(seen["failed"][-SHOWN:])
            back = f"python submit.py resume {name}"
            return f"{seen['there']} of {seen['wanted']} {role} tasks are there ({few}): bring the others back: {back}"
    return ""


def _ended_badly(job: JobState) -> bool:
    return job.kind == states.FAILED or (job.executor == "local" and job.state == "ENDED")


def _crashes(run: RunDir) -> dict[str, int]:
    """By task, the lines that its batch script wrote since it last ended in order."""
    names = [name for name in list_names(run.jobs_dir) if name.endswith(".crashes")]
    return {name.removesuffix(".crashes"): (run.jobs_dir / name).read_bytes().count(b"\n") for name in names}
