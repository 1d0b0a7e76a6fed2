"""The local executor's jobs as processes of this machine: do they live, and end them.

Does not know: submitit, roles. Invariant: a process is only ever signalled if its pid and its start time are the
recorded ones.
"""

import contextlib
import os
import time

import psutil

from grhpc.cluster.job import start_ticks
from grhpc.cluster.submissions import Submission, this_machine

KILL_WAIT_S = 10.0


def is_here(submission: Submission) -> bool:
    """Whether the job runs, if it runs at all, on this machine, whatever its name was then."""
    return submission.host == os.uname().nodename or bool(submission.machine) and submission.machine == this_machine()


def is_live(submission: Submission) -> bool:
    """Whether the job's controller still runs on this machine."""
    return _controller(submission) is not None


def kill(submissions: list[Submission], wait_s: float = KILL_WAIT_S) -> None:
    """TERM to the jobs' tasks, and after `wait_s` KILL to what is left, as SLURM does. All of it has ended on return,
    but for what the kernel cannot end within another `wait_s` (a process in the midst of a read from a dead disk)."""
    controllers = [controller for controller in map(_controller, submissions) if controller is not None]
    trees = _trees(controllers)
    for controller in controllers:
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended by itself just now, and the others still live
            controller.terminate()  # it passes that on to its tasks
    _wait(trees, wait_s)
    trees |= _trees(controllers)  # what a controller began while it was told to end
    for process in trees:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    _wait(trees, wait_s)


def _controller(submission: Submission) -> psutil.Process | None:
    """None where it does not run, or not here."""
    pid = int(submission.job_id)
    if not is_here(submission) or not submission.started or start_ticks(pid) != submission.started:
        return None
    try:
        process = psutil.Process(pid)
    except psutil.NoSuchProcess:
        return None
    return None if _ended(process) else process


def _trees(controllers: list[psutil.Process]) -> set[psutil.Process]:
    trees = set(controllers)
    for controller in controllers:
        with contextlib.suppress(psutil.NoSuchProcess):
            trees |= set(controller.children(recursive=True))
    return trees


def _wait(processes: set[psutil.Process], wait_s: float) -> None:
    give_up_s = time.monotonic() + wait_s
    while time.monotonic() < give_up_s and not all(map(_ended, processes)):
        time.sleep(0.05)


def _ended(process: psutil.Process) -> bool:
    """Gone, or a zombie: in a container nobody may be there to reap it."""
    try:
        return not process.is_running() or bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
