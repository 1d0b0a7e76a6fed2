"""What the command line's stop, scale and resume do to a run's jobs.

Does not know: how a job is submitted, how anything is printed. Invariant: only jobs written down for this run, or
marked with its run id, are touched; nothing is submitted, and nothing said to have ended, on a guess about a job of
which nothing is known; no lease is ended but that of a task that has ended; every verb may be repeated.
"""

import contextlib
import time
from collections import Counter

from grhpc.cluster import launch, processes, states
from grhpc.cluster.sacct import HIDDEN, JobState, tasks_of
from grhpc.cluster.sbatch import mark, role_config
from grhpc.cluster.submissions import Submission, read_submissions, read_target, record_target
from grhpc.config import AnyConfig
from grhpc.errors import ClusterError
from grhpc.store.claims import reclaim
from grhpc.store.rundir import QUEUES, RunDir

SCALABLE = ("rollout", "verify", "evaluate")
END_WAIT_S = 60.0  # SLURM kills what does not heed TERM after KillWait (30 s by default), and accounting lags
SHOWN = 5


def live_jobs(run: RunDir) -> list[JobState]:
    """The run's tasks that wait, run, or will be back. Raises ClusterError where that is not known of one of them."""
    return [task for task in _known_tasks(run) if task.live]


def _known_tasks(run: RunDir) -> list[JobState]:
    """Every task of the run; one without a live job has ended. Raises ClusterError where that is not known of one."""
    tasks = tasks_of(run)
    unknown = [task for task in tasks if task.kind == states.UNKNOWN]
    if not unknown:
        return [*tasks, *_by_comment(run)]
    (first, *_), name = unknown, run.name
    if first.executor == "local":
        raise ClusterError(
            f"whether {_named(unknown)} of {name} still runs cannot be seen from here: it was started on {first.node}",
            f"ask there; if that machine is no more, remove {run.jobs_dir}/*-{first.role}-{first.job_id}.json",
        )
    if hidden := [task for task in unknown if task.state == HIDDEN]:
        person = hidden[0].by
        raise ClusterError(
            f"SLURM does not show whether {_named(hidden)} of {name} still live: {person} submitted them, and others' "
            "jobs may be hidden here (PrivateData)",
            f"let {person} do it, or say what `squeue --user={person}` shows there; if none lives, remove "
            f"{run.jobs_dir}/*-{hidden[0].role}-{_base(hidden[0].job_id)}.json",
        )
    raise ClusterError(
        f"SLURM does not say whether {_named(unknown)} of {name} still live: no answer, or a state that is new to us",
        "try again when `squeue` answers",
    )


def stop(run: RunDir, now: bool = False, reason: str = "stopped by a person", wait_s: float = END_WAIT_S) -> list[str]:
    """Ask every role to finish what it holds, and cancel the jobs that wait; with `now` also those that run.

    Lines that say what was done; with `now`, what still lives after `wait_s`. Raises ClusterError.
    """
    name = run.name
    if not run.finished():
        run.request_stop(reason)
    elif not now:
        return [f"{name} is finished; its tasks end by themselves"]
    if now:
        return _end(run, wait_s)
    tasks, sure = tasks_of(run), False
    with contextlib.suppress(ClusterError):
        tasks += _by_comment(run)
        sure = all(job.kind != states.UNKNOWN for job in tasks)
    if sure and not any(job.live for job in tasks):
        return [f"nothing of {name} runs"]
    waiting = [job for job in tasks if job.kind == states.WAITING]
    launch.scancel(sorted({_base(job.job_id) for job in waiting if job.executor == "slurm"}), states=("PENDING",))
    holding = sum(job.live for job in tasks) - len(waiting)
    lines = [f"{name}: {holding} tasks finish what they hold, {len(waiting)} that waited are gone"]
    unknown = [job for job in tasks if job.kind == states.UNKNOWN]
    if unknown:
        lines.append(
            f"nothing is known of {_named(unknown)}: what runs of them obeys too, what waits ends when it begins"
        )
    return lines


def scale(run: RunDir, role: str, tasks: int) -> list[str]:
    """Bring the live tasks of `role` to `tasks`: submit more, or cancel the surplus. Lines that say what was done."""
    config = run.settings()
    able = [name for name in config.roles if name in SCALABLE]
    if role not in able:
        raise ClusterError(
            f"{role} of {run.name} cannot be scaled",
            f"these can: {', '.join(able) or 'none'}; a trainer's size is its layout",
        )
    if tasks < 0:
        raise ClusterError(f"{tasks} tasks cannot be", "give 0 or more")
    if run.finished():
        raise ClusterError(
            f"{run.name} is finished", "see its report, or begin another: start CONFIG --set run.name=..."
        )
    if run.stop_reason():
        raise ClusterError(f"{run.name} is stopped", f"python submit.py resume {run.name}")
    live = [job for job in live_jobs(run) if job.role == role]
    launch.require(config, {role: tasks - len(live)}, run.root)
    record_target(run.jobs_dir, role, tasks)
    if tasks > len(live):
        launch.submit(run, config, {role: tasks - len(live)}, {role: len(live)})
    # Those that wait go first, then the youngest.
    order = sorted(enumerate(live), key=lambda entry: (entry[1].kind != states.WAITING, -entry[0]))
    _cancel(run, [job for _, job in order[: max(0, len(live) - tasks)]])
    return [f"{role}: {len(live)} -> {tasks} tasks"]


