"""On a real SLURM: the roles start, meet, drain, come back, and end; and nobody else's job is touched."""

import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from grhpc import start
from grhpc.cluster import control, launch
from grhpc.cluster.sacct import tasks_of
from grhpc.cluster.submissions import read_submissions
from grhpc.errors import ClusterError
from grhpc.store.rundir import RunDir
from tests.cluster.conftest import STUBS, MakeRun, events, ready, stub, until
from tests.cluster.lab import Lab

pytestmark = pytest.mark.slurm
TEMPLATES = Path(__file__).parents[2] / "slurm"


def states(run):
    return {task.job_id: task.state for task in tasks_of(run)}


def only_state(run):
    """The state of the run's only task."""
    (state,) = states(run).values()
    return state


def squeue(lab: Lab) -> dict[str, str]:
    text = lab.run("squeue", "-h", "-r", "-o", "%i %T")
    return dict(line.split() for line in text.splitlines())


def kill_task(lab: Lab, event) -> None:
    """SIGKILL to a task, by its pid in its node."""
    words = ["kill", "-9", str(event["pid"])]
    if lab.plan.net == "netns":
        words = ["nsenter", "-t", str(lab.plan.pids[f"slurmd.{event['host']}"][0]), "-p", "-m", *words]
    subprocess.run(words, check=True)


def test_whole_run_over_two_nodes_agrees_with_squeue_and_stops_alone(slurm_cluster: Lab, make_run: MakeRun) -> None:
    stranger = slurm_cluster.run("sbatch", "--parsable", "-t", "5", "-o", "/dev/null", "--wrap", "sleep 300").strip()
    run = make_run(
        "slurm",
        train=stub("train", "allreduce", nodes=2, tasks_per_node=2, gres="gpu:h100:2"),
        rollout=stub("rollout", tasks=3, partition="spot"),
        verify=stub("verify", tasks=2, gpus_per_node=1),
    )
    launch.start(run, run.config())
    ranks = ready(run, 4, "train")
    assert [rank["total"] for rank in ranks] == [10.0] * 4
    assert {rank["host"] for rank in ranks} == {"n1", "n2"} or len({rank["host"] for rank in ranks}) == 2
    assert len({rank["end_s"] for rank in ranks}) == 1 and ranks[0]["end_s"] > ranks[0]["t"]
    ready(run, 3, "rollout"), ready(run, 2, "verify")

    until("sacct to agree", lambda: set(states(run).values()) == {"RUNNING"})
    assert {job: state for job, state in squeue(slurm_cluster).items() if job != stranger} == states(run)

    control.stop(run)
    until("every role to end", lambda: set(states(run).values()) == {"COMPLETED"})
    until("only the stranger to be left", lambda: squeue(slurm_cluster) == {stranger: "RUNNING"})
    slurm_cluster.run("scancel", stranger)


