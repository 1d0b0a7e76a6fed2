"""Watching: a line for what happens, the result at the end, a gone role said with its log, Ctrl-C harmless."""

import subprocess
import sys
import time
from argparse import Namespace
from dataclasses import replace
from types import SimpleNamespace

import pytest
from rich.console import Console

from grhpc.cluster.job import start_ticks
from grhpc.cluster.submissions import Submission, record
from grhpc.report import follow, logs, status
from grhpc.report import watch as watching
from grhpc.report.follow import Following
from grhpc.report.logs import log_files, tail
from grhpc.report.watch import watch
from grhpc.store.rundir import RunDir


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(follow, "GONE_S", 0.2)
    monkeypatch.setattr(watching, "POLL_S", 0.05)
    monkeypatch.setitem(follow.JOBS_EVERY_S, "local", 0.05)


ROLES = ("train", "rollout", "verify")


class Sleepers:
    """A live local job for every role."""

    def __init__(self, run):
        words = [sys.executable, "-c", "import time; time.sleep(300)"]
        self.processes = [subprocess.Popen(words) for _ in ROLES]
        for role, process in zip(ROLES, self.processes, strict=True):
            job = Submission("local", role, str(process.pid), started=start_ticks(process.pid))
            record(run.jobs_dir, job)

    def all_live(self):
        return all(process.poll() is None for process in self.processes)

    def end(self):
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture
def when_said(monkeypatch, capsys):
    """A function: [(words, act), ...] -> what was printed so far, as a function.

    At a pause of `watch` or `logs --follow` the next act is done if its words were printed by then, so nothing is left
    to time. Every pause is short, and there are only so many.
    """
    pauses, text = iter(range(1000)), [""]

    def said():
        text[0] += capsys.readouterr().out
        return text[0]

    def prepare(*acts):
        waiting = list(acts)

        def pause(seconds):
            next(pauses)
            time.sleep(0.005)  # or a fast machine has had them all before any time has passed
            if waiting and waiting[0][0] in said():
                waiting.pop(0)[1]()

        for module in (watching, logs):
            monkeypatch.setattr(module, "time", SimpleNamespace(sleep=pause, monotonic=time.monotonic, time=time.time))
        return said

    return prepare


@pytest.fixture
def sleepers(small):
    made = Sleepers(small.run)
    yield made
    made.end()


def test_a_finished_run_ends_with_lines_and_its_result(small, capsys):
    small.run.finish({"step": 2})
    assert watch(small.run) == 0
    out = capsys.readouterr().out
    assert "step    1 of 3: reward 0.250, accepted 50 % (4 yes, 3 no, 1 no_answer, 0 no_verdict)" in out
    assert "held-out at weights 2: accepted 70 %, true 70 %" in out
    assert "verdicts: yes 8" in out and "picture:" in out


def test_a_gone_role_is_named_with_the_end_of_its_log(small, sleepers, capsys):
    log = small.run.logs_dir / "train" / "1_0_log.out"
    log.parent.mkdir()
    log.write_text("loading\nMemoryError \x1b[2J at step 2\n")
    sleepers.end()
    assert watch(small.run) == 1
    out = capsys.readouterr().out
    assert "error: no train task is left" in out and "MemoryError \\x1b[2J at step 2" in out
    assert "resume tiny --watch" in out


def test_a_task_that_dies_beside_others_is_said_once(small, sleepers, when_said):
    job = Submission("local", "rollout", str(sleepers.processes[1].pid), started=start_ticks(sleepers.processes[1].pid))
    beside = subprocess.Popen(["sleep", "300"])
    record(small.run.jobs_dir, Submission("local", "rollout", str(beside.pid), started=start_ticks(beside.pid)))

    def die():
        sleepers.processes[1].kill(), sleepers.processes[1].wait()
        (small.run.jobs_dir / f"local-{job.job_id}-{job.started}.0.signal").write_text("1764000000.000 9\n")

    said = f"rollout local-{job.job_id}: FAILED by SIGKILL"
    try:
        told = when_said(
            ("step    2 of 3", die), (said, lambda: time.sleep(0.2)), ("", lambda: small.run.finish({"step": 2}))
        )
        assert watch(small.run) == 0 and told().count(said) == 1
    finally:
        beside.kill(), beside.wait()


def test_a_signal_after_a_tasks_last_words_is_no_failure(small, sleepers):
    """As of a library that falls over while the interpreter ends."""
    job = Submission("local", "rollout", "4242", started=7)
    record(small.run.jobs_dir, job)
    (small.run.jobs_dir / "local-4242-7.0.signal").write_text("1764000000.000 11\n")
    following = Following(small.run)
    following.poll()
    assert [died.words for died in following.died.values()] == ["FAILED by SIGSEGV"]
    small.run.events("rollout", "local-4242").emit("stop", reason="the run is finished")
    following = Following(small.run)
    following.poll()
    assert not following.died and "COMPLETED" in {job.words for job in following.jobs}