def resume(run: RunDir) -> list[Submission]:
    """Take back a request to stop, put back what ended tasks held, and submit what the configuration, or `scale`, asks
    for and is not live.

    Raises ClusterError, and changes nothing, where local tasks are still obeying the request.
    """
    if run.finished():
        return []
    config = run.settings()
    launch.require(config, {})
    tasks = _known_tasks(run)
    jobs = [task for task in tasks if task.live]
    if run.stop_reason() and any(job.executor == "local" for job in jobs):  # on SLURM the trainer's refill sees to it
        raise ClusterError(
            f"{_named(jobs)} of {run.name} were asked to stop and are still ending",
            f"wait until `status {run.name}` shows none, or end them: stop {run.name} --now",
        )
    live = [job.role for job in jobs]
    missing = {role: wanted_tasks(run, config, role) - live.count(role) for role in config.roles}
    launch.require(config, missing, run.root)
    run.clear_stop()
    _put_back(run, config, tasks)
    return launch.submit(run, config, missing, Counter(live))


def _put_back(run: RunDir, config: AnyConfig, tasks: list[JobState]) -> None:
    """The shards, and questions to the judge, that ended tasks held: nobody needs to wait until their leases end."""
    live, holders = {task.name for task in tasks if task.live}, []
    for task in tasks:
        if task.role in SCALABLE and task.name not in live:
            asked = role_config(config, task.role)
            holders += [task.name, *(f"{task.name}.{rank}" for rank in range(asked.nodes * asked.tasks_per_node))]
    for queue in QUEUES[run.kind] if holders else ():
        run.queue(queue).reclaim(*holders)
    reclaim(run.decisions_dir, *holders)


def wanted_tasks(run: RunDir, config: AnyConfig, role: str) -> int:
    """As many as `scale` last said, or else the configuration."""
    target = read_target(run.jobs_dir, role)
    return role_config(config, role).tasks if target is None else target


def still_there(run: RunDir, wait_s: float) -> dict[str, str]:
    """The tasks, by name, that live after at most `wait_s`, each with its state. Raises ClusterError."""
    give_up_s = time.monotonic() + wait_s
    while True:
        there = {job.name: job.state for job in live_jobs(run)}
        if not there or time.monotonic() >= give_up_s:
            return there
        time.sleep(1)


def _end(run: RunDir, wait_s: float) -> list[str]:
    live = live_jobs(run)
    launch.scancel(sorted({_base(job.job_id) for job in live if job.executor == "slurm"}))
    _cancel(run, [job for job in live if job.executor == "local"])
    there = still_there(run, wait_s)
    if not there:
        return [f"ended {len(live)} tasks of {run.name}" if live else f"nothing of {run.name} runs"]
    few = ", ".join(f"{name} ({state})" for name, state in list(there.items())[:SHOWN])
    more = " ..." if len(there) > SHOWN else ""
    return [f"{run.name}: {len(live)} tasks were told to end; still there after {wait_s:.0f} s: {few}{more}"]


def _cancel(run: RunDir, jobs: list[JobState]) -> None:
    launch.scancel([job.job_id for job in jobs if job.executor == "slurm"])
    local_ids = {job.job_id for job in jobs if job.executor == "local"}
    processes.kill([s for s in read_submissions(run.jobs_dir) if s.executor == "local" and s.job_id in local_ids])


def _base(job_id: str) -> str:
    return job_id.partition("_")[0]


def _named(jobs: list[JobState]) -> str:
    """The first few of some jobs, for a sentence."""
    return ", ".join(job.name for job in jobs[:SHOWN]) + (f" and {len(jobs) - SHOWN} more" if jobs[SHOWN:] else "")


def _by_comment(run: RunDir) -> list[JobState]:
    """Jobs that bear the run's comment and are not written down: a batch script's before it begins, mostly.

    Raises ClusterError where SLURM does not answer.
    """
    if run.settings().cluster.executor != "slurm":
        return []
    listing = launch.own_jobs("%i|%T|%j|%k")
    written = {submission.job_id for submission in read_submissions(run.jobs_dir)}
    found = []
    for line in listing.splitlines():
        job_id, state, name, comment = (line.split("|", 3) + [""] * 4)[:4]
        if comment == mark(run.run_id) and _base(job_id) not in written:
            found.append(JobState(job_id, name.rpartition("-")[2], state=state, kind=states.kind(state)))
    return found
