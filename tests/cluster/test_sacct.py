"""What sacct and squeue print, as captured from SLURM 22.05, and what it means."""

import getpass
import os
import subprocess
import time
from pathlib import Path

import pytest

from grhpc.cluster import sacct, states
from grhpc.cluster.submissions import Submission, record
from tests.cluster.conftest import new_run

SACCT = """\
1|CANCELLED by 0|0:0|1795303855|1795303855|1795303874|n1|None
3|REQUEUED|0:0|1795303855|1795303855|1795303877|n[1-2]|None
2_0|RUNNING|0:0|1795303855|1795303855|Unknown|n1|None
2_1|CANCELLED by 1000|0:0|1795303855|1795303855|1795303874|n1|None
2_2|REQUEUED|0:0|1795303855|1795303855|1795303875|n1|None
5|NODE_FAIL|1:0|1795303855|1795303855|1795303875|n1|None
6|FAILED|2:0|1795303855|1795303855|1795303875|n1|None
7_[3-5,8%2]|PENDING|0:0|1795303855|Unknown|Unknown|None assigned|JobArrayTaskLimit
3|RUNNING|0:0|1795303877|1795303883|Unknown|n[1-2]|BeginTime
2_2|PENDING|0:0|1795303878|Unknown|Unknown|None assigned|BeginTime
"""
SQUEUE = """\
9_8|PENDING||1795303918|N/A|N/A||JobArrayTaskLimit
9_0|RUNNING||1795303918|1795303918|1795304518|n3|None
4|CANCELLED||1795303877|1795303889|1795303918|n4|None
"""


def test_newest_line_of_a_job_counts_and_the_older_are_its_restarts() -> None:
    found = sacct.parse(SACCT)
    assert (found["3"].state, found["3"].restarts, found["3"].node) == ("RUNNING", 1, "n[1-2]")
    assert found["3"].submitted_s == 1795303877 and found["3"].since_s == 1795303883
    assert (found["2_2"].state, found["2_2"].kind, found["2_2"].reason) == ("PENDING", states.WAITING, "BeginTime")
    assert (found["2_0"].restarts, found["2_0"].ended_s) == (0, None)


def test_states_with_more_words_and_exit_codes() -> None:
    found = sacct.parse(SACCT)
    assert (found["1"].state, found["1"].kind, found["2_1"].state) == ("CANCELLED", states.FAILED, "CANCELLED")
    assert (found["5"].kind, found["5"].live) == (states.RETURNING, True)
    assert (found["6"].kind, found["6"].exit_code) == (states.FAILED, "2:0")


def test_tasks_that_wait_together_are_told_apart() -> None:
    found = sacct.parse(SACCT)
    assert [i for i in found if i.startswith("7_")] == ["7_3", "7_4", "7_5", "7_8"]
    assert found["7_8"].reason == "JobArrayTaskLimit" and found["7_8"].node == ""
    assert list(sacct.expand("7_[0-6:3,9]")) == ["7_0", "7_3", "7_6", "7_9"]


def test_squeue_speaks_the_same_form() -> None:
    found = sacct.parse(SQUEUE)
    assert [(j.job_id, j.kind) for j in found.values()] == [
        ("9_8", states.WAITING),
        ("9_0", states.RUNNING),
        ("4", states.FAILED),
    ]


def test_every_state_of_the_manual_is_understood() -> None:
    manual = """BOOT_FAIL CANCELLED COMPLETED CONFIGURING COMPLETING DEADLINE FAILED NODE_FAIL OUT_OF_MEMORY PENDING
        PREEMPTED RUNNING RESV_DEL_HOLD REQUEUE_FED REQUEUE_HOLD REQUEUED RESIZING REVOKED SIGNALING SPECIAL_EXIT
        STAGE_OUT STOPPED SUSPENDED TIMEOUT""".split()
    assert all(states.kind(state) != states.UNKNOWN for state in manual)
    not_ends = ("NODE_FAIL", "PREEMPTED", "REQUEUED", "COMPLETING", "RESIZING", "SUSPENDED")
    assert all(states.kind(state) in states.LIVE for state in not_ends)
    assert states.kind("A_NEW_STATE") == states.UNKNOWN and states.kind("") == states.UNKNOWN
    assert states.kind("completed+") == states.DONE


def put_on_path(folder: Path, monkeypatch: pytest.MonkeyPatch, **programs: str) -> Path:
    """Programs by their shell text, found before any other; each call adds a line to calls.txt."""
    for name, text in programs.items():
        path = folder / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >> {folder}/calls.txt\n{text}\n')
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder / "calls.txt"


def submitted(folder: Path, age_s: float = 10.0):
    run = new_run(folder, "slurm")
    now = time.time()
    record(run.jobs_dir, Submission("slurm", "train", "3", submitted_s=now - age_s))
    record(run.jobs_dir, Submission("slurm", "rollout", "2", tasks=3, submitted_s=now - age_s + 0.01))
    record(run.jobs_dir, Submission("slurm", "verify", "77", submitted_s=now - age_s + 0.02))
    return run


