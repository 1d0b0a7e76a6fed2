"""Who a process is, how it is told to drain, and what its exit code says."""

import ast
import importlib.util
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from grhpc.cluster import job, rendezvous, role
from grhpc.cluster.job import Job
from grhpc.cluster.submissions import Submission, read_submissions, record
from grhpc.errors import ConfigError, OtherVersion, StoreError, WaitTimeout
from grhpc.lifetime import Lifetime
from grhpc.store import code as own_code
from grhpc.store.events import read_events
from tests.cluster.conftest import STUBS, MakeRun, new_run

ARRAY_TASK = {
    "SLURM_JOB_ID": "4713",
    "SLURM_ARRAY_JOB_ID": "4711",
    "SLURM_ARRAY_TASK_ID": "2",
    "SLURM_RESTART_COUNT": "3",
    "SLURM_PROCID": "0",
    "SLURM_NTASKS": "1",
    "SLURMD_NODENAME": "n7",
}
RANK = {
    "SLURM_JOB_ID": "4710",
    "SLURM_PROCID": "5",
    "SLURM_NTASKS": "6",
    "SLURM_JOB_NUM_NODES": "2",
    "SLURM_NODEID": "1",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_TASKS_PER_NODE": "4,2",
    "SLURM_JOB_END_TIME": "1795304676",
}


@pytest.fixture(autouse=True)
def signals_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """A role takes over its process's signals for good: not those of the tests' own process, and all its children."""
    monkeypatch.setattr(role, "_install_signals", lambda life: None)


@pytest.mark.parametrize("name", role.ROLES)
def test_every_role_in_the_table_exists(name: str) -> None:
    module, _, function = role.ROLES[name].partition(":")
    tree = ast.parse(Path(importlib.util.find_spec(module).origin).read_text())  # importing torch for it would be dear
    (found,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function)
    assert [argument.arg for argument in found.args.args] == ["run_dir", "life"]


def test_place_in_a_slurm_array_and_in_a_job_of_many_tasks() -> None:
    task = job.current(ARRAY_TASK)
    assert (task.name, task.key, task.restart, task.node) == ("4711_2", "4711_2-3", 3, "n7")
    rank = job.current(RANK)
    assert (rank.name, rank.rank, rank.world_size, rank.local_rank, rank.local_size) == ("4710", 5, 6, 1, 2)
    assert rank.end_s == 1795304676
    assert job.tasks_per_node("2(x3),1") == [2, 2, 2, 1]


def test_place_without_slurm() -> None:
    env = {"SUBMITIT_EXECUTOR": "local", "SUBMITIT_LOCAL_JOB_ID": str(os.getpid()), "SUBMITIT_LOCAL_NTASKS": "4"}
    here = job.current({**env, "SUBMITIT_LOCAL_GLOBALID": "3"})
    assert (here.name, here.rank, here.world_size, here.local_rank) == (f"local-{os.getpid()}", 3, 4, 3)
    assert here.key == job.current(env).key  # all ranks meet under one name
    assert job.current({}).world_size == 1


def test_ranks_meet_where_rank_0_says(tmp_path: Path) -> None:
    found: list[rendezvous.Meeting] = []
    me = replace(job.current(RANK), num_nodes=1)
    waiter = threading.Thread(target=lambda: found.append(rendezvous.meet(tmp_path, me, wait_s=120)))
    waiter.start()
    meeting = rendezvous.meet(tmp_path, replace(me, rank=0))
    waiter.join()
    assert found == [meeting] and meeting.end_s == 1795304676
    with socket.socket() as probe:
        probe.bind(("", meeting.port))


def test_another_incarnation_is_not_met(tmp_path: Path) -> None:
    me = replace(job.current(RANK), num_nodes=1)
    rendezvous.meet(tmp_path, replace(me, rank=0))
    with pytest.raises(WaitTimeout, match=r"rank 5 waited .*restart 1"):
        rendezvous.meet(tmp_path, replace(me, restart=1, key="4710-1"), wait_s=0.2)


def run_as(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, work, name: str = "stub", **place):
    """Run a role here whose work is `work(run, life)`; the exit code."""
    run = make_run("local", name)
    monkeypatch.setattr(role, "find_role", lambda name: lambda path, life: work(run, life))
    life = Lifetime(job="4711")
    return role._run("rollout", run, Job(**{"kind": job.SLURM, "id": "4711", "key": "4711-0", **place}), life), run


