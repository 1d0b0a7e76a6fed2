"""The loop that rollout and verify tasks share: when it ends, and what becomes of the shards."""

import time
from types import SimpleNamespace

import pytest
from store_task import Task

from grhpc.errors import CorruptFile, DataError, EngineError, ForeignFile, GaveUp, OtherVersion, Unavailable
from grhpc.store import hand, lease, serving
from grhpc.store.serving import MOST_STARTS


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
    "fault",
    [ForeignFile("of another run"), OtherVersion("of newer code"), CorruptFile("weights v3"), KeyboardInterrupt()],
)
def test_what_must_end_the_task_does_so_and_leaves_the_shard(tmp_path, fault):
    def work(task, lease):
        raise fault

    task = Task(tmp_path, work=work).put("g00000000-0001")
    with pytest.raises(type(fault)):
        task.serve()
    assert task.queue.claim("next").attempt == 1


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


@pytest.mark.parametrize("delivers", [False, True])
def test_work_that_finds_its_server_away_again_and_again_is_bounded_too(tmp_path, monkeypatch, delivers):
    """A server that answers `prepare`, and never what the shard asks; in an earlier life of the job too."""
    tries, clock = [], [1000.0]
    for module in (hand, lease):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    def work(task, lease):
        tries.append(1)
        clock[0] += 50.0
        if len(tries) < 8 and not (delivers and len(tries) % 2 == 0):
            raise Unavailable("the judge does not answer: 429")

    task = Task(tmp_path, work=work).put("g00000000-0001", "g00000001-0001", "g00000002-0001")
    for seconds in (task.run.config().store.wait_s - 1000.0, 825.0):
        task.run.events("rollout", "local-1").emit("error", problem="the judge is away", in_vain_s=seconds)
    if delivers:
        task.serve()
        assert task.queue.counts()["ready"] == 0
    else:
        with pytest.raises(GaveUp, match=r"does not answer: 429; worked 86425 s in vain since the last shard"):
            task.serve()
        assert len(tries) == 4 and task.queue.counts() == {"ready": 3, "leased": 0, "failed": 0}


def test_a_task_whose_server_was_away_for_a_moment_is_not_idle(tmp_path, monkeypatch):
    """Though its failed work took longer than a task may be idle."""
    fails, clock = [Unavailable("the judge does not answer")], [time.time()]
    monkeypatch.setattr(serving, "time", SimpleNamespace(time=lambda: clock[0], sleep=time.sleep))

    def work(task, lease):
        if fails:
            clock[0] += 2 * task.run.config().store.idle_s
            raise fails.pop()

    task = Task(tmp_path, work=work).put("g00000000-0001")
    assert task.serve() == "all done"
    assert task.worked == ["g00000000-0001"] * 2 and task.queue.counts()["ready"] == 0


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
