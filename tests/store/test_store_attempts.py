"""What spends one of a shard's attempts: work that failed, not a life that was cut short. docs/queue.md says it."""

import re
import time

import pytest
from store_asking import still
from store_task import STORE, Task

from grhpc.errors import EngineError, WaitTimeout
from grhpc.lifetime import Lifetime
from grhpc.store import serving
from grhpc.store.claims import Claims
from grhpc.store.serving import CutShort


def test_a_failure_counts_as_an_attempt_and_a_cut_does_not(tmp_path):
    faults = iter([CutShort("moved"), EngineError("broke"), ValueError("odd")])

    def work(task, lease):
        attempts.append(lease.attempt)
        if fault := next(faults, None):
            raise fault

    attempts: list[int] = []
    task = Task(tmp_path, work=work).put("g00000000-0001")
    task.serve()
    assert attempts == [1, 1, 2, 3]
    assert [e["problem"] for e in task.told("error")] == ["broke", "ValueError: odd"]


def test_a_wait_that_ended_costs_no_attempt(tmp_path):
    faults = iter([WaitTimeout("no weights")] * 3)
    attempts: list[int] = []

    def work(task, lease):
        attempts.append(lease.attempt)
        if fault := next(faults, None):
            raise fault

    Task(tmp_path, work=work).put("g00000000-0001").serve()
    assert attempts == [1, 1, 1, 1]


def test_a_failure_while_draining_is_the_drain(tmp_path):
    """The engine's children may have died of the very signal."""

    def work(task, lease):
        task.life.drain("signal SIGTERM")
        raise EngineError("the engine's process died")

    task = Task(tmp_path, work=work).put("g00000000-0001")
    assert task.serve() == "signal SIGTERM"
    assert task.queue.claim("next").attempt == 1
    assert task.told("error") == []


def until_the_end(task, lease):
    """Work that the end of the life cuts, with the clock turned on instead of slept."""
    if len(task.worked) > task.done_first:
        task.life.end_s = time.time() + 5
        task.life.drain("signal SIGUSR2")
        raise CutShort("signal SIGUSR2")


@pytest.mark.parametrize(
    ("done_first", "end_s", "attempt"), [(0, 1000.0, 2), (0, None, 1)], ids=["the whole life", "no end"]
)
def test_a_shard_that_a_whole_life_was_too_short_for_has_spent_an_attempt(tmp_path, done_first, end_s, attempt):
    task = Task(tmp_path, work=until_the_end).put("g00000000-0001")
    task.done_first, task.life.end_s = done_first, end_s and time.time() + end_s
    task.serve()
    assert task.queue.claim("next").attempt == attempt
    assert [e["shard"] for e in task.told("cut")] == ["g00000000-0001"]


def test_a_shard_that_fits_into_no_life_is_given_up_in_the_end(tmp_path):
    task = Task(tmp_path, work=until_the_end).put("g00000000-0001")
    task.done_first = 0
    for _ in range(STORE.max_attempts):
        task.life = Lifetime(job="local-1", end_s=time.time() + 1000)
        task.worked.clear()
        task.serve()
    (failed,) = task.queue.failed()
    life = re.search(r"not done in a whole life of (\d+) s: raise the role's time_min", failed.reason)
    assert life and 900 < int(life[1]) <= 1000


@pytest.mark.parametrize("left_s", [995.0, 400.0, 185.0])
def test_a_preempted_shard_has_spent_none_wherever_its_life_was(tmp_path, left_s):
    """Though it had the life from its begin: the end of the allocation was not near."""

    def preempt(task, lease):
        task.life.end_s = time.time() + left_s
        task.life.drain("signal SIGTERM")
        raise CutShort("signal SIGTERM")

    task = Task(tmp_path, work=preempt).put("g00000000-0001")
    task.life.end_s, task.life.warning_s = time.time() + 1000, 120.0
    task.serve()
    assert task.queue.claim("next").attempt == 1


def test_work_that_does_not_hear_of_a_drain_keeps_no_shard(tmp_path, monkeypatch):
    """Killed where it stands, SLURM's half minute later, it would look like one whose shard had killed it."""
    monkeypatch.setattr(serving, "_DEAF_S", 0.05)
    after: list[dict[str, int]] = []

    def deaf(task, lease):
        task.life.drain("signal SIGTERM")
        until_s = time.monotonic() + 60
        while not task.queue.counts()["ready"] and time.monotonic() < until_s:
            time.sleep(0.01)
        after.append(task.queue.counts())

    task = Task(tmp_path, work=deaf).put("g00000000-0001")
    assert task.serve() == "signal SIGTERM"
    assert after == [{"ready": 1, "leased": 0, "failed": 0}]
    assert task.queue.claim("next").attempt == 1


@pytest.mark.parametrize(("after_crash", "attempt"), [(False, 1), (True, 2)])
def test_the_next_life_of_a_job_puts_back_what_the_last_one_held(tmp_path, after_crash, attempt):
    """At once, and as an attempt only where the task itself broke: not where its node did, or it was preempted."""
    attempts: list[int] = []
    task = Task(tmp_path, work=lambda task, lease: attempts.append(lease.attempt)).put("g00000000-0001")
    task.queue.claim("4711_2")
    task.life = Lifetime(job="4711_2", restart=1, after_crash=after_crash)
    task.prepare = lambda: task.run.request_stop("all done") if task.worked else None
    task.serve()
    assert attempts == [attempt]


def test_the_next_life_of_a_job_frees_what_the_last_one_was_asking_the_judge(tmp_path):
    task = Task(tmp_path)
    still(Claims(task.run.decisions_dir, "4711_2", 1000.0)).take({"a question"})
    for restart, holder in ((0, "4711_2"), (1, "")):
        task.life = Lifetime(job="4711_2", restart=restart)
        task.life.drain("not to work")
        task.serve()
        assert Claims(task.run.decisions_dir, "4711_3", 1000.0).holder("a question") == holder


def test_a_shard_that_breaks_every_life_is_given_up(tmp_path):
    task = Task(tmp_path).put("g00000000-0001")
    for restart in range(STORE.max_attempts):
        assert task.queue.claim("4711_2").attempt == restart + 1
        task.life = Lifetime(job="4711_2", restart=restart + 1, after_crash=True)
        task.prepare = lambda: task.life.drain("enough for this test")
        task.life.drain("not to work")
        task.serve()
    (failed,) = task.queue.failed()
    assert failed.reason == "4711_2 crashed with it (attempt 3 of 3)"


def test_only_a_later_life_takes_back_and_only_its_own(tmp_path):
    task = Task(tmp_path).put("g00000000-0001", "g00000001-0001")
    task.queue.claim("4711_1"), task.queue.claim("4711_2")
    for restart, put_back in ((0, set()), (1, {"g00000000-0001"})):
        task.life = Lifetime(job="4711_1", restart=restart)
        task.life.drain("not to work")
        task.serve()
        assert task.queue.names()["ready"] == put_back


def test_a_shard_begun_late_in_a_life_has_spent_none(tmp_path):
    def late(task):
        if task.worked:
            task.life.end_s = time.time() + 600

    task = Task(tmp_path, work=until_the_end, prepare=late).put("g00000000-0001", "g00000001-0001")
    task.done_first, task.life.end_s = 1, time.time() + 1000
    task.serve()
    assert task.worked == ["g00000000-0001", "g00000001-0001"]
    assert task.queue.claim("next").attempt == 1
