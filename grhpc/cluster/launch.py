"""Submit a run's roles through submitit: the trainer as one multi-task job, rollout and verify as job arrays.

Consumes a run directory; produces jobs and their records. Does not know: what the roles do, the state of jobs.
Invariant: what is submitted is written down at once, and if one role is refused, those submitted with it are cancelled.
"""

import contextlib
import importlib.util
import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from grhpc.cluster import local, processes
from grhpc.cluster.job import without_allocation
from grhpc.cluster.role import run_role
from grhpc.cluster.sacct import missing_conf
from grhpc.cluster.sbatch import ONE_JOB, job_name, parameters, python_command, role_config
from grhpc.cluster.submissions import Submission, record
from grhpc.config import AnyConfig
from grhpc.errors import ClusterError
from grhpc.store.atomic import as_store_error
from grhpc.store.rundir import RunDir

T = TypeVar("T")
ARE_YOU_THERE = "are you on a login node? is SLURM_CONF right? try `squeue`; `doctor` checks it"
_SILENT = "Unable to contact|configuration source|Connection refused"  # what sbatch says where no SLURM answers
DEFAULT_MAX_ARRAY = 1001  # SLURM's own default


def require(config: AnyConfig, tasks: Mapping[str, int] | None = None, root: Path | None = None) -> None:
    """Refuse, before anything is made, what cannot be launched from this machine. Raises ClusterError.

    `tasks` is how many of each role (default: the configuration's), `root` the run's folder if it is there already.
    """
    is_first = tasks is None
    if tasks is None:
        tasks = {role: role_config(config, role).tasks for role in config.roles}
    if importlib.util.find_spec("submitit") is None:
        raise ClusterError("submitit is not installed", "pip install submitit, or start without it: start --no-launch")
    if config.cluster.executor != "slurm":
        local.require_gpus(config, _counts(tasks), root or config.run_dir)
        return
    for program in ("sbatch", "srun", "scancel"):
        if shutil.which(program) is None:
            raise ClusterError(
                f"no {program} on PATH: this machine cannot submit to SLURM",
                "run it on a login node, or set cluster.executor to local (`make cluster-up` makes a SLURM here)",
            )
    if conf := missing_conf():
        raise ClusterError(unreachable(f"SLURM_CONF names {conf}, which is not there"), ARE_YOU_THERE)
    if is_first:  # of what is made while SLURM does not answer, nobody could say whether it was submitted
        own_jobs("%i")


def unreachable(why: str) -> str:
    """One sentence for every way in which SLURM may not answer."""
    return f"SLURM is not reachable from this shell: {why}"


def own_jobs(form: str) -> str:
    """squeue's lines about this person's jobs. Raises ClusterError where SLURM does not answer."""
    if conf := missing_conf():
        raise ClusterError(f"SLURM_CONF names {conf}, which is not there", "mend it, or unset SLURM_CONF")
    words = ["squeue", "-h", "-r", "--me", "-o", form]
    try:
        return subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip()
        raise ClusterError(f"SLURM does not answer: {said}", "try again where, and when, `squeue` answers") from None


def start(run: RunDir, config: AnyConfig, roles: Iterable[str] = ()) -> list[Submission]:
    """Submit the roles, or all, in the sizes of the configuration. Raises ClusterError, and leaves no job behind."""
    return submit(run, config, {role: role_config(config, role).tasks for role in roles or config.roles})


def submit(
    run: RunDir, config: AnyConfig, tasks: dict[str, int], live: Mapping[str, int] | None = None
) -> list[Submission]:
    """Submit so many tasks of each role (the trainer: one job), beside those of it that live.

    Raises ClusterError, and then leaves no job behind.
    """
    require(config, tasks, run.root)
    done: list[Submission] = []
    try:
        # The trainer last: when it begins it looks for tasks that are missing, and all must be written down by then.
        for role, count in sorted(_counts(tasks).items(), key=lambda item: item[0] == "train"):
            if count and config.cluster.executor == "local":
                done += local.submit(run, role, count)
            elif count:
                _submit_slurm(run, config, role, count, (live or {}).get(role, 0), done)
    except BaseException:
        processes.kill([s for s in done if s.executor == "local"])
        scancel([s.job_id for s in done if s.executor == "slurm"])
        raise
    return done


def _counts(tasks: Mapping[str, int]) -> dict[str, int]:
    return {role: max(0, min(count, 1) if role in ONE_JOB else count) for role, count in tasks.items()}


def scancel(job_ids: list[str], states: tuple[str, ...] = ()) -> None:
    """scancel, a few hundred ids at a time; jobs that have ended already are no error."""
    for first in range(0, len(job_ids), 200):
        for state in states or ("",):
            words = ["scancel", *([f"--state={state}"] if state else []), *job_ids[first : first + 200]]
            done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
            problem = done.stderr.strip().splitlines()
            if done.returncode and problem and not re.search("Invalid job id|already comple", done.stderr):
                raise ClusterError(f"scancel failed: {problem[-1]}", "cancel the jobs by hand; `status` lists them")


def max_array_size() -> int:
    """The most tasks one array may have: SLURM caps the index, which counts from 0."""
    try:
        text = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, timeout=60).stdout
    except (OSError, subprocess.TimeoutExpired):
        text = ""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", text, re.MULTILINE)
    return max(1, int(found.group(1)) if found else DEFAULT_MAX_ARRAY)


def _submit_slurm(run: RunDir, config: AnyConfig, role: str, count: int, live: int, done: list[Submission]) -> None:
    asked = role_config(config, role)
    limit = max_array_size() if count > 1 else 1
    chunks = [min(limit, count - first) for first in range(0, count, limit)]
    wanted = parameters(job_name(config, role), run.run_id, asked, str(run.path))
    room = asked.max_concurrent - live if asked.max_concurrent else count * len(chunks)  # SLURM bounds an array
    wanted["array_parallelism"] = max(1, room // len(chunks))

    def send(size: int) -> Any:
        import submitit

        executor = submitit.SlurmExecutor(run.log_dir(role), python=python_command(asked))
        executor.update_parameters(**wanted)
        with _outside_allocation():
            return executor.map_array(run_role, [role] * size, [str(run.path)] * size)

    for size in chunks:
        jobs = _refusals_named(role, partial(send, size))
        job_id = jobs[0].job_id.partition("_")[0]
        done.append(Submission("slurm", role, job_id, tasks=size if size > 1 else 0))
        record(run.jobs_dir, done[-1])


@contextlib.contextmanager
def _outside_allocation() -> Iterator[None]:
    """For sbatch, which submitit calls with this process's environment, and which hands all of it to the job."""
    before = dict(os.environ)
    for key in before.keys() - without_allocation(before).keys():
        del os.environ[key]
    try:
        yield
    finally:
        os.environ.update(before)


def _refusals_named(role: str, call: Callable[[], T]) -> T:
    """submitit's and sbatch's refusals as one line and a remedy."""
    printed = io.StringIO()  # submitit repeats what sbatch says on its way
    try:
        with contextlib.redirect_stderr(printed):
            found = call()
        sys.stderr.write(printed.getvalue())
        return found
    except PermissionError as error:  # another person's run
        raise as_store_error(error, Path(error.filename or ".")) from error
    except (RuntimeError, ValueError, OSError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        said = next((line for line in lines if "sbatch: error" in line), lines[0] if lines else type(error).__name__)
        if re.search(_SILENT, str(error)):
            raise ClusterError(unreachable(said), ARE_YOU_THERE) from error
        raise ClusterError(
            f"the {role} job was refused: {said}", f"mend cluster.{role} in the configuration; `doctor` checks it"
        ) from error
