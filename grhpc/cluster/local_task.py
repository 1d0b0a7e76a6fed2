"""Stands over one task of a local job, and writes down by which signal it ended, where one did: sacct's part.

    python -m grhpc.cluster.local_task JOBS_DIR WORD...

submitit's controller starts it in the task's place; it starts the task's words, passes signals on to it, and ends with
its exit code.
Does not know: roles, submitit. Invariant: it lives no longer than its controller, and the task no longer than it.
"""

import ctypes
import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from grhpc.cluster.job import current
from grhpc.store.atomic import list_names, write_bytes

_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_OF_SHELLS = 128  # a shell's exit code for a program that a signal ended is so much more than the signal's number
_SUFFIX = ".signal"
_PR_SET_PDEATHSIG = 1


def die_with_parent(controller: int) -> None:
    """On Linux: when the process that started this one is gone, so are we, and no orphaned engine keeps a core or a
    GPU."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == 1 and controller != 1:
        os._exit(1)


def read_signals(directory: Path) -> dict[str, tuple[float, int]]:
    """By Job.key: when the first task of that job was ended by a signal, and by which."""
    found: dict[str, tuple[float, int]] = {}
    for name in list_names(directory):
        if name.endswith(_SUFFIX):
            when, number = (directory / name).read_text().split()
            key = name.removesuffix(_SUFFIX).rpartition(".")[0]
            found[key] = min((float(when), int(number)), found.get(key, (float("inf"), 0)))
    return found


def main(words: list[str]) -> int:
    """`JOBS_DIR WORD...`; the exit code."""
    job = current()
    die_with_parent(int(job.id))
    task: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        del frame
        if task is None:
            early.append(number)
        else:
            task.send_signal(number)

    for passed_on in _PASSED_ON:
        signal.signal(passed_on, pass_on)
    # Before the role says so itself there are its set-up lines and its imports.
    task = subprocess.Popen(words[1:], preexec_fn=functools.partial(die_with_parent, os.getpid()))
    for number in early:
        task.send_signal(number)
    code = task.wait()
    ended_by = -code if code < 0 else code - _OF_SHELLS
    if ended_by in signal.valid_signals():  # 255 is how containers and shells fail
        path = Path(words[0]) / f"{job.key}.{job.rank}{_SUFFIX}"
        write_bytes(path, f"{time.time():.3f} {ended_by}\n".encode())
        return _OF_SHELLS + ended_by
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
