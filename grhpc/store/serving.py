"""The loop of a role that turns shards of one queue into shards of the next.

    consumes   a shard, and beside it as many more as the work has room for, under leases that a background thread keeps
               alive; one that was tried before is worked on alone, so that nobody falls with it a second time
    waits for  the next shard; each empty look also puts expired leases of others back; and for a server of others that
               the work needs and that is away, for `wait_s`, what earlier lives of this job waited counted in; as long
               at most it works only to find that server away, over and over
    pauses     after a failure, for as long as between two looks of an idle task, so that another task takes the shard
    ends       when the run is finished or asked to stop, when this process drains or has no time for another shard, or
               after `idle_s` without work
    gives back at its begin what an earlier life of this job held to its end

Does not know: what a shard means, what the work is. Invariant: when `serve` returns or raises, this process holds no
lease; a shard whose work failed has gone back as the next attempt, one whose work was cut short as the same attempt,
unless it had a whole life and was not done at its end. What spends an attempt stands in docs/queue.md.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

from grhpc.errors import (
    CorruptFile,
    EngineError,
    ForeignFile,
    GaveUp,
    GrhpcError,
    OtherVersion,
    StoreError,
    Superseded,
    Unavailable,
    WaitTimeout,
)
from grhpc.lifetime import Lifetime
from grhpc.store.claims import reclaim
from grhpc.store.events import EventLog
from grhpc.store.hand import Hand, Held, More
from grhpc.store.past import away_s, in_vain_s, longest_s
from grhpc.store.polling import Backoff
from grhpc.store.queue import Lease, Queue
from grhpc.store.rundir import QUEUES, RunDir

Row = TypeVar("Row")

MOST_FAILED = 3  # shards in a row, each another one, after which the fault is taken to be ours
MOST_STARTS = 3  # failed preparations in a row
_WHOLE = 0.9  # of a life: a shard begun with so much of it left had all of it
TIME_MARGIN = 1.2  # a shard is claimed when 1.2 times the longest one so far fits into the process's life
_WAITING_EVENT_S = 30.0
_EARLY_S = 60.0  # SLURM's warning may come so much before its time
_DEAF_S = 10.0  # after a drain: work that did not stop by then may be killed where it stands, SLURM waits 30 s


class CutShort(Exception):
    """Raised by the work when it stopped on request: the shard goes back as it was. Its text says why."""


class Worker(Protocol[Row]):
    """What a role does with the shards that `serve` hands it."""

    def prepare(self) -> None:
        """Make sure that work is possible, before each claim (an engine that broke is started again)."""

    def work(self, lease: Lease[Row], more: More) -> None:
        """Do the work, deliver the results, end the lease. Further shards are to be had from `more`, and are delivered
        and ended in any order."""


def serve(run: RunDir, source: str | Callable[[], str], worker: Worker[Any], life: Lifetime, events: EventLog) -> str:
    """Hand shard after shard of the queue `source` to `worker`, and return why it ended.

    Where `source` is a function, it names the queue before each claim, after `prepare`. Raises the last error after
    MOST_STARTS failures of `prepare` in a row, or after MOST_FAILED different shards failed in a row.
    """
    loop = _Loop(run, source, worker, life, events)
    try:
        return loop.run()
    finally:
        events.emit("stop", reason=loop.ended or "error")


class _Loop:
    def __init__(
        self, run: RunDir, source: str | Callable[[], str], worker: Worker[Any], life: Lifetime, events: EventLog
    ) -> None:
        self.run_dir, self.worker, self.life, self.events = run, worker, life, events
        self.choose = source if callable(source) else lambda: source
        self.queues: dict[str, Queue[Any]] = {}
        self.what = "work"
        self.settings = run.settings().store
        self.backoff = Backoff(self.settings.poll_min_s, self.settings.poll_max_s)
        self.failures: list[str] = []
        self.failed_starts = 0
        past = events.past()
        # With half its time left a life takes a shard in any case: what fits into none would be put off for ever.
        self.longest_s = min(longest_s(past), life.remaining_s() / 2 / TIME_MARGIN)
        self.life_s: float | None = None  # what was left when work first was possible
        self.ended = ""
        self.idle_since_s = self.told_s = time.time()
        self.away_since_s: float | None = None
        self.waited_s, self.in_vain_s = away_s(past), in_vain_s(past)

    def run(self) -> str:
        self._take_over()
        while not (ended := self._reason_to_end()):
            if not self._prepared():
                continue
            source = self._source()
            lease = source.claim(self.life.job)
            if lease is not None:
                if self._handle(lease, source):
                    self.idle_since_s = self.told_s = time.time()
                continue
            source.reap()
            self._tell_wait(self.what, self.idle_since_s)
            self.backoff.wait()
        self.ended = ended
        return ended

    def _take_over(self) -> None:
        """An earlier life of this job is over: its scheduler began this one."""
        if not self.life.restart:
            return
        failed = f"{self.life.job} crashed with it" if self.life.after_crash else ""
        for queue in QUEUES[self.run_dir.kind]:
            self.run_dir.queue(queue).reclaim(self.life.job, failed=failed)
        reclaim(self.run_dir.decisions_dir, self.life.job)

    def _source(self) -> Queue[Any]:
        self.what = self.choose()
        if self.what not in self.queues:
            self.queues[self.what] = self.run_dir.queue(self.what)
        return self.queues[self.what]

    def _prepared(self) -> bool:
        try:
            self.worker.prepare()
        except Unavailable as error:
            self._wait_for_return(error)
            return False
        except EngineError as error:
            self.failed_starts += 1
            self.events.emit("error", problem=error.problem)
            if self.failed_starts >= MOST_STARTS:
                raise
            time.sleep(self.settings.poll_max_s)
            return False
        self.failed_starts = 0
        if self.life_s is None:
            self.life_s = self.life.remaining_s()
        if self.away_since_s is not None:
            self.events.emit("returned")
            self.away_since_s, self.waited_s = None, 0.0
            self.idle_since_s = time.time()
        return True

    def _wait_for_return(self, error: Unavailable) -> None:
        now_s = time.time()
        if self.away_since_s is None:
            self.away_since_s, self.told_s = now_s, 0.0  # said at once
        waited_s = self.waited_s + now_s - self.away_since_s
        if waited_s > self.settings.wait_s:
            raise GaveUp(f"{error.problem}; waited {waited_s:.0f} s", error.remedy) from error
        self.idle_since_s = now_s  # not idle: there may be work
        self._tell_wait(error.problem, self.away_since_s, away=True)
        self.backoff.wait()

    def _tell_wait(self, what: str, since_s: float, **more: bool) -> None:
        if time.time() - self.told_s > _WAITING_EVENT_S:
            self.events.emit("waiting", **{"for": what, "since_s": since_s}, **more)
            self.told_s = time.time()

    def _reason_to_end(self) -> str:
        if self.life.draining:
            self.events.emit("drain", reason=self.life.drain_reason)
            return self.life.drain_reason
        if not self.life.has_time_for(TIME_MARGIN * self.longest_s):
            self.life.drain(f"{self.life.remaining_s():.0f} s are too few for another shard")  # the job will come back
            return self.life.drain_reason
        if self.run_dir.finished():
            return "the run is finished"
        if reason := self.run_dir.stop_reason():
            return reason
        if time.time() - self.idle_since_s > self.settings.idle_s:
            return f"no {self.what} for {self.settings.idle_s:.0f} s"
        return ""

    def _handle(self, lease: Lease[Any], source: Queue[Any]) -> bool:
        """Whether the work was done."""
        hand = Hand(
            lease, lambda: self._claim_beside(hand, source), self.life.remaining_s, pause_s=self.settings.poll_max_s
        )
        try:
            with hand, self._given_back_if_deaf(hand):
                self.worker.work(lease, hand.more)
        except CutShort as cut:
            self._cut(hand, str(cut))
            return False
        except (Superseded, ForeignFile, CorruptFile, OtherVersion, KeyboardInterrupt, SystemExit):  # a fault of ours
            self._release(hand, "this task must not go on")
            raise
        except Exception as error:  # the boundary of what is in hand: it goes back, and the next shard may do
            problem = error.problem if isinstance(error, GrhpcError) else f"{type(error).__name__}: {error}"
            if self.life.draining:  # the engine's children may have died of the signal that asked us to drain
                self._cut(hand, f"{self.life.drain_reason}: {problem}")
            else:
                self._failed(hand, error, problem)
            return False
        self._release(hand, "its work ended without it")
        self.longest_s = max(self.longest_s, hand.longest_s())
        self.failures.clear()
        self.in_vain_s = 0.0
        self.backoff.reset()
        return True

    def _claim_beside(self, hand: Hand[Any], source: Queue[Any]) -> Lease[Any] | None:
        """Another shard, on the same terms as the first."""
        self.longest_s = max(self.longest_s, hand.longest_s())
        if self.life.draining or not self.life.has_time_for(TIME_MARGIN * self.longest_s):
            return None
        with contextlib.suppress(StoreError):  # if it lasts, the work in hand and the next claim will hear of it
            if not self.run_dir.finished() and not self.run_dir.stop_reason():
                return source.claim(self.life.job)
        return None

    @contextlib.contextmanager
    def _given_back_if_deaf(self, hand: Hand[Any]) -> Iterator[None]:
        """While inside: work that a drain does not reach keeps its shards only for a moment longer."""
        over = threading.Event()

        def watch() -> None:
            while not over.wait(self.settings.poll_max_s / 10):
                if self.life.draining:
                    if not over.wait(_DEAF_S):
                        with contextlib.suppress(StoreError):  # the leases will end
                            for held in hand.open():
                                self._give_back(held, self.life.drain_reason)
                    return

        threading.Thread(target=watch, name="deaf-work", daemon=True).start()
        try:
            yield
        finally:
            over.set()

    def _release(self, hand: Hand[Any], why: str) -> None:
        for held in hand.open():
            held.lease.release(why)

    def _cut(self, hand: Hand[Any], why: str) -> None:
        for held in hand.open():
            if self.life.draining:  # the next life learns from it
                name, attempt = held.lease.name, held.lease.attempt
                self.events.emit("cut", shard=name, attempt=attempt, seconds=held.seconds)
            self._give_back(held, why)

    def _give_back(self, held: Held[Any], why: str) -> None:
        """A shard that had the whole life is an attempt spent; one whose life was cut short, by a preemption or a
        person, is not."""
        life_s = self.life_s or 0.0
        had_all = self.life.draining and _WHOLE * life_s <= held.left_s < float("inf")
        if had_all and self.life.remaining_s() <= self.life.warning_s + _EARLY_S:
            held.lease.fail(f"not done in a whole life of {life_s:.0f} s: raise the role's time_min")
        else:
            held.lease.release(why)

    def _failed(self, hand: Hand[Any], error: Exception, problem: str) -> None:
        """Every shard in hand goes back, each to be tried alone; as a fault of ours they count as one."""
        leases = [held.lease for held in hand.open()]
        more: dict[str, float] = {}
        if isinstance(error, Unavailable):
            more["in_vain_s"] = max((held.seconds for held in hand.open()), default=0.0)
        if hand.has_delivered():
            self.failures.clear()
            self.in_vain_s = 0.0
        for lease in leases:
            if isinstance(error, (WaitTimeout, Unavailable)):
                lease.release(problem)
            else:
                lease.fail(problem)
            self.events.emit("error", problem=problem, shard=lease.name, attempt=lease.attempt, **more)
            self.in_vain_s, more = self.in_vain_s + more.get("in_vain_s", 0.0), {}
        if not leases:
            self.events.emit("error", problem=problem)
        if not isinstance(error, WaitTimeout):
            self.idle_since_s = time.time()  # there was work, however long it took
        if isinstance(error, Unavailable):  # `prepare` waits for the server's return
            if self.in_vain_s > self.settings.wait_s:  # which it does at once where the server answers, but not this
                done = "since the last shard that was done"
                raise GaveUp(f"{problem}; worked {self.in_vain_s:.0f} s in vain {done}", error.remedy) from error
            return
        if leases and leases[0].name not in self.failures:
            self.failures.append(leases[0].name)
        if len(self.failures) >= MOST_FAILED:
            raise error
        time.sleep(self.settings.poll_max_s)
