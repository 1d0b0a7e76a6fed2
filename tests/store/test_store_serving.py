"""The loop that rollout and verify tasks share: when it ends, and what becomes of the shards."""

import dataclasses
import time

import pytest
from store_rows import small_config

from grhpc.config import StoreConfig
from grhpc.errors import CorruptFile, DataError, EngineError, ForeignFile, GaveUp, Unavailable, WaitTimeout
from grhpc.lifetime import Lifetime
from grhpc.records import TRAIN, GroupPrompt
from grhpc.store.events import read_events
from grhpc.store.rundir import RunDir
from grhpc.store.serving import MOST_STARTS, CutShort, serve

PROMPT = GroupPrompt(
    prompt_id="p",
    question="q",
    answer="a",
    answer_type="String",
    category="Other",
    difficulty="",
    token_ids=[1],
    group=0,
    kind=TRAIN,
    epoch=0,
    admitted_version=0,
)
STORE = StoreConfig(poll_min_s=0.01, poll_max_s=0.02, idle_s=300.0, max_attempts=3)


class Task:
    """A run with prompts, and a task that works on them as told."""

    def __init__(self, folder, work=None, prepare=None, idle_s=0.0) -> None:
        store = dataclasses.replace(STORE, idle_s=idle_s or STORE.idle_s)
        self.run = RunDir.create(folder / "r", dataclasses.replace(small_config(), store=store))
        self.queue = self.run.queue("prompts")
        self.life = Lifetime(job="local-1")
        self.worked: list[str] = []
        self._work, self._prepare = work, prepare

    def put(self, *names: str) -> "Task":
        for name in names:
            self.queue.put(name, [PROMPT])
        return self

    def serve(self) -> str:
        return serve(self.run, "prompts", self, self.life, self.run.events("rollout", "local-1"))

    def work(self, lease) -> None:
        self.worked.append(lease.name)
        if self._work:
            self._work(self, lease)
        lease.done()

    def prepare(self) -> None:
        if self._prepare:
            self._prepare(self)
        if not self.queue.counts()["ready"] and self.run.config().store.idle_s == STORE.idle_s:
            self.run.request_stop("all done")

    def told(self, event: str) -> list[dict]:
        return [e for e in read_events(self.run.events_dir) if e["event"] == event]


def test_works_until_it_is_idle(tmp_path):
    task = Task(tmp_path, idle_s=1.0).put("g00000000-0001", "g00000001-0001", "h000001-00000000-0001")
    assert task.serve() == "no prompts for 1 s"
    assert task.worked == ["h000001-00000000-0001", "g00000000-0001", "g00000001-0001"]
    assert task.queue.counts() == {"ready": 0, "leased": 0, "failed": 0}
    assert [e["reason"] for e in task.told("stop")] == ["no prompts for 1 s"]


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (lambda task: task.run.finish({}), "the run is finished"),
        (lambda task: task.run.request_stop("enough"), "enough"),
        (lambda task: task.life.drain("signal SIGUSR2"), "signal SIGUSR2"),
    ],
    ids=["finished", "stopped", "drained"],
)
def test_ends_after_the_shard_in_hand(tmp_path, end, reason):
    task = Task(tmp_path, work=lambda task, lease: end(task)).put("g00000000-0001", "g00000001-0001")
    assert task.serve() == reason
    assert task.worked == ["g00000000-0001"]
    assert task.queue.counts() == {"ready": 1, "leased": 0, "failed": 0}


def test_refuses_a_shard_that_would_not_fit_into_its_life(tmp_path):
    def half_a_second(task, lease):
        time.sleep(0.5)
        task.life.end_s = time.time() + 0.55

    task = Task(tmp_path, work=half_a_second).put("g00000000-0001", "g00000001-0001")
    assert "too few for another shard" in task.serve()
    assert task.worked == ["g00000000-0001"]
    assert task.queue.counts()["ready"] == 1


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


def test_a_poisoned_shard_fails_alone(tmp_path):
    def work(task, lease):
        if lease.name == "g00000000-0001":
            raise EngineError("poison")

    task = Task(tmp_path, work=work).put("g00000000-0001", "g00000001-0001")
    task.serve()
    assert [(f.name, f.attempts) for f in task.queue.failed()] == [("g00000000-0001", 3)]
    assert task.worked[-1] == "g00000001-0001"


def test_three_shards_that_fail_in_a_row_end_the_task(tmp_path):
    def work(task, lease):
        raise EngineError(f"broke on {lease.name}")

    task = Task(tmp_path, work=work).put(*(f"g{g:08d}-0001" for g in range(5)))
    with pytest.raises(EngineError, match="broke on g00000002-0001"):
        task.serve()
    assert task.queue.counts()["leased"] == 0
    assert task.told("stop")[0]["reason"] == "error"


