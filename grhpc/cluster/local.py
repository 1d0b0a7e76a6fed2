"""The local executor: the same roles through submitit on this machine, without SLURM.

`submit` starts `python -m grhpc.cluster.local` in a session of its own, which hands the jobs to submitit, writes them
down and ends: Ctrl-C in the terminal that started a run ends no job of it. Every job is a submitit controller with its
tasks below it, each under a process that writes down which signal ended it (`local_task`).

GPUs, where asked for, are dealt out one job after the other and one start after the other, from those of
CUDA_VISIBLE_DEVICES or else all of the machine, without what live jobs of the runs in the same folder (runs/) hold.
Runs elsewhere, other programs and other people are not seen: with them, share the GPUs by CUDA_VISIBLE_DEVICES.

Does not know: SLURM. Invariant: a job that was started is written down before the helper ends.
"""

import contextlib
import fcntl
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from grhpc.cluster.job import GPUS_BEFORE, NO_LIST, start_ticks
from grhpc.cluster.plan import gpus_a_job
from grhpc.cluster.processes import is_live, kill
from grhpc.cluster.role import run_role
from grhpc.cluster.sbatch import place_lines, python_command, role_config, setup_lines
from grhpc.cluster.submissions import Submission, read_submissions, record
from grhpc.config import AnyConfig, RoleConfig
from grhpc.errors import ClusterError, CorruptFile
from grhpc.store.rundir import RunDir

DEALING_S = 120.0  # for one start to deal out its GPUs
FOREVER_MIN = 60 * 24 * 365 * 10  # there is no queue to be fair to, so no time limit


def submit(run: RunDir, role: str, count: int) -> list[Submission]:
    """Start `count` jobs of the role. Raises ClusterError, and then leaves no job behind."""
    before = {s.job_id for s in read_submissions(run.jobs_dir)}
    log = run.log_dir(role) / "launch.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        words = [sys.executable, "-m", "grhpc.cluster.local", str(run.path), role, str(count)]
        code = subprocess.call(words, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
    begun = [s for s in read_submissions(run.jobs_dir) if s.job_id not in before]
    if code:
        kill(begun)
        raise ClusterError(f"the local {role} jobs did not start (exit {code})", f"see {log}")
    return begun


def require_gpus(config: AnyConfig, tasks: Mapping[str, int], root: Path) -> None:
    """Refuse more jobs than there are free GPUs for; `root` is the run's folder. Raises ClusterError."""
    needed = sum(gpus_a_job(role_config(config, role)) * count for role, count in tasks.items())
    free = _free_gpus(root) if needed else []
    if needed > len(free):
        raise ClusterError(
            f"GPUs asked for: {needed}; free here: {len(free)}{f' ({names})' if (names := ', '.join(free)) else ''}",
            "ask for fewer tasks or GPUs in cluster.*, name more in CUDA_VISIBLE_DEVICES, or stop another run",
        )


def _free_gpus(root: Path) -> list[str]:
    """What no live job of this run, its siblings or their evaluations has."""
    root = root.absolute()
    runs_dir = root.parents[3] if root.parts[-3:-2] == ("eval",) else root.parent
    taken = set()
    for jobs_dir in [*runs_dir.glob("*/jobs"), *runs_dir.glob("*/eval/*/*/jobs")]:
        with contextlib.suppress(CorruptFile):  # that run's own verbs say it
            taken |= {str(gpu) for s in read_submissions(jobs_dir) if s.gpus and is_live(s) for gpu in s.gpus}
    return [gpu for gpu in _visible_gpus() if gpu not in taken]


def _visible_gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES names, numbers or UUIDs; where it is not set, every GPU that the driver lists."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [gpu.strip() for gpu in named.split(",") if gpu.strip()]
    words = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.split() if done.returncode == 0 else []


def python_words(role: RoleConfig, run_dir: str, gpus: Sequence[str] = ()) -> str:
    """The interpreter of a task as submitit wants it: one shell word after another, the setup lines inside."""
    before = os.environ.get(GPUS_BEFORE, os.environ.get("CUDA_VISIBLE_DEVICES", NO_LIST))
    seen = f"export CUDA_VISIBLE_DEVICES={shlex.quote(','.join(gpus))}"  # submitit knows numbers only, and no UUIDs
    lines = [f"export {GPUS_BEFORE}={shlex.quote(before)}", seen, *setup_lines(role), *place_lines(run_dir)]
    script = "\n".join([*lines, f'exec {python_command(role)} "$@"'])
    return shlex.join(["bash", "-c", script, "role"])


def _submit_here(run: RunDir, config: AnyConfig, role: str, count: int) -> None:
    import submitit

    asked = role_config(config, role)
    ranks = asked.nodes * asked.tasks_per_node  # one machine: all ranks on it
    over = shlex.join([sys.executable, "-m", "grhpc.cluster.local_task", str(run.jobs_dir)])
    each = gpus_a_job(asked)
    with _dealing() if each else contextlib.nullcontext():
        require_gpus(config, {role: count}, run.root)
        free = _free_gpus(run.root) if each else []
        for i in range(count):
            gpus = free[i * each : (i + 1) * each]
            words = f"{over} {python_words(asked, str(run.path), gpus)}"
            executor = submitit.LocalExecutor(run.log_dir(role), python=words)
            executor.update_parameters(tasks_per_node=ranks, timeout_min=FOREVER_MIN, stderr_to_stdout=True)
            job = executor.submit(run_role, role, str(run.path))
            started = start_ticks(int(job.job_id))
            submission = Submission("local", role, job.job_id, started=started, gpus=gpus)
            try:
                record(run.jobs_dir, submission)
            except BaseException:
                kill([submission])
                raise


@contextlib.contextmanager
def _dealing() -> Iterator[None]:
    """One at a time on this machine: two starts at once would be dealt the same GPUs."""
    path, until_s = Path(tempfile.gettempdir()) / f"grhpc-gpus-{os.getuid()}.lock", time.monotonic() + DEALING_S
    with path.open("a") as lock:
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            if time.monotonic() > until_s:
                raise ClusterError(f"another start has been dealing out GPUs for {DEALING_S:.0f} s", f"end it: {path}")
            time.sleep(0.1)
        yield


def main(words: list[str]) -> int:
    """`RUN_DIR ROLE COUNT`, only ever called by `submit`."""
    run = RunDir.open(Path(words[0]))
    _submit_here(run, run.settings(), words[1], int(words[2]))
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)  # not through submitit's and Popen's destructors: the jobs stay