def test_a_task_that_stopped_hides_no_other_of_its_job_that_was_killed(small, sleepers):
    record(small.run.jobs_dir, Submission("local", "rollout", "4242", started=7))
    (small.run.jobs_dir / "local-4242-7.1.signal").write_text("1764000000.000 9\n")
    small.run.events("rollout", "local-4242.1").emit("shard")
    small.run.events("rollout", "local-4242.0").emit("stop", reason="the run is finished")
    failed = status.status(small.run)["roles"]["rollout"]["failed"]
    assert "local-4242 FAILED by SIGKILL" in failed


def test_what_nobody_submitted_yet_is_awaited_and_said_at_once(small, when_said):
    """`start --no-launch`, and then this before any sbatch: not the end of the run."""
    waits = "waits for train, rollout, verify: not submitted yet; looks for 30 min 0 s (store.wait_s)"
    said = when_said((waits, lambda: time.sleep(2 * follow.GONE_S)), (waits, lambda: small.run.finish({"step": 2})))
    assert watch(small.run) == 0
    assert said().count("not submitted yet") == 1 and "how to submit: python submit.py status tiny" in said()


def test_a_role_that_was_submitted_is_gone_though_another_was_not_yet(small, sleepers, capsys):
    for path in small.run.jobs_dir.glob("*-verify-*.json"):
        path.unlink()
    following = Following(small.run)
    following.poll()
    assert following.awaited_roles() == ["verify"] and following.gone_roles() == []
    sleepers.end()
    assert watch(small.run) == 1
    out = capsys.readouterr().out
    assert "no train task is left" in out and "no verify task" not in out


def test_the_wait_for_what_nobody_submits_ends(small, capsys):
    config = small.run.config()
    small.run.amend(replace(config, store=replace(config.store, wait_s=0.3)))
    assert watch(small.run) == 1
    assert "error: no train task is left (no job)" in capsys.readouterr().out


def test_a_stop_is_followed_while_a_role_still_works(small, sleepers, when_said, monkeypatch):
    """Its rollout tasks are gone long before the trainer has saved."""
    monkeypatch.setattr(watching, "STILL_HERE_S", -1.0)
    sleepers.processes[1].kill(), sleepers.processes[1].wait()
    small.run.request_stop("enough")
    said = when_said(
        ("rollout: ended", lambda: time.sleep(2 * follow.GONE_S)),
        ("rollout: ended", sleepers.end),
        ("train: ended", lambda: time.sleep(2 * follow.GONE_S)),
    )
    assert watch(small.run) == 0 and "stopped at step 2: enough" in said()


def test_a_stopped_run_ends_quietly(small, sleepers, capsys):
    small.run.request_stop("enough for today")
    sleepers.end()
    assert watch(small.run) == 0
    assert "stopped at step 2: enough for today" in capsys.readouterr().out


def test_a_live_run_is_followed_until_it_finishes(small, sleepers, when_said):
    def go_on():
        small.emit_step(small.run.events("train", "local-0"), 3, reward=0.75)
        small.run.finish({"step": 3})

    said = when_said(("step    2 of 3", go_on))
    assert watch(small.run) == 0
    assert "step    3 of 3: reward 0.750" in said()


def test_what_came_while_it_looked_is_told_before_the_end(small, sleepers, capsys, monkeypatch):
    poll = Following.poll

    def and_then(following):
        fresh = poll(following)
        if not small.run.finished():
            small.emit_step(small.run.events("train", "local-0"), 3, reward=0.75)
            small.run.finish({"step": 3})
        return fresh

    monkeypatch.setattr(Following, "poll", and_then)
    assert watch(small.run) == 0
    assert "step    3 of 3: reward 0.750" in capsys.readouterr().out


def test_ctrl_c_leaves_the_run_and_says_how_to_look_again(small, sleepers, capsys, monkeypatch):
    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(watching.time, "sleep", interrupt)
    assert watch(small.run) == 130
    assert "python submit.py status tiny --watch" in capsys.readouterr().out
    assert small.run.stop_reason() is None and sleepers.all_live()


def test_without_news_it_says_what_it_waits_for(small, sleepers, monkeypatch, when_said):
    monkeypatch.setattr(watching, "STILL_HERE_S", -1.0)
    waits = "train: waits for 4 more judged groups"
    said = when_said((waits, lambda: small.run.finish({"step": 2})))
    assert watch(small.run) == 0 and waits in said()


def test_the_terminals_display_shows_progress_roles_and_curves(small, sleepers):
    following = Following(small.run)
    following.poll()
    console = Console(width=120, force_terminal=False, file=None, record=True)
    with console.capture() as capture:
        console.print(watching._display(following))
    text = capture.get()
    assert "step 2 of 3" in text and "waits for 4 more judged groups" in text
    assert "held-out true" in text and "●" in text


