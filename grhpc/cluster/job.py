"""Which job is this process in? Read from what SLURM or submitit put into the environment.

Does not know: roles, the run directory. Invariant: `Job.name` names one task of one role to people and to the file
system, and stays the same when SLURM requeues the job; only `restart` grows.
"""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SLURM, LOCAL, NONE = "slurm", "local", "none"
OF_AN_ALLOCATION = ("SLURM_", "SLURMD_", "SBATCH_", "SRUN_", "SUBMITIT_", "CUDA_VISIBLE_")
GPUS_BEFORE, NO_LIST = "GRHPC_GPUS", "any"  # what CUDA_VISIBLE_DEVICES was before a local job got its share
OUR_OWN = ("SLURM_CONF", "SBATCH_ACCOUNT")  # SLURM sets neither in a job; a person may need both


@dataclass(frozen=True)
class Job:
    """This process's place. `rank` and `world_size` count the job's tasks, `local_rank` and `local_size` its node's.

    `id` is what scancel understands ("4711", "4711_2", or a controller's process id); `key` tells apart every start of
    every job that ever ran in a run directory; `end_s` is the allocation's end on the `time.time()` clock, or None.
    """

    kind: str
    id: str
    key: str
    restart: int = 0
    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_size: int = 1
    num_nodes: int = 1
    node: str = ""
    end_s: float | None = None

    @property
    def name(self) -> str:
        return self.id if self.kind == SLURM else f"{self.kind}-{self.id}"


def current(env: Mapping[str, str] | None = None) -> Job:
    """The job this process is part of."""
    env = os.environ if env is None else env
    if "SUBMITIT_LOCAL_JOB_ID" in env and env.get("SUBMITIT_EXECUTOR") == "local":
        return _local(env)
    if "SLURM_JOB_ID" in env and "SLURM_PROCID" in env:
        return _slurm(env)
    return Job(NONE, str(os.getpid()), key=f"{os.getpid()}-{time.time_ns()}")


def _local(env: Mapping[str, str]) -> Job:
    controller = env["SUBMITIT_LOCAL_JOB_ID"]
    size = int(env.get("SUBMITIT_LOCAL_NTASKS", "1"))
    rank = int(env.get("SUBMITIT_LOCAL_GLOBALID", "0"))
    key = f"local-{controller}-{start_ticks(int(controller))}"
    return Job(LOCAL, controller, key=key, rank=rank, world_size=size, local_rank=rank, local_size=size)


def _slurm(env: Mapping[str, str]) -> Job:
    job_id = env["SLURM_JOB_ID"]
    if "SLURM_ARRAY_JOB_ID" in env:
        job_id = f"{env['SLURM_ARRAY_JOB_ID']}_{env['SLURM_ARRAY_TASK_ID']}"
    restart = int(env.get("SLURM_RESTART_COUNT", "0"))
    world_size, num_nodes = int(env.get("SLURM_NTASKS", "1")), int(env.get("SLURM_JOB_NUM_NODES", "1"))
    node = int(env.get("SLURM_NODEID", "0"))
    per_node = tasks_per_node(env.get("SLURM_STEP_TASKS_PER_NODE", env.get("SLURM_TASKS_PER_NODE", "")))
    return Job(
        SLURM,
        job_id,
        key=f"{job_id}-{restart}",
        restart=restart,
        rank=int(env["SLURM_PROCID"]),
        world_size=world_size,
        local_rank=int(env.get("SLURM_LOCALID", "0")),
        local_size=per_node[node] if node < len(per_node) else max(1, world_size // num_nodes),
        num_nodes=num_nodes,
        node=env.get("SLURMD_NODENAME", ""),
        end_s=float(env["SLURM_JOB_END_TIME"]) if "SLURM_JOB_END_TIME" in env else None,
    )


def without_allocation(env: Mapping[str, str]) -> dict[str, str]:
    """The environment that a job submitted from here may inherit: nothing of the allocation that this process is in.

    srun takes SLURM_MEM_PER_CPU and its like for wishes. Outside an allocation a person's own settings for sbatch stay.
    """
    if "SLURM_JOB_ID" not in env and "SLURM_JOBID" not in env:
        return dict(env)
    return {key: value for key, value in env.items() if key in OUR_OWN or not key.startswith(OF_AN_ALLOCATION)}


def all_gpus(env: Mapping[str, str]) -> dict[str, str]:
    """Of a local job's environment: as it was where the job was started, so that GPUs can be dealt out anew."""
    found = dict(env)
    if (before := found.pop(GPUS_BEFORE, None)) is not None:
        found["CUDA_VISIBLE_DEVICES"] = before
        if before == NO_LIST:
            del found["CUDA_VISIBLE_DEVICES"]
    return found


def tasks_per_node(text: str) -> list[int]:
    """ "2(x3),1" means [2, 2, 2, 1]."""
    counts: list[int] = []
    for number, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", text):
        counts += [int(number)] * int(times or 1)
    return counts


def ask_end_s(job: Job) -> float | None:
    """The end of the allocation by one scontrol call; None where SLURM cannot be asked or sets no limit."""
    if job.kind != SLURM or shutil.which("scontrol") is None:
        return None
    text = _scontrol("show", "job", job.id, SLURM_TIME_FORMAT="%s")
    found = re.search(r"\bEndTime=(\d+)\b", text)
    return float(found.group(1)) if found else None


def reachable_name(job: Job) -> str:
    """A name or address by which the other nodes of the job reach this one."""
    if job.num_nodes == 1 or not job.node:
        return "127.0.0.1"
    found = re.search(r"\bNodeAddr=(\S+)", _scontrol("show", "node", job.node)) if shutil.which("scontrol") else None
    return found.group(1) if found else job.node


def start_ticks(pid: int) -> int:
    """When the process began, in clock ticks since boot: with the pid it names one process for ever; 0 if unknown."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    return int(text.rpartition(")")[2].split()[19])


def _scontrol(*words: str, **env: str) -> str:
    try:
        done = subprocess.run(
            ["scontrol", *words], capture_output=True, text=True, timeout=30, env={**os.environ, **env}
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout
