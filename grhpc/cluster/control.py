"""What the command line's stop, scale and resume do to a run's jobs.

Does not know: how a job is submitted, how anything is printed. Invariant: only jobs written down for this run, or
marked with its run id, are touched; every verb may be repeated.
"""

import subprocess

from grhpc.cluster import launch, processes, states
from grhpc.cluster.role import ROLES
from grhpc.cluster.sacct import JobState, tasks_of
from grhpc.cluster.sbatch import mark, role_config
from grhpc.cluster.submissions import Submission, read_submissions, read_target, record_target
from grhpc.config import Config
from grhpc.errors import ClusterError
from grhpc.store.rundir import RunDir

SCALABLE = tuple(role for role in ROLES if role != "train")


def live_jobs(run: RunDir) -> list[JobState]:
    """The run's tasks that wait, run, or will be back."""
    return [job for job in tasks_of(run) if job.live]


def stop(run: RunDir, now: bool = False, reason: str = "stopped by a person") -> list[str]:
    """Ask every role to finish what it holds, and cancel the jobs that wait; with `now` also those that run.

    Lines that say what was done.
    """
    if run.finished():
        return [f"{run.path.name} is finished; nothing runs on"]
    run.request_stop(reason)
    live = live_jobs(run)
    if now:
        _end(run, live)
        return [f"ended {len(live)} tasks of {run.path.name}"]
    waiting = [job for job in live if job.kind == states.WAITING]
    launch.scancel(sorted({_base(job.job_id) for job in waiting if job.executor == "slurm"}), states=("PENDING",))
    return [
        f"{run.path.name}: {len(live) - len(waiting)} tasks finish what they hold, {len(waiting)} that waited are gone"
    ]


def scale(run: RunDir, role: str, tasks: int) -> list[str]:
    """Bring the live tasks of `role` to `tasks`: submit more, or cancel the surplus. Lines that say what was done."""
    if role not in SCALABLE:
        raise ClusterError(
            f"{role} cannot be scaled", f"these can: {', '.join(SCALABLE)}; the trainer's size is its layout"
        )
    if tasks < 0:
        raise ClusterError(f"{tasks} tasks cannot be", "give 0 or more")
    if run.finished() or run.stop_reason():
        raise ClusterError(f"{run.path.name} is stopped or finished", f"python submit.py resume {run.path.name}")
    live = [job for job in live_jobs(run) if job.role == role]
    record_target(run.jobs_dir, role, tasks)
    if tasks > len(live):
        launch.submit(run, run.config(), {role: tasks - len(live)})
    # Those that wait go first, then the youngest.
    order = sorted(enumerate(live), key=lambda entry: (entry[1].kind != states.WAITING, -entry[0]))
    _cancel(run, [job for _, job in order[: max(0, len(live) - tasks)]])
    return [f"{role}: {len(live)} -> {tasks} tasks"]


def resume(run: RunDir) -> list[Submission]:
    """Take back a request to stop, and submit what the configuration, or `scale`, asks for and is not live."""
    if run.finished():
        return []
    config = run.config()
    launch.require(config)
    run.clear_stop()
    live = [job.role for job in live_jobs(run)]
    return launch.submit(run, config, {role: wanted_tasks(run, config, role) - live.count(role) for role in ROLES})


def wanted_tasks(run: RunDir, config: Config, role: str) -> int:
    """As many as `scale` last said, or else the configuration."""
    target = read_target(run.jobs_dir, role)
    return role_config(config, role).tasks if target is None else target


def _end(run: RunDir, live: list[JobState]) -> None:
    slurm = {_base(job.job_id) for job in live if job.executor == "slurm"} | _unrecorded(run)
    launch.scancel(sorted(slurm))
    _cancel(run, [job for job in live if job.executor == "local"])


def _cancel(run: RunDir, jobs: list[JobState]) -> None:
    launch.scancel([job.job_id for job in jobs if job.executor == "slurm"])
    local_ids = {job.job_id for job in jobs if job.executor == "local"}
    processes.kill([s for s in read_submissions(run.jobs_dir) if s.executor == "local" and s.job_id in local_ids])


def _base(job_id: str) -> str:
    return job_id.partition("_")[0]


def _unrecorded(run: RunDir) -> set[str]:
    """Jobs of this run by their comment: somebody died between sbatch and writing the job down, or used a template."""
    try:
        done = subprocess.run(["squeue", "-h", "--me", "-o", "%F|%k"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return set()
    pairs = (line.partition("|")[::2] for line in done.stdout.splitlines())
    return {job for job, comment in pairs if comment == mark(run.run_id)}
