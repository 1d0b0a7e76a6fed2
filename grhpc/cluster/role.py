"""What runs inside a job: one role, told who it is and how long it may live.

    python -m grhpc.cluster.role ROLE RUN_DIR

The same call stands in slurm/*.sbatch and, through submitit, in what `launch` submits. The role is found by its dotted
name in ROLES, the one arrow of the house that imports cannot show.

The exit code tells the batch script what to do: 0 the task is over; AGAIN it wants to come back (it drained because its
allocation ends or was preempted); FINAL a person must act first; anything else a crash, worth another try.

Does not know: what a role does. Invariant: nothing heavy is imported at module level, because child processes that
Megatron and vLLM spawn import the main module again.
"""

import contextlib
import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from grhpc.cluster.job import LOCAL, SLURM, Job, all_gpus, ask_end_s, current, without_allocation
from grhpc.cluster.local_task import die_with_parent
from grhpc.cluster.rendezvous import meet
from grhpc.cluster.sbatch import ONE_JOB, role_config
from grhpc.cluster.submissions import Submission, read_submissions, record
from grhpc.errors import (
    ClusterError,
    ConfigError,
    CorruptFile,
    DataError,
    ForeignFile,
    GaveUp,
    GrhpcError,
    OtherVersion,
    Superseded,
)
from grhpc.lifetime import Lifetime
from grhpc.store.atomic import list_names
from grhpc.store.code import is_former, is_linked, refuse_other
from grhpc.store.rundir import RunDir

ROLES = {
    "train": "grhpc.train.worker:main",
    "rollout": "grhpc.rollout.worker:main",
    "verify": "grhpc.verify.worker:main",
    "sft": "grhpc.train.sft_worker:main",
    "evaluate": "grhpc.evaluate.worker:main",
}
CRASH, FINAL, AGAIN = 1, 2, 75  # 75 is EX_TEMPFAIL, and what many sites list in slurm.conf's RequeueExit
_HOPELESS = (ConfigError, DataError, CorruptFile, ForeignFile, OtherVersion, Superseded, ClusterError, GaveUp)
ONLINE = "grhpc.evaluate.online"  # a program, as the roles are
LET_END_S = 120.0
_VISIBLE_S, _LOOK_S = 90.0, 1.0  # how long a link that was replaced may look as it was on another machine
_SETTING = " (--set section.key=value changes a setting)"


def run_role(role: str, run_dir: str) -> None:
    """Run one role to its end in this process; SystemExit with the code above unless all is well."""
    job = current()
    if job.kind == LOCAL:
        die_with_parent(int(job.id))
    run = RunDir.open(Path(run_dir))
    if job.kind == SLURM and job.rank == 0:
        _write_down(role, run, job)
    life = Lifetime(job=job.name, restart=job.restart, end_s=job.end_s, after_crash=_crashed_before(run, job))
    _install_signals(life)
    code = _run(role, run, job, life)
    if code:
        raise SystemExit(code)


def find_role(role: str) -> Callable[[Path, Lifetime], None]:
    """The role's main function. Raises ClusterError for a name that is not in the table."""
    if role not in ROLES:
        raise ClusterError(f"no such role: {role!r}", f"choose one of: {', '.join(ROLES)}")
    module, _, function = ROLES[role].partition(":")
    found: Callable[[Path, Lifetime], None] = getattr(importlib.import_module(module), function)
    return found


def _write_down(role: str, run: RunDir, job: Job) -> None:
    """A job that a batch script started is known to `status`, `scale` and `resume` from now on."""
    base = job.id.partition("_")[0]
    if base not in {submission.job_id for submission in read_submissions(run.jobs_dir)}:
        tasks = int(os.environ.get("SLURM_ARRAY_TASK_MAX", "-1")) + 1
        record(run.jobs_dir, Submission("slurm", role, base, tasks))


def _crashed_before(run: RunDir, job: Job) -> bool:
    """Whether the batch script says so of the job's last life; of one that SLURM ended it says nothing."""
    path = run.jobs_dir / f"{job.id}.crashes"
    return path.name in list_names(path.parent) and str(job.restart - 1) in path.read_text().split()


def _run(role: str, run: RunDir, job: Job, life: Lifetime) -> int:
    try:
        if run.finished():
            _let_end(_helpers(role, run, job))  # an earlier life may have been killed before they had done their work
            return 0
        if run.stop_reason():
            return 0
        if job.kind == SLURM and is_former(run) and _will_see_code(run, life):
            return AGAIN
        refuse_other(run)
        helpers = _helpers(role, run, job)
        _set_place(role, run, job, life)
        find_role(role)(run.path, life)
        if run.finished():
            _let_end(helpers)
    except Exception as error:  # the process's outermost frame: whatever went wrong is said once, here
        name = life.job if job.rank == 0 else f"{life.job}-rank{job.rank}"
        problem = error.problem if isinstance(error, GrhpcError) else f"{type(error).__name__}: {error}"
        run.events(role, name).emit("error", problem=problem, restart=job.restart)
        if isinstance(error, _HOPELESS):
            if job.kind == SLURM and not isinstance(error, Superseded):
                (run.jobs_dir / f"{job.key}.final").touch()  # srun's code is the highest: that of siblings killed
            then = "" if isinstance(error, Superseded) else f"\n  then: python submit.py resume {run.root}{_SETTING}"
            print(f"error: {error.problem}\n  do: {error.remedy}{then}", file=sys.stderr, flush=True)
            return FINAL
        raise
    wants_back = life.draining and job.kind == SLURM and not run.finished() and not run.stop_reason()
    return AGAIN if wants_back else 0


