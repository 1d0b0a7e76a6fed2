"""The local executor: the same roles through submitit on this machine, without SLURM.

`submit` starts `python -m grhpc.cluster.local` in a session of its own, which hands the jobs to submitit, writes them
down and ends: Ctrl-C in the terminal that started a run ends no job of it. Every job is a submitit controller with its
tasks below it. GPUs, where asked for, are dealt out one job after the other.

Does not know: SLURM. Invariant: a job that was started is written down before the helper ends.
"""

import os
import shlex
import subprocess
import sys
from pathlib import Path

from grhpc.cluster.job import start_ticks
from grhpc.cluster.processes import is_live
from grhpc.cluster.role import run_role
from grhpc.cluster.sbatch import python_command, role_config, setup_lines
from grhpc.cluster.submissions import Submission, read_submissions, record
from grhpc.config import AnyConfig, RoleConfig
from grhpc.errors import ClusterError
from grhpc.store.rundir import RunDir

FOREVER_MIN = 60 * 24 * 365 * 10  # there is no queue to be fair to, so no time limit


def submit(run: RunDir, role: str, count: int) -> list[Submission]:
    """Start `count` jobs of the role. Raises ClusterError."""
    before = {s.job_id for s in read_submissions(run.jobs_dir)}
    log = run.log_dir(role) / "launch.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        words = [sys.executable, "-m", "grhpc.cluster.local", str(run.path), role, str(count)]
        code = subprocess.call(words, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
    if code:
        raise ClusterError(f"the local {role} jobs did not start (exit {code})", f"see {log}")
    return [s for s in read_submissions(run.jobs_dir) if s.job_id not in before]


def python_words(role: RoleConfig) -> str:
    """The interpreter of a task as submitit wants it: one shell word after another, the setup lines inside."""
    script = "\n".join([*setup_lines(role), f'exec {python_command(role)} "$@"'])
    return shlex.join(["bash", "-c", script, "role"])


def _submit_here(run: RunDir, config: AnyConfig, role: str, count: int) -> None:
    import submitit

    asked = role_config(config, role)
    ranks = asked.nodes * asked.tasks_per_node  # one machine: all ranks on it
    gpus_per_job = asked.gpus_per_node * asked.nodes
    executor = submitit.LocalExecutor(run.log_dir(role), python=python_words(asked))
    taken = {g for s in read_submissions(run.jobs_dir) if s.gpus and is_live(s) for g in s.gpus}
    for _ in range(count):
        gpus = [g for g in range(len(taken) + gpus_per_job) if g not in taken][:gpus_per_job]
        taken |= set(gpus)
        executor.update_parameters(
            tasks_per_node=ranks,
            timeout_min=FOREVER_MIN,
            gpus_per_node=len(gpus),
            visible_gpus=gpus,
            stderr_to_stdout=True,
        )
        job = executor.submit(run_role, role, str(run.path))
        started = start_ticks(int(job.job_id))
        record(run.jobs_dir, Submission("local", role, job.job_id, started=started, gpus=gpus))


def main(words: list[str]) -> int:
    """`RUN_DIR ROLE COUNT`, only ever called by `submit`."""
    run = RunDir.open(Path(words[0]))
    _submit_here(run, run.settings(), words[1], int(words[2]))
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)  # not through submitit's and Popen's destructors: the jobs stay
