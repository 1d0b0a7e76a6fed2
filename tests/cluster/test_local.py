"""The local executor: real processes through submitit, under the same names and verbs."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from grhpc.cluster import control, launch, local, processes
from grhpc.cluster.job import start_ticks
from grhpc.cluster.sacct import tasks_of
from grhpc.cluster.submissions import Submission, read_submissions
from grhpc.errors import ClusterError
from grhpc.report.status import lines, status
from grhpc.store.rundir import RunDir
from tests.cluster.conftest import MakeRun, events, new_run, ready, stub, until


def test_run_starts_scales_stops_and_resumes(make_run: MakeRun) -> None:
    roles = {"train": stub("train", tasks_per_node=2), "rollout": stub("rollout", tasks=2), "verify": stub("verify")}
    run = make_run("local", **roles)
    jobs = launch.start(run, run.config(), ["train", "rollout"])
    assert [j.role for j in jobs] == ["rollout", "rollout", "train"]
    ranks = ready(run, 2, "train")
    assert sorted(e["rank"] for e in ranks) == [0, 1]
    ready(run, 2, "rollout")
    assert {(t.role, t.name) for t in tasks_of(run)} == {
        (e["role"], e["job"]) for e in events(run, "ready") if "rank" not in e["job"]
    }

    control.scale(run, "rollout", 1)
    assert [(t.role, t.live) for t in tasks_of(run)] == [("rollout", True), ("rollout", False), ("train", True)]
    control.stop(run)
    until("all to end", lambda: not control.live_jobs(run))
    assert {e["reason"] for e in events(run, "drain")} >= {"stopped by a person", "signal SIGTERM"}
    with pytest.raises(ClusterError, match="stopped"):
        control.scale(run, "rollout", 3)
    control.resume(run)
    assert run.stop_reason() is None  # scale's word holds on
    assert sorted(job.role for job in control.live_jobs(run)) == ["rollout", "train", "verify"]


def test_stop_now_ends_its_own_and_leaves_others(make_run: MakeRun) -> None:
    mine, other = (
        make_run("local", "mine", rollout=stub("rollout")),
        make_run("local", "other", rollout=stub("rollout")),
    )
    for run in (mine, other):
        launch.start(run, run.config(), ["rollout"])
        ready(run, 1)
    control.stop(mine, now=True)
    assert not control.live_jobs(mine) and len(control.live_jobs(other)) == 1


def test_no_task_outlives_its_killed_controller(make_run: MakeRun) -> None:
    run = make_run("local", rollout=stub("rollout"))
    (job,) = launch.start(run, run.config(), ["rollout"])
    (task,) = ready(run, 1)
    os.kill(int(job.job_id), signal.SIGKILL)
    until("the task to die", lambda: _has_ended(task["pid"]))
    assert not control.live_jobs(run)


def test_no_task_outlives_its_controller_before_its_role_begins(tmp_path: Path) -> None:
    env = {**os.environ, "SUBMITIT_EXECUTOR": "local", "SUBMITIT_LOCAL_JOB_ID": str(os.getpid())}
    words = [sys.executable, "-m", "grhpc.cluster.local_task", str(tmp_path), "bash", "-c", "echo $$; read"]
    over = subprocess.Popen(words, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert over.stdout is not None
    task = int(over.stdout.readline())
    over.kill()
    try:
        until("the task to die", lambda: _has_ended(task), 20.0)
    finally:
        over.wait()


def test_a_killed_task_is_told_with_the_signal(make_run: MakeRun) -> None:
    """The first one, where the other tasks of its job fall with it; one that ends in order says nothing."""
    run = make_run("local", train=stub("train", tasks_per_node=2), rollout=stub("rollout", tasks=3))
    launch.start(run, run.config(), ["train", "rollout"])
    pids = {event["job"]: event["pid"] for event in ready(run, 5)}
    killed, segmented, drained = [name for name in pids if "rank" not in name and name != _trainer(run)]
    os.kill(pids[killed], signal.SIGKILL)
    os.kill(pids[segmented], signal.SIGSEGV)
    os.kill(pids[drained], signal.SIGTERM)
    os.kill(pids[f"{_trainer(run)}-rank1"], signal.SIGKILL)
    until("its signal to be written", lambda: any(".1.signal" in name for name in os.listdir(run.jobs_dir)))
    os.kill(pids[_trainer(run)], signal.SIGABRT)
    until("all to end", lambda: not control.live_jobs(run))
    told = {task.name: (task.words, task.exit_code) for task in tasks_of(run)}
    assert told == {
        killed: ("FAILED by SIGKILL", "0:9"),
        segmented: ("FAILED by SIGSEGV", "0:11"),
        drained: ("ENDED", ""),
        _trainer(run): ("FAILED by SIGKILL", "0:9"),
    }
    seen = status(run)
    assert seen["roles"]["rollout"]["states"] == {"FAILED by SIGKILL": 1, "FAILED by SIGSEGV": 1, "ENDED": 1}
    assert any(line.startswith("train: 1 FAILED by SIGKILL") for line in lines(seen))


@pytest.mark.parametrize(("code", "signals"), [("exit 255", []), ("exit 139", ["11"]), ("kill -9 $$", ["9"])])
def test_an_exit_code_that_no_signal_has_is_none(tmp_path: Path, code: str, signals: list[str]) -> None:
    """As that of a container which could not start."""
    env = {**os.environ, "SUBMITIT_EXECUTOR": "local", "SUBMITIT_LOCAL_JOB_ID": str(os.getpid())}
    words = [sys.executable, "-m", "grhpc.cluster.local_task", str(tmp_path), "bash", "-c", code]
    ended = subprocess.run(words, env=env, timeout=60)
    assert [path.read_text().split()[1] for path in tmp_path.iterdir()] == signals
    assert ended.returncode == (128 + int(signals[0]) if signals else 255)


def _trainer(run: RunDir) -> str:
    return next(task.name for task in tasks_of(run) if task.role == "train")


def _has_ended(pid: int) -> bool:
    """Gone, or a zombie; who looks in two steps is told of neither when it goes in between."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_jobs_survive_the_terminal_that_started_them(make_run: MakeRun) -> None:
    run = make_run("local", rollout=stub("rollout"))
    code = "import signal, sys; from pathlib import Path; from grhpc.store.rundir import RunDir\n"
    code += "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ours may be started with SIGINT ignored
    code += "from grhpc.cluster import launch; run = RunDir.open(Path(sys.argv[1]))\n"
    code += "launch.start(run, run.config(), ['rollout']); input()"
    starter = subprocess.Popen([sys.executable, "-c", code, run.path], stdin=subprocess.PIPE, start_new_session=True)
    (task,) = ready(run, 1)
    os.killpg(starter.pid, signal.SIGINT)  # Ctrl-C
    starter.wait(120)
    assert psutil.pid_exists(task["pid"]) and not events(run, "drain")