def test_events_are_seen_once_and_torn_lines_wait_for_their_end(small):
    following = Following(small.run)
    following.poll()
    with (small.run.events_dir / "verify-local-2.jsonl").open("a") as file:
        file.write('{"t": 9e9, "event": "dra')
        file.flush()
        assert following.poll() == []
        file.write('in", "role": "verify", "reason": "time"}\n')
        file.flush()
        assert [event["event"] for event in following.poll()] == ["drain"]
    assert following.poll() == []


def test_the_newest_logs_end_printable(small):
    folder = small.run.logs_dir / "rollout"
    folder.mkdir()
    for i in range(12):
        (folder / f"{i}_log.out").write_bytes(b"a\n" * 100 + b"last \x1b]0;x\x07 line\xff\n")
    files = log_files(small.run, "rollout")
    assert len(files) == 8
    assert tail(files[-1], 2) == ["a", "last \\x1b]0;x\\x07 line\ufffd"]


def test_logs_are_shown_and_followed_to_the_runs_end(small, when_said):
    log = small.run.logs_dir / "verify" / "7_0_log.out"
    log.parent.mkdir()
    log.write_text("first\n")

    def go_on():
        with log.open("a") as file:
            file.write("second\n")

    said = when_said(("first", go_on), ("second", lambda: small.run.finish({"step": 2})))
    assert logs.command(Namespace(run=str(small.run.root), role="verify", lines=5, follow=True)) == 0
    assert f"== {log}\nfirst\n" in said() and "verify 7_0_log | second" in said()


def test_a_logs_last_words_are_shown_though_the_run_ends_with_them(small, when_said, monkeypatch):
    log = small.run.logs_dir / "verify" / "7_0_log.out"
    log.parent.mkdir()
    log.write_text("first\n")
    said, finished = when_said(("first", lambda: small.run.finish({"step": 2}))), RunDir.finished

    def and_then(run):
        if over := finished(run):
            log.write_text("first\nlast\n")
        return over

    monkeypatch.setattr(RunDir, "finished", and_then)
    assert logs.command(Namespace(run=str(small.run.root), role="verify", lines=5, follow=True)) == 0
    assert "verify 7_0_log | last" in said()


def test_an_earlier_runs_events_are_told_by_their_own_times_and_without_its_pauses(small, sleepers, capsys):
    with (small.run.events_dir / "rollout-local-9.jsonl").open("w") as file:
        for t, event in ((1000, "start"), (1042, "ready"), (1050, "stop")):
            file.write(f'{{"t": {t}, "event": "{event}", "role": "rollout", "job": "local-9"}}\n')
    with (small.run.events_dir / "train-local-8.jsonl").open("w") as file:
        step = '"event": "step", "role": "train", "job": "local-8", "wait_s": 2, "train_s": 8'
        file.write(f'{{"t": 1000, "step": 1, {step}}}\n{{"t": 90000, "step": 2, {step}}}\n')
        file.write('{"t": 900, "event": "resume", "role": "train", "job": "local-8", "step": 0, "generation": 1}\n')
    (small.run.events_dir / "train-local-0.jsonl").unlink()
    following = Following(small.run)
    said = [watching._line(event, following) for event in following.poll()]
    assert "rollout local-9: ready after 42 s" in said and "train local-8: begins" in said
    assert watching._remaining(following) == ", about 10 s to go"  # one step is left
    assert following.doing("rollout") != "2 tasks"  # one of the two ended


def test_where_only_the_launcher_wrote_the_events_are_shown(small, capsys):
    for role in ("train", "verify"):
        (small.run.logs_dir / role).mkdir()
        (small.run.logs_dir / role / "launch.log").touch()
    (small.run.logs_dir / "train" / "7_0_log.out").write_text("submitit INFO - Exiting after successful completion\n")
    (small.run.logs_dir / "verify" / "8_0_log.out").write_text("a warning\nsubmitit INFO - Exiting\n")
    small.run.events("train", "7").emit("drain", reason="enough \x1b[2J", wait_s=1.23456)
    small.run.events("train", "7").emit("waiting", **{"for": "shards"}, since_s=time.time() - 185.2)
    small.run.events("verify", "8").emit("drain", reason="unseen")
    assert logs.command(Namespace(run=str(small.run.root), role="", lines=5, follow=False)) == 0
    said = capsys.readouterr().out
    assert "launch.log" not in said and "a warning\n" in said and "unseen" not in said
    assert "== the last events of train\n" in said and "reason enough \\x1b[2J, wait_s 1.235\n" in said
    assert "waiting: job 7, for shards, already 3 min 5 s\n" in said