def test_preempted_task_drains_and_comes_back(slurm_cluster: Lab, make_run: MakeRun) -> None:
    whole_node = {"nodelist": "n3", "exclusive": True}
    run = make_run("slurm", rollout=stub("rollout", "child", partition="spot", extra=whole_node))
    launch.start(run, run.config(), ["rollout"])
    ready(run, 1)
    slurm_cluster.run("sbatch", "-p", "prod", "-w", "n3", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 2")
    ready(run, 1, restart=1)
    (drained,) = events(run, "drain", restart=0)
    assert drained["reason"] == "signal SIGUSR2" and drained["child_lives"]
    (task,) = until("sacct to agree", lambda: [t for t in tasks_of(run) if t.state == "RUNNING"])
    assert (task.restarts, task.kind) == (1, "running")


def test_node_crash_brings_the_task_back_elsewhere_or_later(slurm_cluster: Lab, make_run: MakeRun) -> None:
    run = make_run("slurm", verify=stub("verify", tasks=2))
    launch.start(run, run.config(), ["verify"])
    node = ready(run, 2)[0]["host"]
    lost = [e["job"] for e in events(run, "ready") if e["host"] == node]
    slurm_cluster.crash(node)
    back = ready(run, len(lost), restart=1)
    assert sorted(e["job"] for e in back) == sorted(lost)
    assert node not in {e["host"] for e in back}
    slurm_cluster.start_node(node)
    slurm_cluster.wait("the node", lambda: "idle" in slurm_cluster.node_states()[node], 240)


def test_killed_task_comes_back_but_a_hopeless_one_does_not(slurm_cluster: Lab, make_run: MakeRun) -> None:
    killed = make_run("slurm", "killed", rollout=stub("rollout", tasks=2))
    hopeless = make_run("slurm", "hopeless", rollout=stub("rollout", "hopeless"))
    launch.start(killed, killed.config(), ["rollout"])
    launch.start(hopeless, hopeless.config(), ["rollout"])
    victim = ready(killed, 2)[0]
    kill_task(slurm_cluster, victim)
    (back,) = ready(killed, 1, restart=1)
    assert back["job"] == victim["job"]
    assert (killed.jobs_dir / f"{victim['job']}.crashes").read_text() == "0\n"
    assert len(events(killed, "ready", restart=0)) == 2  # its sibling went on

    until("the hopeless task to end", lambda: only_state(hopeless) == "FAILED")
    assert [e["problem"] for e in events(hopeless, "error")] == ["the stub was told to give up"]
    assert not events(hopeless, "ready", restart=1)


def test_task_whose_time_ends_comes_back_warned_or_deaf_but_not_one_that_is_final(
    slurm_cluster: Lab, make_run: MakeRun
) -> None:
    """One test, because SLURM's time limits are minutes: all three are waited for at once."""
    deaf = make_run("slurm", "deaf", rollout=stub("rollout", "deaf", time_min=60, signal_s=30))
    late = make_run("slurm", "late", verify=stub("verify", "late", time_min=60, signal_s=30))
    warned = make_run("slurm", "warned", rollout=stub("rollout", time_min=60, signal_s=60))
    for run, role in ((deaf, "rollout"), (late, "verify"), (warned, "rollout")):
        launch.start(run, run.config(), [role])
    (first,) = ready(deaf, 1)
    (ready_once,) = ready(warned, 1)
    ready(late, 1)
    end_s = end_soon(slurm_cluster, deaf)
    end_soon(slurm_cluster, late)
    end_soon(slurm_cluster, warned)

    (second,) = ready(deaf, 1, restart=1, seconds=300)
    assert second["job"] == first["job"] and second["t"] > end_s
    assert not events(deaf, "drain")
    until("sacct to agree", lambda: [(t.state, t.restarts) for t in tasks_of(deaf)] == [("RUNNING", 1)])
    until("the late task to end", lambda: only_state(late) == "FAILED")
    assert not events(late, "ready", restart=1)

    restart = ready_once["restart"]
    until("another life", lambda: [e for e in events(warned, "ready") if e["restart"] > restart], 300)
    assert [e["reason"] for e in events(warned, "drain", restart=0)] == ["signal SIGUSR2"]


def end_soon(lab: Lab, run: RunDir) -> float:
    """Let the limit of a run's only task draw near, one to two minutes from now; when it ends. Only once the task is
    ready, however slow the machine: SLURM may warn a minute early, and its handler must be there by then."""
    (task,) = tasks_of(run)
    minutes = int(time.time() - task.since_s) // 60 + 2
    lab.run("scontrol", "update", f"JobId={task.job_id}", f"TimeLimit={minutes}")
    return task.since_s + 60 * minutes


def test_scancel_is_the_end(slurm_cluster: Lab, make_run: MakeRun) -> None:
    run = make_run("slurm", rollout=stub("rollout", tasks=2))
    launch.start(run, run.config(), ["rollout"])
    ready(run, 2)
    slurm_cluster.run("scancel", *states(run))
    until("the tasks to end", lambda: set(states(run).values()) == {"CANCELLED"})
    until("SLURM to forget them", lambda: squeue(slurm_cluster) == {})
    assert not events(run, "ready", restart=1)


def test_scale_up_down_and_resume(slurm_cluster: Lab, make_run: MakeRun) -> None:
    run = make_run("slurm", rollout=stub("rollout", tasks=2), verify=stub("verify"), train=stub("train"))
    launch.start(run, run.config(), ["rollout", "verify"])
    ready(run, 3)
    assert control.scale(run, "rollout", 3) == ["rollout: 2 -> 3 tasks"]
    ready(run, 4)
    control.scale(run, "rollout", 1)
    until("two tasks to go", lambda: list(states(run).values()).count("CANCELLED") == 2)
    slurm_cluster.run("scancel", next(t.job_id for t in tasks_of(run) if t.role == "verify"))
    until("verify to go", lambda: list(states(run).values()).count("CANCELLED") == 3)
    assert [job.role for job in control.resume(run)] == ["verify", "train"]  # rollout has what scale said
    assert control.resume(run) == []
    assert sorted(t.role for t in tasks_of(run) if t.live) == ["rollout", "train", "verify"]


def test_trainer_brings_back_tasks_that_ended_for_want_of_work(slurm_cluster: Lab, make_run: MakeRun) -> None:
    run = make_run(
        "slurm", rollout=stub("rollout", "once", tasks=3), verify=stub("verify", tasks=2), train=stub("train")
    )
    launch.start(run, run.config(), ["rollout", "verify"])
    ready(run, 2, "verify")
    until("the rollout tasks to end", lambda: sorted(states(run).values()) == ["COMPLETED"] * 3 + ["RUNNING"] * 2)
    launch.start(run, run.config(), ["train"])
    ready(run, 1, "train")
    ready(run, 6, "rollout")
    assert [(s.role, s.tasks) for s in read_submissions(run.jobs_dir)][2:] == [("train", 0), ("rollout", 3)]


def test_arrays_larger_than_slurm_allows_are_cut(
    slurm_cluster: Lab, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert launch.max_array_size() == 1001
    monkeypatch.setattr(launch, "max_array_size", lambda: 2)
    run = make_run("slurm", verify=stub("verify", "once", tasks=3))
    assert [s.tasks for s in launch.start(run, run.config(), ["verify"])] == [2, 0]
    until("all to end", lambda: list(states(run).values()) == ["COMPLETED"] * 3)


def test_refused_role_leaves_no_job_behind(slurm_cluster: Lab, make_run: MakeRun) -> None:
    run = make_run(
        "slurm", rollout=stub("rollout", tasks=2), verify=stub("verify"), train=stub("train", partition="nope")
    )
    with pytest.raises(ClusterError, match=r"train job was refused: .*nvalid partition"):
        launch.start(run, run.config())
    until("the others to be cancelled", lambda: set(states(run).values()) == {"CANCELLED"})
    until("SLURM to forget them", lambda: squeue(slurm_cluster) == {})


@pytest.mark.parametrize("role", ["train", "rollout"])
def test_plain_template_starts_the_same_role(slurm_cluster: Lab, make_run: MakeRun, role: str) -> None:
    run = make_run("slurm")
    run.log_dir(role).mkdir()
    root = str(TEMPLATES.parent)
    env = {**slurm_cluster.env, "PYTHONPATH": f"{root}:{STUBS}", "STUB_ROLE": role, "STUB": "linger"}
    small = ["--gpus-per-node=1", "--cpus-per-task=1", "--mem=500", f"--comment=grhpc:{run.run_id}", "--parsable"]
    small += ["--ntasks-per-node=1"] if role == "train" else ["--array=0-1"]
    words = ["sbatch", f"--chdir={run.path}", *small, str(TEMPLATES / f"{role}.sbatch")]
    env["GRHPC_PYTHON"] = sys.executable
    job = subprocess.run(words, env=env, check=True, capture_output=True, text=True).stdout.strip()
    count = 1 if role == "train" else 2
    assert len(ready(run, count, role)) == count
    kill_task(slurm_cluster, events(run, "ready", role)[0])
    ready(run, 1, role, restart=1)
    assert {(t.role, t.job_id.partition("_")[0]) for t in tasks_of(run)} == {(role, job)}  # it wrote itself down
    assert control.stop(run, now=True) == [f"ended {count} tasks of stub"]
    assert job not in {j.partition("_")[0] for j in squeue(slurm_cluster)}


def test_a_runs_own_scripts_start_it(slurm_cluster: Lab, make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run("slurm", rollout=stub("rollout", tasks=2), verify=stub("verify"), train=stub("train"))
    start.by_hand(run)  # what `start --no-launch` does with a new run directory
    commands = [line for line in capsys.readouterr().out.splitlines() if line.startswith("sbatch ")]
    for command in commands:
        slurm_cluster.run(*shlex.split(command.replace("sbatch ", "sbatch --hold ")))
    waiting = control.live_jobs(run)  # by their comment
    assert sorted((job.role, job.kind) for job in waiting) == [
        ("rollout", "waiting"),
        ("rollout", "waiting"),
        ("train", "waiting"),
        ("verify", "waiting"),
    ]
    assert control.resume(run) == []  # nothing is missing
    slurm_cluster.run("scontrol", "release", *{job.job_id.partition("_")[0] for job in waiting})
    ready(run, 4)
    until("sacct to agree", lambda: list(states(run).values()) == ["RUNNING"] * 4)
    control.stop(run)
    until("every role to end", lambda: set(states(run).values()) == {"COMPLETED"})