def test_one_call_for_all_jobs_joined_with_what_was_submitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = put_on_path(tmp_path, monkeypatch, sacct=f"cat <<'X'\n{SACCT}X", squeue="")
    tasks = sacct.tasks_of(submitted(tmp_path))
    assert [(t.role, t.name, t.state) for t in tasks] == [
        ("train", "3", "RUNNING"),
        ("rollout", "2_0", "RUNNING"),
        ("rollout", "2_1", "CANCELLED"),
        ("rollout", "2_2", "PENDING"),
        ("verify", "77", "SUBMITTED"),  # accounting lags: a young job that it does not know waits
    ]
    assert [t.live for t in tasks] == [True, True, False, True, True]
    (call,) = calls.read_text().splitlines()
    assert "-j 3,2,77" in call


def test_without_accounting_squeue_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = SACCT.replace("None assigned", "")
    calls = put_on_path(
        tmp_path,
        monkeypatch,
        sacct="echo Slurm accounting storage is disabled >&2; exit 1",
        squeue=f"cat <<'X'\n{queue}X",
    )
    tasks = sacct.tasks_of(submitted(tmp_path))
    assert [t.state for t in tasks][:2] == ["RUNNING", "RUNNING"]
    assert (tasks[-1].state, tasks[-1].kind) == ("ENDED", states.DONE)  # it answers, and does not list this one
    assert [line.split()[0] for line in calls.read_text().splitlines()] == ["sacct", "squeue"]


@pytest.mark.parametrize("age_s", [10, 3600])
def test_no_answer_is_unknown_and_not_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age_s: float) -> None:
    put_on_path(tmp_path, monkeypatch, sacct="exit 1", squeue="exit 1")
    assert {task.kind for task in sacct.tasks_of(submitted(tmp_path, age_s))} == {states.UNKNOWN}


def test_what_accounting_should_know_and_does_not_is_asked_of_squeue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = submitted(tmp_path, age_s=3600)
    calls = put_on_path(tmp_path, monkeypatch, sacct=f"cat <<'X'\n{SACCT}X", squeue=f"cat <<'X'\n{SQUEUE}X")
    assert [t.state for t in sacct.tasks_of(run)] == ["RUNNING", "RUNNING", "CANCELLED", "PENDING", "ENDED"]
    assert [line.split()[0] for line in calls.read_text().splitlines()] == ["sacct", "squeue"]
    put_on_path(tmp_path, monkeypatch, squeue="exit 1")
    assert sacct.tasks_of(run)[-1].kind == states.UNKNOWN


def test_another_persons_job_that_is_not_listed_may_be_hidden_and_has_not_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under PrivateData=jobs SLURM answers, and shows a colleague nothing of a run that lives."""
    run = new_run(tmp_path, "slurm")
    for job_id, by in (("5", "a-colleague"), ("6", getpass.getuser()), ("7", "")):
        record(run.jobs_dir, Submission("slurm", "verify", job_id, submitted_s=time.time() - 3600, by=by))
    for answer in ("exit 1", ""):
        put_on_path(tmp_path, monkeypatch, sacct=answer, squeue="")
        found = {task.job_id: (task.state, task.kind, task.by) for task in sacct.tasks_of(run)}
        ours = ("ENDED", states.DONE, getpass.getuser())
        assert found == {"5": ("HIDDEN", states.UNKNOWN, "a-colleague"), "6": ours, "7": ours}


def test_job_that_never_came_back_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = "3|NODE_FAIL|1:0|1795303855|1795303855|1795303875|n1|None"
    put_on_path(tmp_path, monkeypatch, sacct=f"echo '{line}'", squeue="")
    run = submitted(tmp_path)
    assert sacct.tasks_of(run, now_s=1795303875 + 60)[0].kind == states.RETURNING
    assert sacct.tasks_of(run, now_s=1795303875 + 7200)[0].kind == states.FAILED


def test_slurm_without_its_configuration_is_not_asked_and_one_that_is_gone_not_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_on_path(tmp_path, monkeypatch, sacct="exec sleep 60", squeue="exec sleep 60")
    monkeypatch.setattr(sacct, "ANSWER_S", 0.2)
    run, asked, ask = submitted(tmp_path), [], subprocess.run
    monkeypatch.setattr(sacct.subprocess, "run", lambda words, **more: asked.append(words[0]) or ask(words, **more))
    assert {task.kind for task in sacct.tasks_of(run)} == {states.UNKNOWN}
    assert asked == ["sacct", "squeue"]
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "nowhere.conf"))
    assert {task.kind for task in sacct.tasks_of(run)} == {states.UNKNOWN}
    assert asked == ["sacct", "squeue"]
