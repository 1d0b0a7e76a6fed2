"""Several shards in one pair of hands: who takes them, what becomes of them when something goes wrong."""

import time

import pytest
from store_task import Task

from grhpc.errors import EngineError, StoreError
from grhpc.store.hand import Hand
from grhpc.store.serving import CutShort

NAMES = [f"g{i:08d}-0001" for i in range(4)]


class Beside(Task):
    """Takes all it can get beside the first shard, then does as told with all of them."""

    def __init__(self, folder, work=None, fits=None, **settings) -> None:
        super().__init__(folder, **settings)
        self.then, self.fits = work, fits
        self.together: list[list[tuple[str, int]]] = []

    def work(self, lease, more) -> None:
        words = [] if self.fits is None else [self.fits]
        leases = [lease]
        while (further := more(*words)) is not None:
            leases.append(further)
        self.together.append([(held.name, held.attempt) for held in leases])
        if self.then:
            self.then(self, leases)
        for held in leases:
            held.done()


def test_what_is_ready_is_worked_on_together(tmp_path):
    task = Beside(tmp_path).put(*NAMES)
    task.serve()
    assert task.together == [[(name, 1) for name in NAMES]]
    assert task.queue.counts() == {"ready": 0, "leased": 0, "failed": 0}


def test_after_a_failure_among_several_each_is_tried_alone(tmp_path):
    """So that the one that is at fault shows, and takes no other with it."""

    def work(task, leases):
        if any(held.name == NAMES[2] for held in leases):
            raise EngineError("it broke")

    task = Beside(tmp_path, work).put(*NAMES)
    task.serve()
    assert task.together[0] == [(name, 1) for name in NAMES]
    assert sorted(task.together[1:]) == [
        [(NAMES[0], 2)],
        [(NAMES[1], 2)],
        [(NAMES[2], 2)],
        [(NAMES[2], 3)],
        [(NAMES[3], 2)],
    ]
    [failed] = task.queue.failed()
    assert failed.name == NAMES[2] and failed.reason.startswith("it broke")


def test_a_failure_among_several_is_one_failure_of_the_task(tmp_path):
    """Three shards that fell together are no proof against the machine."""
    broken = iter([True])

    def work(task, leases):
        if next(broken, False):
            raise EngineError("it broke")

    task = Beside(tmp_path, work).put(*NAMES)
    assert task.serve() == "all done"
    assert [event["shard"] for event in task.told("error")] == NAMES
    assert task.queue.counts() == {"ready": 0, "leased": 0, "failed": 0}


def test_a_drain_gives_all_of_them_back_as_they_were(tmp_path):
    def work(task, leases):
        task.life.drain("TERM")
        raise CutShort("TERM")

    task = Beside(tmp_path, work).put(*NAMES)
    assert task.serve() == "TERM"
    assert task.queue.counts() == {"ready": 4, "leased": 0, "failed": 0}
    assert [task.queue.claim("next").attempt for _ in NAMES] == [1] * 4
    assert [event["shard"] for event in task.told("cut")] == NAMES


def test_what_was_delivered_before_the_failure_stays_delivered(tmp_path):
    def work(task, leases):
        if len(leases) > 1:
            leases[1].done()
            raise EngineError("it broke")

    task = Beside(tmp_path, work).put(*NAMES[:3])
    task.serve()
    assert sorted(task.together[1:]) == [[(NAMES[0], 2)], [(NAMES[2], 2)]]


def test_one_that_does_not_fit_goes_back_untouched(tmp_path):
    refused = []

    def fits(lease):
        refused.append(lease.name)
        return lease.name != NAMES[1]

    task = Beside(tmp_path, fits=fits).put(*NAMES[:3])
    task.serve()
    assert task.together[0] == [(NAMES[0], 1)] and refused[0] == NAMES[1]
    assert task.together[1] == [(NAMES[1], 1), (NAMES[2], 1)]


def test_a_hiccup_while_one_is_looked_at_costs_nothing(tmp_path):
    def fits(lease):
        raise StoreError("weights: stale file handle")

    task = Beside(tmp_path, fits=fits).put(*NAMES[:2])
    task.serve()
    assert task.together == [[(NAMES[0], 1)], [(NAMES[1], 1)]] and not task.told("error")


def take_retries(task) -> None:
    """As another task does."""
    ready = []
    while (lease := task.queue.claim("another")) is not None:
        ready.append(lease)
    for lease in ready:
        if lease.attempt > 1:
            lease.done()
        else:
            lease.release("not now")


def test_failures_among_deliveries_are_not_in_a_row(tmp_path):
    """Nothing is wrong with a task that delivers in between."""

    def work(task, leases):
        if len(leases) > 1:
            leases[0].done()
            if len(task.together) < 5:
                task.put(*(f"h{len(task.together):08d}-{i:04d}" for i in range(2)))
            raise EngineError("it broke")

    task = Beside(tmp_path, work, prepare=take_retries).put(*NAMES[:2])
    assert task.serve() == "all done"
    assert len(task.told("error")) == 5


def test_one_that_cannot_be_looked_at_costs_no_attempt(tmp_path):
    def fits(lease):
        if not task.told("error"):
            raise EngineError("unseen")
        return True

    task = Beside(tmp_path, fits=fits).put(*NAMES[:2])
    task.serve()
    assert task.together == [[(NAMES[0], 2)], [(NAMES[1], 1)]]


@pytest.mark.parametrize("why", ["drains", "is stopped", "has no time"])
def test_a_task_that_is_to_end_takes_no_more(tmp_path, why):
    class Ending(Beside):
        def work(self, lease, more):
            if why == "drains":
                self.life.drain("TERM")
            elif why == "is stopped":
                self.run.request_stop("enough")
            else:
                self.life.end_s = time.time() - 1
            super().work(lease, more)

    task = Ending(tmp_path).put(*NAMES)
    task.serve()
    assert task.together == [[(NAMES[0], 1)]]
    assert task.queue.counts()["ready"] == 3


def test_the_queue_is_not_asked_at_every_turn(tmp_path):
    """An engine asks at every token; a look is a call to a server."""
    asked = []
    first = Task(tmp_path).put(NAMES[0]).queue.claim("local-1")
    with Hand(first, lambda: asked.append(1), lambda: 60.0, pause_s=300.0) as hand:
        assert [hand.more() for _ in range(1000)] == [None] * 1000
    assert len(asked) == 1


def test_a_life_learns_how_long_shards_take_beside_others(tmp_path):
    """The time that one is in hand counts, not its share of the work."""

    def work(task, lease):
        task.life.end_s = time.time() + 450.0

    task = Task(tmp_path, work).put(*NAMES)
    task.run.events("rollout", "local-1").emit("shard", seconds=1.0, held_s=400.0)
    task.life.end_s = time.time() + 1000.0
    assert "too few for another shard" in task.serve()
    assert task.worked == NAMES[:1]