def test_a_job_from_a_batch_script_writes_itself_down_once(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run = new_run(make_run("local").root.parent, "slurm", "by-hand")
    monkeypatch.setenv("SLURM_ARRAY_TASK_MAX", "2")
    for task in ("4711_0", "4711_2"):
        role._write_down("rollout", run, Job(job.SLURM, task, key=task))
    monkeypatch.delenv("SLURM_ARRAY_TASK_MAX")
    role._write_down("train", run, Job(job.SLURM, "4712", key="4712-0"))
    record(run.jobs_dir, Submission("slurm", "train", "4712"))  # its submitter, a moment late
    assert [(s.role, s.job_id, s.task_ids()) for s in read_submissions(run.jobs_dir)] == [
        ("rollout", "4711", ["4711_0", "4711_1", "4711_2"]),
        ("train", "4712", ["4712"]),
    ]


def test_exit_codes_say_whether_to_come_back(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(run, life):
        run.request_stop("enough")
        life.drain("stop requested")

    def finished(run, life):
        run.finish({})
        life.drain("signal SIGUSR2")

    drained = lambda run, life: life.drain("signal SIGUSR2")  # noqa: E731
    cases = [(lambda run, life: None, 0), (drained, role.AGAIN), (stopped, 0), (finished, 0)]
    codes = [run_as(make_run, monkeypatch, work, f"run{i}")[0] for i, (work, _) in enumerate(cases)]
    assert codes == [code for _, code in cases]
    assert run_as(make_run, monkeypatch, drained, "here", kind=job.LOCAL)[0] == 0  # nobody would start it again


def test_error_is_said_once_in_the_events(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def hopeless(run, life):
        raise ConfigError("a setting is wrong", "mend it")

    code, run = run_as(make_run, monkeypatch, hopeless)
    assert code == role.FINAL and (run.jobs_dir / "4711-0.final").exists()
    said = capsys.readouterr().err.splitlines()
    assert said[:2] == ["error: a setting is wrong", "  do: mend it"]
    assert said[2].startswith(f"  then: python submit.py resume {run.root} (--set ")
    assert [(e["role"], e["job"], e["problem"]) for e in read_events(run.events_dir)] == [
        ("rollout", "4711", "a setting is wrong")
    ]

    def unlucky(run, life):
        raise StoreError("the filesystem is full", "make room")

    with pytest.raises(StoreError):  # any exit code but 0, 2 and 75: worth another try
        run_as(make_run, monkeypatch, unlucky, "unlucky")


@pytest.mark.parametrize("problem", ["rows of another version", "other code"])
def test_what_only_other_code_can_mend_is_final(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, problem: str
) -> None:
    def refuse(*anything):
        raise OtherVersion("the rows are of another version", "use that version")

    if problem == "other code":
        digests = itertools.count()
        monkeypatch.setattr(own_code, "_digest", lambda files: f"digest {next(digests)}")
        done, run = run_as(make_run, monkeypatch, lambda run, life: pytest.fail("the role was started"))
        assert "is not the run's code" in read_events(run.events_dir)[-1]["problem"]
    else:
        done, _ = run_as(make_run, monkeypatch, refuse)
    assert done == role.FINAL


@pytest.mark.parametrize("comes", [True, False])
def test_a_machine_that_still_sees_the_old_link_waits_for_the_new_one_and_comes_back(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, comes: bool
) -> None:
    run = make_run("local")
    new = own_code.Code({"__init__.py": b""}, {**own_code.present().about, "sha256": "another"})
    with monkeypatch.context() as patched:
        patched.setattr(own_code, "_point", lambda *words: None)
        new.replace(run)
    monkeypatch.setattr(own_code, "PACKAGE", run.code_dir.resolve() / "grhpc-1")
    monkeypatch.setattr(role, "find_role", lambda name: pytest.fail("the role was started"))
    monkeypatch.setattr(role.time, "sleep", lambda seconds: own_code.mend_link(run))
    if not comes:
        monkeypatch.setattr(role, "_VISIBLE_S", -1.0)
    done = role._run("rollout", run, Job(job.SLURM, "4711", key="4711-0"), Lifetime(job="4711"))
    assert done == (role.AGAIN if comes else role.FINAL)
    assert own_code.is_linked(run) is comes and (run.jobs_dir / "4711-0.final").exists() is not comes


def test_a_stopped_run_is_not_begun(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run("local")
    run.request_stop("enough")
    monkeypatch.setattr(role, "find_role", lambda name: pytest.fail("the role was started"))
    assert role._run("verify", run, Job(job.NONE, "1", key="1"), Lifetime()) == 0


def test_a_task_takes_as_many_threads_as_it_has_cores(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    run_as(make_run, monkeypatch, lambda run, life: threads.append(os.environ["OMP_NUM_THREADS"]))
    assert threads == ["1"]  # cluster.*.cpus_per_task


def test_a_task_knows_when_it_is_warned(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[float] = []
    run_as(make_run, monkeypatch, lambda run, life: warnings.append(life.warning_s))
    assert warnings == [120]  # cluster.*.signal_s


def test_engines_on_one_node_share_its_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,4,5")
    monkeypatch.delenv("SLURM_GPUS_PER_TASK", raising=False)
    role._take_share_of_devices(Job(job.SLURM, "1", key="1", world_size=4, local_rank=1, local_size=2))
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,5"


def test_engines_keep_the_gpus_that_slurm_bound_them_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")  # of each task's own
    monkeypatch.setenv("SLURM_GPUS_PER_TASK", "2")
    role._take_share_of_devices(Job(job.SLURM, "1", key="1", world_size=4, local_rank=1, local_size=2))
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"


@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGTERM])
def test_command_line_drains_on_a_signal(make_run: MakeRun, number: signal.Signals) -> None:
    run = make_run("local")
    env = {**os.environ, "PYTHONPATH": f"{Path(role.__file__).parents[2]}:{STUBS}", "STUB_ROLE": "rollout"}
    words = [sys.executable, "-m", "grhpc.cluster.role", "rollout", str(run.path)]
    process = subprocess.Popen(words, env=env, stderr=subprocess.PIPE, text=True)
    try:
        while not read_events(run.events_dir):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(120) == 0
    finally:
        process.kill()
    assert read_events(run.events_dir)[-1]["reason"] == f"signal {number.name}"


def test_command_line_refuses_in_two_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert role.main(["rollout", str(tmp_path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2
    assert role.main(["rollout"]) == 2


def test_starting_a_role_loads_nothing_heavy() -> None:
    code = "import sys, json, grhpc.cluster.role; print(json.dumps(sorted(sys.modules)))"
    loaded = set(json.loads(subprocess.check_output([sys.executable, "-c", code], text=True)))
    assert not loaded & {"torch", "vllm", "megatron", "transformers", "submitit", "datasets"}