def test_reused_process_id_is_nobody(make_run: MakeRun) -> None:
    stale = Submission("local", "rollout", str(os.getpid()), host=os.uname().nodename, started=12345)
    assert not processes.is_live(stale)
    processes.kill([stale])  # we are still here


def test_a_job_that_ends_by_itself_meanwhile_does_not_save_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [subprocess.Popen(["sleep", "300"]) for _ in range(2)]
    told = [Submission("local", "rollout", str(job.pid), started=start_ticks(job.pid)) for job in jobs]
    look = processes._trees

    def then_the_first_ends(controllers: list[psutil.Process]) -> set[psutil.Process]:
        found = look(controllers)
        jobs[0].kill()
        jobs[0].wait()
        return found

    monkeypatch.setattr(processes, "_trees", then_the_first_ends)
    try:
        processes.kill(told, wait_s=1.0)
        assert [job.wait(10) for job in jobs] == [-signal.SIGKILL, -signal.SIGTERM]
    finally:
        jobs[1].kill()


def test_what_hears_no_signal_has_ended_when_kill_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A controller that is told to end while it starts its task passes nothing on."""
    code = "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, lambda *_: more())\n"
    code += "def more(): print(subprocess.Popen(['sleep', '300']).pid, flush=True)\n"
    code += "held = bytearray(1 << 28); more()\nwhile True: time.sleep(1)"  # so large that its end takes a while
    controller = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert controller.stdout is not None
    begun, wait = [int(controller.stdout.readline())], processes._wait

    def until_it_was_told(trees: set[psutil.Process], wait_s: float) -> None:
        if len(begun) == 1:
            begun.append(int(controller.stdout.readline()))
        else:
            wait(trees, wait_s)

    job = Submission("local", "rollout", str(controller.pid), started=start_ticks(controller.pid))
    monkeypatch.setattr(processes, "_wait", until_it_was_told)
    processes.kill([job], wait_s=60.0)
    assert not processes.is_live(job)
    assert len(begun) == 2 and all(map(_has_ended, begun))
    controller.wait(120)


def test_gpus_are_dealt_out_of_the_shells_own(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7,5,GPU-a1,2,1,0")
    run = make_run("local", rollout=stub("rollout", tasks=2, gres="gpu:2"), verify=stub("verify", gpus_per_node=1))
    launch.start(run, run.config(), ["rollout", "verify"])
    assert [s.gpus for s in read_submissions(run.jobs_dir)] == [["7", "5"], ["GPU-a1", "2"], ["1"]]
    assert sorted(e["gpus"] for e in ready(run, 3)) == ["1", "7,5", "GPU-a1,2"]
    # A second run beside it gets what is left, and is refused what is not, before anything is made.
    other = make_run("local", "other", verify=stub("verify", tasks=2, gres="gpu:h100:1"))
    with pytest.raises(ClusterError, match=r"GPUs asked for: 2; free here: 1 \(0\)"):
        launch.start(other, other.config(), ["verify"])
    assert not read_submissions(other.jobs_dir)
    (job,) = launch.submit(other, other.config(), {"verify": 1})
    assert job.gpus == ["0"]


def test_two_starts_at_once_are_not_dealt_the_same_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "DEALING_S", 0.3)
    monkeypatch.setattr(local.tempfile, "tempdir", str(tmp_path))  # no start elsewhere on this machine holds us up
    run = new_run(tmp_path, "local", verify=stub("verify", gpus_per_node=1))
    with local._dealing(), pytest.raises(ClusterError, match="another start has been dealing out GPUs"):
        local._submit_here(run, run.config(), "verify", 1)
    assert not read_submissions(run.jobs_dir)


@pytest.mark.parametrize("asked", [{"gres": "gpu:2"}, {"gpus_per_node": 2}, {"gpus_per_node": 1, "tasks": 2}])
def test_too_few_gpus_are_said_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    run = new_run(tmp_path, "local", verify=stub("verify", **asked))
    with pytest.raises(ClusterError, match=r"GPUs asked for: 2; free here: 1 \(3\)"):
        launch.require(run.config())
    with pytest.raises(ClusterError, match="GPUs asked for: 2"):
        control.resume(run)
    assert not read_submissions(run.jobs_dir)


def test_without_a_list_the_drivers_gpus_are_dealt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lister = tmp_path / "nvidia-smi"
    lister.write_text("#!/bin/sh\nprintf '0\\n1\\n2\\n'\n")
    lister.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert local._free_gpus(tmp_path / "runs") == ["0", "1", "2"]
    monkeypatch.setenv("PATH", "/nonexistent")
    assert local._free_gpus(tmp_path / "runs") == []


def test_a_helper_that_fails_on_the_way_leaves_no_job_behind(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full at the second record: neither the first job nor the one that was not written down lives on."""
    begun = tmp_path / "begun"
    code = f"""
import os
from grhpc.cluster import submissions
write = submissions.record
def record(directory, submission):
    with open({str(begun)!r}, "a") as file:
        print(submission.job_id, submission.started, file=file)
    if len(open({str(begun)!r}).readlines()) == 2:
        raise OSError(28, "No space left on device")
    write(directory, submission)
submissions.record = record
"""
    (tmp_path / "sitecustomize.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[2]}", prepend=":")
    run = make_run("local", rollout=stub("rollout", tasks=3))
    with pytest.raises(ClusterError, match="did not start"):
        launch.start(run, run.config(), ["rollout"])
    jobs = [line.split() for line in begun.read_text().splitlines()]
    assert len(jobs) == 2 and len(read_submissions(run.jobs_dir)) == 1
    assert not any(processes.is_live(Submission("local", "rollout", pid, started=int(at))) for pid, at in jobs)


def test_setup_lines_and_environment_reach_the_task(make_run: MakeRun) -> None:
    run = make_run("local", verify=stub("not set up", setup=['export STUB_ROLE="verify"']))
    launch.start(run, run.config(), ["verify"])
    assert ready(run, 1)[0]["role"] == "verify"


def test_failed_role_is_named_in_the_events(make_run: MakeRun) -> None:
    run = make_run("local", verify=stub("verify", "fail"))
    launch.start(run, run.config(), ["verify"])
    until("the task to end", lambda: not control.live_jobs(run))
    assert [e["problem"] for e in events(run, "error")] == ["RuntimeError: the stub was told to fail"]


def test_no_sbatch_is_said_before_anything_is_made(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run("slurm")
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ClusterError, match="no sbatch on PATH"):
        launch.start(run, run.config())
    assert read_submissions(run.jobs_dir) == []
