"""Status: SLURM's view joined with the run directory's, also where they disagree or one is silent."""

import json
import os
import threading
import time
from argparse import Namespace

import pytest

from grhpc.cluster import sacct
from grhpc.cluster.sbatch import LISTEN
from grhpc.cluster.submissions import Submission, record, record_target
from grhpc.report import status as status_module
from grhpc.report.roles import MOST_CRASHES
from grhpc.report.status import lines, status
from tests.cluster.conftest import new_run

FAKE_SACCT = """#!/bin/sh
echo x >> {calls}
cat {answer}
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A function: lines that sacct answers -> a file with one line a call."""
    folder = tmp_path / "bin"
    folder.mkdir()
    calls, answer, sacct = folder / "calls", folder / "answer", folder / "sacct"
    sacct.write_text(FAKE_SACCT.format(calls=calls, answer=answer))
    sacct.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def make(*text):
        answer.write_text("\n".join(text) + "\n")
        return calls

    return make


def line(job_id, state, reason="None"):
    now = int(time.time())
    return f"{job_id}|{state}|0:0|{now - 100}|{now - 90}|Unknown|n1|{reason}"


def test_the_run_directorys_part(small):
    found = status(small.run)
    assert (found["step"], found["steps"]) == (2, 3)
    assert found["groups"] == {"admitted": 12, "in_flight": 4, "trained": 8, "dropped": {}}
    assert found["queues"]["prompts"] == {"ready": 1, "leased": 0, "failed": 0}
    assert found["last_step"]["reward_mean"] == 0.5
    [wait] = found["waits"]
    assert (wait["role"], wait["for"]) == ("train", "4 more judged groups") and 64 < wait["seconds"] < 80
    json.dumps(found)


def test_without_jobs_the_run_is_broken_off_and_says_what_to_do(small):
    found = status(small.run)
    assert found["state"] == "broken off" and "resume tiny" in found["next"]
    assert lines(found)[-1].startswith("next: ")


def test_finished_and_stopped_are_told_apart(small):
    small.run.request_stop("enough")
    found = status(small.run)
    assert found["state"] == "stopped" and lines(found)[0].startswith("tiny: stopped (enough), step 2 of 3")
    small.run.finish({"step": 3})
    assert status(small.run)["state"] == "finished"


def test_jobs_are_joined_in_one_call(small, slurm):
    for role, job, tasks in (("train", "70", 0), ("rollout", "71", 3), ("verify", "72", 2)):
        record(small.run.jobs_dir, Submission("slurm", role, job, tasks))
    calls = slurm(
        line("70", "RUNNING"),
        line("71_0", "RUNNING"),
        line("71_1", "PREEMPTED"),
        line("71_2", "PENDING", "Priority"),
        line("72_0", "RUNNING"),
        line("72_1", "FAILED"),
    )
    found = status(small.run)
    assert len(calls.read_text().split()) == 1
    assert found["state"] == "running"
    assert found["roles"]["rollout"]["states"] == {"RUNNING": 1, "PREEMPTED": 1, "PENDING": 1}
    waits = {(w["role"], w["job"]): w["for"] for w in found["waits"]}
    assert waits["rollout", "71_2"] == "SLURM (Priority)" and ("rollout", "71_1") in waits


def test_a_role_without_a_live_task_is_named(small, slurm):
    for role, job in (("train", "70"), ("rollout", "71"), ("verify", "72")):
        record(small.run.jobs_dir, Submission("slurm", role, job))
    slurm(line("70", "RUNNING"), line("71", "RUNNING"), line("72", "CANCELLED by 1000"))
    assert status(small.run)["next"].startswith("no verify task is there")
    record_target(small.run.jobs_dir, "verify", 0)
    assert status(small.run)["next"].endswith("scale tiny verify 1"), "`resume` would say that all is well"


def test_errors_and_failed_shards_are_listed_with_their_reasons_printable(small):
    small.run.events("rollout", "9").emit("error", problem="engine died \x1b[2J")
    for _ in range(small.run.config().store.max_attempts):
        lease = small.run.queue("prompts").claim("test")
        assert lease is not None
        lease.fail("too hard")
    found = status(small.run)
    assert {f["what"] for f in found["failures"]} == {"rollout 9", "shard prompts/g00000008-0004"}
    text = "\n".join(lines(found))
    assert "too hard" in text and "\x1b" not in text and "\\x1b[2J" in text