def _will_see_code(run: RunDir, life: Lifetime) -> bool:
    """Wait until this machine sees the run's newest code, for the job's next life to run. False: it never does."""
    print("this task began with a former copy of the run's code: waiting to see the present one", flush=True)
    give_up_s = time.monotonic() + _VISIBLE_S
    while not (life.draining or is_linked(RunDir.open(run.root))):
        if time.monotonic() > give_up_s:
            return False
        time.sleep(_LOOK_S)
    return True


def _set_place(role: str, run: RunDir, job: Job, life: Lifetime) -> None:
    """Tell a trainer's rank where its siblings are, and the tasks of another role which part of the node is theirs."""
    # Before torch is imported: it would take every core of the machine, and so would each of the tasks beside it.
    asked = role_config(run.settings(), role)
    os.environ.setdefault("OMP_NUM_THREADS", str(asked.cpus_per_task))
    if role not in ONE_JOB:
        life.warning_s = asked.signal_s
        life.end_s = life.end_s if life.end_s is not None else ask_end_s(job)
        if job.world_size > 1:
            life.job = f"{life.job}.{job.rank}"
            _take_share_of_devices(job)
        return
    meeting = meet(run.rendezvous_dir, job)
    life.end_s = meeting.end_s
    os.environ.update(
        RANK=str(job.rank),
        WORLD_SIZE=str(job.world_size),
        LOCAL_RANK=str(job.local_rank),
        LOCAL_WORLD_SIZE=str(job.local_size),
        MASTER_ADDR=meeting.host,
        MASTER_PORT=str(meeting.port),
    )


def _helpers(role: str, run: RunDir, job: Job) -> list[subprocess.Popen[bytes]]:
    """What runs beside the trainer's first rank: who brings back the other roles' tasks that ended for want of work
    while this job waited in SLURM's queue, and who starts evaluations. Those that must end before it does."""
    if role != "train" or job.rank != 0:
        return []
    config = run.config()
    env = {k: v for k, v in without_allocation(os.environ).items() if k not in config.cluster.train.env}
    env["PYTHONPATH"] = os.environ.get("PYTHONPATH", "")  # where this code was found, whatever else the role asks for
    python = [sys.executable, "-m"]
    if job.kind == SLURM:
        subprocess.Popen([*python, "grhpc.cluster.refill", str(run.path), str(os.getpid())], env=env)
    if not config.evaluate.every or run.online_path.name not in list_names(run.online_path.parent):
        return []
    words = [*python, ONLINE, str(run.path), f"{job.name}-{os.getpid()}", str(os.getpid())]
    return [subprocess.Popen(words, env=all_gpus(env))]


def _let_end(helpers: list[subprocess.Popen[bytes]]) -> None:
    """What still has to be started of a finished run: SLURM ends the job, helpers too, with its last task."""
    for helper in helpers:
        with contextlib.suppress(subprocess.TimeoutExpired):
            helper.wait(timeout=LET_END_S)


def _take_share_of_devices(job: Job) -> None:
    """Engines that share a node each see their own GPUs, in equal shares, unless SLURM has dealt them out."""
    if "SLURM_GPUS_PER_TASK" in os.environ:
        return
    devices = [d for d in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if d]
    share = len(devices) // job.local_size
    if share:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(devices[job.local_rank * share : (job.local_rank + 1) * share])


def _install_signals(life: Lifetime) -> None:
    """USR2 is SLURM's warning (NCCL catches USR1), TERM comes with preemption and scancel: both ask for a drain.

    Installed over submitit's own handlers, which would pickle and requeue behind our back. SLURM signals every process
    of the step: USR2 is blocked here, which children inherit, so that none dies of it, and taken by a thread, so that a
    long call into C does not delay it.
    """

    def drain(number: int, frame: FrameType | None) -> None:
        life.drain(f"signal {signal.Signals(number).name}")

    def wait_for_warning() -> None:
        drain(signal.sigwait({signal.SIGUSR2}), None)

    for number in (signal.SIGUSR2, signal.SIGTERM):  # USR2 too: threads older than the mask may still get it
        signal.signal(number, drain)
    signal.signal(signal.SIGCONT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    threading.Thread(target=wait_for_warning, name="warning", daemon=True).start()


def main(words: list[str]) -> int:
    """`ROLE RUN_DIR`; the exit code."""
    if len(words) != 2:
        print(f"usage: python -m grhpc.cluster.role {{{','.join(ROLES)}}} RUN_DIR", file=sys.stderr)
        return FINAL
    begun = False
    try:
        RunDir.open(Path(words[1]))
        begun = True
        run_role(words[0], words[1])
    except GrhpcError as error:
        print(f"error: {error.problem}\n  {error.remedy}", file=sys.stderr)
        return CRASH if begun and not isinstance(error, _HOPELESS) else FINAL
    except SystemExit as done:
        return int(done.code or 0)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
