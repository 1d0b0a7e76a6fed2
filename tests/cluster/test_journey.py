"""The whole journey on a real SLURM with real engines: once undisturbed, once with roles killed and a node crashed.

Trainer TP2 x PP2 over two nodes, three rollout tasks, two verify tasks, the tiny world; all through `submit.py`.
"""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from grhpc.cluster import control
from grhpc.store.events import read_events
from grhpc.store.ledger import read_ledger
from grhpc.store.recorded import read_batch
from grhpc.store.rundir import RunDir
from tests.cluster.conftest import until
from tests.cluster.lab import Lab

pytestmark = pytest.mark.slurm
ROOT = Path(__file__).parents[2]
ONE_THREAD = "{OMP_NUM_THREADS: '1'}"
END_S = 400.0  # one wait; each test's own limit is above the sum of its waits, so that what did not come is named


def submit(*words: str, code: int = 0) -> str:
    done = subprocess.run([sys.executable, "submit.py", *words], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def start(folder: Path, name: str, steps: int, **settings: Any) -> RunDir:
    """`submit.py start` of the tiny world on SLURM."""
    chosen = {
        "run.name": name,
        "run.dir": folder,
        "data.prepared": folder / "prepared",
        "train.steps": steps,
        "train.tensor_parallel": 2,
        "train.pipeline_parallel": 2,
        "train.checkpoint_every": 2,
        "rollout.group_size": 4,
        "rollout.groups_per_shard": 4,
        "grpo.groups_per_step": 16,
        "evaluate.heldout_every": 0,
        "cluster.executor": "slurm",
        "cluster.train": f"{{nodes: 2, tasks_per_node: 2, time_min: 30, gres: 'gpu:h100:2', env: {ONE_THREAD}}}",
        "cluster.rollout": f"{{tasks: 3, time_min: 30, gpus_per_node: 1, env: {ONE_THREAD}}}",
        "cluster.verify": f"{{tasks: 2, time_min: 30, gpus_per_node: 1, env: {ONE_THREAD}}}",
        **settings,
    }
    words = [word for key, value in chosen.items() for word in ("--set", f"{key}={value}")]
    submit("start", "configs/tiny.yaml", *words)
    return RunDir.open(folder / name)


def last_step(run: RunDir) -> int:
    return max((e["step"] for e in read_events(run.events_dir, "train") if e["event"] == "step"), default=0)


def wait_for_step(run: RunDir, step: int) -> None:
    until(f"step {step}", lambda: last_step(run) >= step, END_S)


def wait_for_end(run: RunDir) -> None:
    until(f"the end of {run.root.name}; {submit('status', str(run.root))}", run.finished, END_S)


def assert_one_fate_each(run: RunDir, steps: int) -> None:
    state = read_ledger(run.ledger_dir, run_id=run.run_id)
    assert state.finished and not state.open_groups() and state.last_step == steps
    assert set(state.fates) == set(range(state.next_group))
    trained = Counter(group for entry in state.steps.values() for group in entry.groups)
    assert len(trained) == 16 * steps and set(trained.values()) == {1}
    for entry in state.steps.values():
        assert Counter(row.group for row in read_batch(run, entry)) == dict.fromkeys(entry.groups, 4)
    assert "every admitted group is in exactly one place" in submit("audit", str(run.root))


def task_pids(run: RunDir, role: str, task: int | None = None) -> list[int]:
    """The processes of a role's tasks, as this machine sees them: all nodes are on it."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
            env = (entry / "environ").read_bytes().split(b"\0") if b"submitit.core._submit" in words else []
        except OSError:
            continue
        wanted = {f"SLURM_JOB_NAME={run.root.name}-{role}".encode(), b"SLURM_STEP_ID=0"}
        wanted |= set() if task is None else {f"SLURM_ARRAY_TASK_ID={task}".encode()}
        if wanted <= set(env) and b"bash" not in words[0]:
            found.append(int(entry.name))
    return sorted(found)


def kill(run: RunDir, role: str, task: int | None = None) -> None:
    pids = until(f"a {role} process", lambda: task_pids(run, role, task))
    os.kill(pids[0], signal.SIGKILL)


@pytest.fixture
def folder(tmp_path: Path) -> Any:
    yield tmp_path
    for path in tmp_path.glob("*/run.json"):
        control.stop(RunDir.open(path.parent), now=True)


@pytest.mark.timeout(4 * END_S)
def test_undisturbed_to_the_end(slurm_cluster: Lab, folder: Path) -> None:
    run = start(folder, "calm", steps=3)
    wait_for_step(run, 1)
    # 6 jobs: the trainer, three rollout tasks, two verify tasks; sacct and status say the same of each.
    seen: dict[str, Any] = json.loads(submit("status", str(run.root), "--json"))
    states = {job["job_id"]: job["state"] for job in seen["jobs"]}
    assert Counter(job["role"] for job in seen["jobs"]) == {"train": 1, "rollout": 3, "verify": 2}
    ids = ",".join(states)
    text = slurm_cluster.run("sacct", "-X", "-n", "-P", "-j", ids, "-o", "JobID,State")
    assert dict(line.split("|") for line in text.splitlines()) == states
    assert set(states.values()) == {"RUNNING"}
    wait_for_end(run)
    assert_one_fate_each(run, 3)
    assert all(queue == {"ready": 0, "leased": 0, "failed": 0} for queue in status(run)["queues"].values())
    until("the jobs to end", lambda: {job["state"] for job in status(run)["jobs"]} == {"COMPLETED"}, 120)


def status(run: RunDir) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(submit("status", str(run.root), "--json"))
    return found


@pytest.mark.timeout(9 * END_S)
def test_every_role_killed_and_a_node_crashed_on_the_way(slurm_cluster: Lab, folder: Path) -> None:
    run = start(folder, "storm", steps=6, **{"store.lease_s": 15})
    wait_for_step(run, 1)
    kill(run, "rollout", task=1)
    kill(run, "verify", task=0)
    wait_for_step(run, 2)
    kill(run, "train")
    until("the trainer's second life", lambda: resumes(run) >= 2, END_S)
    wait_for_step(run, 3)
    trainer = next(job["job_id"] for job in status(run)["jobs"] if job["role"] == "train")
    nodes = slurm_cluster.run("squeue", "-h", "-j", trainer, "-o", "%N").strip()
    crashed = slurm_cluster.run("scontrol", "show", "hostnames", nodes).split()[-1]
    slurm_cluster.crash(crashed)
    until("the trainer's third life, elsewhere", lambda: resumes(run) >= 3, END_S)
    slurm_cluster.start_node(crashed)
    wait_for_end(run)
    assert_one_fate_each(run, 6)


def resumes(run: RunDir) -> int:
    return sum(e["event"] == "resume" for e in read_events(run.events_dir, "train"))