def test_a_torn_event_line_is_no_trouble(small):
    with (small.run.events_dir / "train-local-0.jsonl").open("a") as file:
        file.write('{"t": 1, "event": "st')
    assert status(small.run)["step"] == 2


def test_who_changed_which_setting_when_is_said(small):
    settings = {"store.lease_s": [600.0, 60.0], "cluster.train.account": ["", "physics\x1b[2J"]}
    small.run.amend(small.run.config(), changes=[{"t": 1.8e9, "by": "ada", "settings": settings}])
    found = status(small.run)
    assert [line for line in lines(found) if line.startswith("changed: ")] == [
        "changed: store.lease_s 600.0 -> 60.0, by ada, 2027-01-15 08:00 UTC",
        "changed: cluster.train.account '' -> 'physics\\x1b[2J', by ada, 2027-01-15 08:00 UTC",
    ]
    assert found["changes"][0]["settings"] == settings


def test_where_slurm_cannot_be_asked_it_says_so_and_a_finished_run_is_finished(small, slurm, monkeypatch):
    record(small.run.jobs_dir, Submission("slurm", "train", "70"))
    slurm(line("70", "RUNNING"))
    monkeypatch.setenv("SLURM_CONF", "/nowhere/slurm.conf")
    found = status(small.run)
    assert found["state"] == "unknown"
    assert "SLURM_CONF names /nowhere/slurm.conf, which is not there" in found["next"]
    small.run.finish({"step": 3})
    found = status(small.run)
    assert (found["state"], found["roles"]["train"]["states"]) == ("finished", {})


def test_crashes_restarts_and_what_is_gone_are_said_with_the_way_back(small, slurm):
    for role, job, tasks in (("train", "70", 0), ("rollout", "71", 2), ("verify", "72", 0)):
        record(small.run.jobs_dir, Submission("slurm", role, job, tasks))
    (small.run.jobs_dir / "70.crashes").write_text("\n\n")
    small.run.events("train", "70").emit("start", restart=3)
    record_target(small.run.jobs_dir, "rollout", 2)
    slurm(line("70", "RUNNING"), line("71_0", "RUNNING"), line("71_1", "CANCELLED by 0"), line("72", "RUNNING"))
    found = status(small.run)
    text = "\n".join(lines(found))
    assert "train: 1 RUNNING (3 restarts; 2 crashes in a row, 10 end it); last heard" in text
    assert f"-lt {MOST_CRASHES} ]" in "\n".join(LISTEN)
    assert found["next"].startswith("1 of 2 rollout tasks are there (71_1 CANCELLED)")
    assert found["next"].endswith("python submit.py resume tiny")


@pytest.mark.parametrize(("reason", "state"), [("idle", "COMPLETED"), ("error", "ENDED")])
def test_a_local_task_that_said_it_stops_has_completed(small, reason, state):
    record(small.run.jobs_dir, Submission("local", "rollout", "4242", started=1))
    small.run.events("rollout", "local-4242").emit("stop", reason=reason)
    assert status(small.run)["roles"]["rollout"]["states"] == {state: 1}


def test_what_was_not_submitted_yet_is_not_broken_off(tmp_path):
    run = new_run(tmp_path, "slurm")
    run.jobs_dir.mkdir(exist_ok=True)
    for role in ("train", "rollout", "verify"):
        (run.jobs_dir / f"{role}.sbatch").touch()
    found = status(run)
    assert found["state"] == "not submitted yet" and "no weights yet" in lines(found)
    jobs = run.jobs_dir
    assert found["next"].startswith(f"sbatch {jobs}/rollout.sbatch; sbatch {jobs}/verify.sbatch; sbatch {jobs}/train.")


def test_while_slurm_thinks_it_says_that_it_is_asked(tmp_path, slurm, monkeypatch, capsys):
    run = new_run(tmp_path, "slurm")
    record(run.jobs_dir, Submission("slurm", "train", "70"))
    slurm(line("70", "RUNNING"))

    def answers_late(words):
        for thread in threading.enumerate():
            if isinstance(thread, threading.Timer) and thread.function is print:
                thread.join()  # until it has said so

    monkeypatch.setattr(sacct, "_output", answers_late)
    monkeypatch.setattr(status_module, "NOTICE_S", 0.01)
    assert status_module.command(Namespace(run=str(run.root), watch=False, json=False)) == 0
    assert capsys.readouterr().err == "asking SLURM ...\n"