@pytest.mark.parametrize(
    "fault", [ForeignFile("of another run"), CorruptFile("weights v3 are damaged"), KeyboardInterrupt()]
)
def test_what_must_end_the_task_does_so_and_leaves_the_shard(tmp_path, fault):
    def work(task, lease):
        raise fault

    task = Task(tmp_path, work=work).put("g00000000-0001")
    with pytest.raises(type(fault)):
        task.serve()
    assert task.queue.claim("next").attempt == 1


def test_a_failure_while_draining_is_the_drain(tmp_path):
    """The engine's children may have died of the very signal."""

    def work(task, lease):
        task.life.drain("signal SIGTERM")
        raise EngineError("the engine's process died")

    task = Task(tmp_path, work=work).put("g00000000-0001")
    assert task.serve() == "signal SIGTERM"
    assert task.queue.claim("next").attempt == 1
    assert task.told("error") == []


def test_nothing_is_claimed_before_the_task_is_ready(tmp_path):
    tries: list[int] = []

    def prepare(task):
        tries.append(1)
        if len(tries) < MOST_STARTS:
            raise EngineError("not yet")

    task = Task(tmp_path, prepare=prepare).put("g00000000-0001")
    task.serve()
    assert task.worked == ["g00000000-0001"]
    assert [e["problem"] for e in task.told("error")] == ["not yet"] * (MOST_STARTS - 1)


@pytest.mark.parametrize(("fault", "tries"), [(EngineError("no GPU"), MOST_STARTS), (DataError("no model"), 1)])
def test_a_task_that_cannot_get_ready_ends(tmp_path, fault, tries):
    def prepare(task):
        counted.append(1)
        raise fault

    counted: list[int] = []
    task = Task(tmp_path, prepare=prepare).put("g00000000-0001")
    with pytest.raises(type(fault)):
        task.serve()
    assert len(counted) == tries
    assert task.queue.claim("next").attempt == 1


def waits_for_a_judge(task):
    if not task.away:
        task.away = True
        raise Unavailable("the judge does not answer")


@pytest.mark.parametrize(("after", "gives_up"), [([], True), (["returned"], False), (["shard"], False)])
def test_the_wait_for_a_server_of_others_is_bounded_over_all_lives_of_a_job(tmp_path, after, gives_up):
    """A requeued task's life may be shorter than `wait_s`."""
    task = Task(tmp_path, prepare=waits_for_a_judge)
    task.away = False
    events = task.run.events("rollout", "local-1")
    for waited_s in (task.run.config().store.wait_s - 50, 100):
        events.emit("waiting", **{"for": "the judge"}, since_s=time.time() - waited_s, away=True)
    for event in after:
        events.emit(event)
    if gives_up:
        with pytest.raises(GaveUp, match="the judge does not answer; waited 86450 s"):
            task.serve()
    else:
        assert task.serve() == "all done" and task.told("returned")


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
    assert "not done in a whole life of 1000 s: raise the role's time_min" in failed.reason


def test_a_preempted_shard_has_spent_none(tmp_path):
    def preempt(task, lease):
        task.life.drain("signal SIGTERM")
        raise CutShort("signal SIGTERM")

    task = Task(tmp_path, work=preempt).put("g00000000-0001")
    task.life.end_s = time.time() + 1000
    task.serve()
    assert task.queue.claim("next").attempt == 1


def test_a_shard_begun_late_in_a_life_has_spent_none(tmp_path):
    def late(task):
        if task.worked:
            task.life.end_s = time.time() + 600

    task = Task(tmp_path, work=until_the_end, prepare=late).put("g00000000-0001", "g00000001-0001")
    task.done_first, task.life.end_s = 1, time.time() + 1000
    task.serve()
    assert task.worked == ["g00000000-0001", "g00000001-0001"]
    assert task.queue.claim("next").attempt == 1


@pytest.mark.parametrize("event", ["shard", "cut"])
@pytest.mark.parametrize(
    ("seconds", "left_s", "works"), [(300, 350, False), (300, 400, True), (5000, 600, True), (5000, 400, False)]
)
def test_a_later_life_knows_how_long_a_shard_takes(tmp_path, event, seconds, left_s, works):
    """And takes one in any case while half its time is left: a shard that never fits must not be put off for ever."""

    def use_time(task):
        if task.life.remaining_s() > left_s:
            task.life.end_s = time.time() + left_s
            raise EngineError("it took its time, and broke")

    task = Task(tmp_path, prepare=use_time).put("g00000000-0001")
    task.run.events("rollout", "local-1").emit(event, shard="g", seconds=seconds)
    task.life.end_s = time.time() + 1000
    ended = task.serve()
    assert bool(task.worked) == works, ended
