"""What the verbs do where SLURM says something, nothing, or that a job does not end. SLURM's programs are pretended."""

import os
import subprocess
import time
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pytest
from prompts import prompt

from grhpc import verbs
from grhpc.cluster import control, launch, refill
from grhpc.cluster.job import start_ticks
from grhpc.cluster.submissions import Submission, record
from grhpc.errors import ClusterError
from grhpc.report.status import status
from grhpc.store.claims import Claims
from grhpc.store.rundir import RunDir
from tests.cluster.conftest import new_run
from tests.cluster.test_sacct import put_on_path

SILENT = {"sacct": "exit 1", "squeue": "exit 1"}
NO_ACCOUNTING = "echo Slurm accounting storage is disabled >&2; exit 1"


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A run whose trainer is job 70 and whose two rollout tasks are job 71, submitted an hour ago."""
    run = new_run(tmp_path, "slurm")
    hour_ago = float(round(time.time()) - 3600)
    for role, job, tasks, later_s in (("train", "70", 0, 0.0), ("rollout", "71", 2, 0.0001)):  # in one millisecond
        record(run.jobs_dir, Submission("slurm", role, job, tasks, submitted_s=hour_ago + later_s))
    return run


@pytest.fixture
def submitted(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, int]]:
    """What `launch.submit` was asked for, instead of submitting it."""
    asked: list[dict[str, int]] = []

    def submit(run: RunDir, config: object, tasks: dict[str, int], live: dict[str, int]) -> list[Submission]:
        asked.append({role: count for role, count in tasks.items() if count > 0})
        return []

    monkeypatch.setattr(launch, "submit", submit)
    return asked


def slurm(run: RunDir, monkeypatch: pytest.MonkeyPatch, **programs: str) -> Path:
    folder = run.root.parent
    return put_on_path(folder, monkeypatch, **{"sbatch": "exit 1", "srun": "exit 1", "scancel": "", **programs})


def listed(*lines: str) -> str:
    """A squeue that lists these to `status`, and nothing by its comment."""
    return "case $* in *%k*) ;; *) cat <<'X'\n" + "".join(f"{line}||1|1|N/A|n1|None\n" for line in lines) + "X\n;; esac"


@pytest.mark.parametrize(
    "verb",
    [
        control.live_jobs,
        control.resume,
        lambda run: control.scale(run, "rollout", 5),
        lambda run: control.stop(run, now=True),
    ],
)
def test_no_verb_guesses_where_slurm_is_silent(run, submitted, monkeypatch, verb) -> None:
    calls = slurm(run, monkeypatch, **SILENT)
    with pytest.raises(ClusterError, match=r"does not say whether 70, 71_0, 71_1 of stub still live") as caught:
        verb(run)
    assert caught.value.remedy == "try again when `squeue` answers"
    assert submitted == [] and "scancel" not in calls.read_text()


def test_a_refused_resume_leaves_the_request_to_stop(run, submitted, monkeypatch) -> None:
    run.request_stop("enough")
    slurm(run, monkeypatch, **SILENT)
    with pytest.raises(ClusterError):
        control.resume(run)
    assert run.stop_reason() == "enough"


def test_stop_asks_even_where_slurm_is_silent_and_claims_nothing(run, monkeypatch) -> None:
    slurm(run, monkeypatch, **SILENT)
    lines = control.stop(run)
    assert run.stop_reason() == "stopped by a person"
    assert lines[1].startswith("nothing is known of 70, 71_0, 71_1")


def test_stop_cancels_what_waits_written_down_or_not(run, monkeypatch) -> None:
    marked = f'case $* in *%k*) echo "80_0|PENDING|stub-verify|grhpc:{run.run_id}"; exit ;; esac; '
    squeue = marked + listed("70|RUNNING", "71_0|PENDING")
    calls = slurm(run, monkeypatch, sacct=NO_ACCOUNTING, squeue=squeue)
    assert control.stop(run) == ["stub: 1 tasks finish what they hold, 2 that waited are gone"]
    assert "scancel --state=PENDING 71 80" in calls.read_text()


def test_stop_now_says_what_is_still_there(run, monkeypatch) -> None:
    calls = slurm(run, monkeypatch, sacct=NO_ACCOUNTING, squeue=listed("70|RUNNING", "71_1|COMPLETING"))
    assert control.stop(run, now=True, wait_s=0.1) == [
        "stub: 2 tasks were told to end; still there after 0 s: 70 (RUNNING), 71_1 (COMPLETING)"
    ]
    assert "scancel 70 71" in calls.read_text()


def test_stop_now_waits_until_they_have_ended(run, monkeypatch) -> None:
    gone = run.root.parent / "gone"
    squeue = f"[ -e {gone} ] && exit\n" + listed("70|RUNNING", "71_0|RUNNING", "71_1|RUNNING")
    slurm(run, monkeypatch, sacct=NO_ACCOUNTING, squeue=squeue, scancel=f"touch {gone}")
    assert control.stop(run, now=True) == ["ended 3 tasks of stub"]


def test_stop_now_ends_what_a_finished_run_left(run, monkeypatch) -> None:
    run.finish({})
    calls = slurm(run, monkeypatch, sacct=NO_ACCOUNTING, squeue=listed("71_1|RUNNING"))
    assert control.stop(run) == ["stub is finished; its tasks end by themselves"]
    control.stop(run, now=True, wait_s=0)
    assert "scancel 71" in calls.read_text()


def test_without_accounting_what_is_not_listed_has_ended_and_is_brought_back(run, submitted, monkeypatch) -> None:
    slurm(run, monkeypatch, sacct=NO_ACCOUNTING, squeue=listed("70|RUNNING"))
    control.record_target(run.jobs_dir, "rollout", 2)
    refill.refill(run)
    control.resume(run)
    assert submitted == [{"rollout": 2}, {"rollout": 2, "verify": 1}]


def test_without_any_answer_nothing_is_brought_back(run, submitted, monkeypatch) -> None:
    slurm(run, monkeypatch, **SILENT)
    refill.refill(run)
    assert submitted == [{}]


@pytest.mark.parametrize(
    ("verb", "array"),
    [
        (lambda run: control.scale(run, "rollout", 6), "0-3%3"),  # 2 live, so 3 more of 5 at one time
        (lambda run: control.scale(run, "rollout", 4), "0-1%2"),
        (control.resume, "0-7%3"),
    ],
)
def test_an_array_that_is_added_gets_what_live_tasks_leave_of_max_concurrent(run, monkeypatch, verb, array) -> None:
    config = run.config()
    wide = replace(config.cluster.rollout, tasks=10, max_concurrent=5)
    run.amend(replace(config, cluster=replace(config.cluster, rollout=wide)))
    handed = run.root.parent / "handed"
    sbatch = f'grep array= "$1" >> {handed}; echo Submitted batch job $$'
    squeue = listed("70|RUNNING", "71_0|RUNNING", "71_1|PENDING")
    slurm(run, monkeypatch, sacct=NO_ACCOUNTING, squeue=squeue, sbatch=sbatch, scontrol="")
    verb(run)
    assert handed.read_text() == f"#SBATCH --array={array}\n"


@pytest.mark.parametrize(
    ("most", "arrays"),
    [(None, ["0-3%4", "0-1%2"]), (8, ["0-3%3", "0-1%2"]), (7, ["0-3%2", "0-1%2"]), (2, ["0-3%1", "0-1%1"])],
)
def test_arrays_of_one_submission_share_the_room_and_each_has_some(run, monkeypatch, most, arrays) -> None:
    config = run.config()
    wide = replace(config.cluster.rollout, max_concurrent=most)
    run.amend(replace(config, cluster=replace(config.cluster, rollout=wide)))
    handed = run.root.parent / "handed"
    sbatch = f'grep array= "$1" >> {handed}; echo Submitted batch job $$'
    squeue = listed("70|RUNNING", "71_0|RUNNING", "71_1|RUNNING")
    scontrol = "echo MaxArraySize = 4"
    slurm(run, monkeypatch, sacct=NO_ACCOUNTING, squeue=squeue, sbatch=sbatch, scontrol=scontrol)
    control.scale(run, "rollout", 8)  # 2 live
    assert handed.read_text().split() == [word for array in arrays for word in ("#SBATCH", f"--array={array}")]


def test_refill_leaves_room_for_what_lives(run, monkeypatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(launch, "submit", lambda run, config, tasks, live: asked.append((tasks, live)))
    control.record_target(run.jobs_dir, "rollout", 2)
    slurm(run, monkeypatch, sacct=NO_ACCOUNTING, squeue=listed("70|RUNNING", "71_0|RUNNING"))
    refill.refill(run)
    assert asked == [({"rollout": 1, "verify": 0}, {"rollout": 1, "verify": 0})]


@pytest.mark.parametrize("verb", [control.resume, lambda run: control.scale(run, "rollout", 5)])
def test_a_colleague_who_does_not_see_the_jobs_starts_no_second_trainer(tmp_path, submitted, monkeypatch, verb) -> None:
    run = new_run(tmp_path, "slurm")
    record(run.jobs_dir, Submission("slurm", "train", "70", submitted_s=time.time() - 3600, by="alice"))
    slurm(run, monkeypatch, sacct="", squeue="")
    with pytest.raises(ClusterError, match=r"whether 70 of stub still live: alice submitted them, .*hidden") as caught:
        verb(run)
    assert "squeue --user=alice" in caught.value.remedy and submitted == []
    assert status(run)["state"] == "unknown" and "ask alice whether they live" in status(run)["next"]
    (written,) = tmp_path.glob(str(Path(caught.value.remedy.rpartition("remove ")[2]).relative_to(tmp_path)))
    written.unlink()  # as the message says
    verb(run)
    assert submitted


def hold(run: RunDir, *holders: str) -> None:
    """Let each have a shard of prompts."""
    for number, holder in enumerate(holders):
        run.queue("prompts").put(f"g{number:08d}-0001", [prompt()])
        assert run.queue("prompts").claim(holder)


def held(run: RunDir) -> list[int]:
    return sorted(int(name[1:9]) for name in run.queue("prompts").names()["leased"])


def test_resume_puts_back_at_once_what_ended_tasks_held_and_nothing_else(run, submitted, monkeypatch) -> None:
    slurm(run, monkeypatch, sacct=NO_ACCOUNTING, squeue=listed("71_0|RUNNING"))
    hold(run, "71_0", "71_1", "71_1.0", "99", "72_1", "71_10")
    control.resume(run)
    assert held(run) == [0, 3, 4, 5]
    assert run.queue("prompts").claim("next").attempt == 1


def test_resume_of_a_local_run_puts_back_what_dead_processes_held(tmp_path, submitted) -> None:
    run = new_run(tmp_path, "local")
    ended = subprocess.Popen(["true"])
    ended.wait()
    for pid, started in ((os.getpid(), start_ticks(os.getpid())), (ended.pid, 1)):
        record(run.jobs_dir, Submission("local", "rollout", str(pid), started=started))
    holders = f"local-{os.getpid()}", f"local-{ended.pid}"
    hold(run, *holders)
    askers = [Claims(run.decisions_dir, holder, 1000.0) for holder in (*holders, "next")]
    for asker, holder in zip(askers, holders, strict=False):
        asker.take({holder})
    control.resume(run)
    assert held(run) == [0]
    assert askers[2].take(set(holders)) == {holders[1]}, "what the dead one was asking is free too"
    for asker in askers:
        asker.leave()


def test_a_process_id_used_again_keeps_its_shards(tmp_path, submitted) -> None:
    run = new_run(tmp_path, "local")
    for started in (1, start_ticks(os.getpid())):
        record(run.jobs_dir, Submission("local", "rollout", str(os.getpid()), started=started))
    hold(run, f"local-{os.getpid()}")
    control.resume(run)
    assert held(run) == [0]


def local_job(run: RunDir, **fields: str) -> None:
    record(run.jobs_dir, Submission("local", "verify", str(os.getpid()), started=1, **fields))


def test_a_local_run_whose_tasks_still_obey_a_stop_is_not_resumed(tmp_path, submitted) -> None:
    """They would count as there, and be gone a moment later."""
    run = new_run(tmp_path, "local")
    record(run.jobs_dir, Submission("local", "verify", str(os.getpid()), started=start_ticks(os.getpid())))
    run.request_stop("enough")
    with pytest.raises(ClusterError, match=f"local-{os.getpid()} of stub were asked to stop and are still ending"):
        control.resume(run)
    assert run.stop_reason() == "enough" and submitted == []
    run.clear_stop()
    control.resume(run)
    assert submitted == [{"train": 1, "rollout": 1}]


def test_a_local_run_goes_on_under_the_hosts_new_name(tmp_path, submitted) -> None:
    run = new_run(tmp_path, "local")
    local_job(run, host="the-old-name")
    control.resume(run)
    assert submitted == [{"train": 1, "rollout": 1, "verify": 1}]


def test_a_local_run_of_another_machine_is_not_started_twice(tmp_path, submitted) -> None:
    run = new_run(tmp_path, "local")
    local_job(run, host="elsewhere", machine="another")
    with pytest.raises(ClusterError, match=r"cannot be seen from here: it was started on elsewhere") as caught:
        control.resume(run)
    assert submitted == []
    pattern = caught.value.remedy.rpartition("remove ")[2]
    (written,) = run.jobs_dir.parent.parent.glob(str(Path(pattern).relative_to(tmp_path)))
    written.unlink()  # as the message says
    control.resume(run)
    assert submitted == [{"train": 1, "rollout": 1, "verify": 1}]


@pytest.mark.parametrize("now", [False, True])
def test_stop_says_where_nothing_runs(run, monkeypatch, now) -> None:
    slurm(run, monkeypatch, sacct=NO_ACCOUNTING, squeue="")
    assert control.stop(run, now=now) == ["nothing of stub runs"]
    assert run.stop_reason()


def test_a_finished_run_is_not_sent_to_resume(run, monkeypatch, capsys) -> None:
    slurm(run, monkeypatch, sacct=NO_ACCOUNTING, squeue="")
    run.finish({})
    with pytest.raises(ClusterError, match="stub is finished") as caught:
        control.scale(run, "rollout", 3)
    assert "run.name" in caught.value.remedy
    assert verbs.stop(Namespace(run=str(run.root), now=False)) == 0
    said = capsys.readouterr().out
    assert f"submit.py report {run.root}" in said and "resume" not in said
