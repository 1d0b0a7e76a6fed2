"""Any interleaving of tasks that ask, fail, die, oversleep and come back: no question is asked twice but by a task that
had been taken for dead, none is blocked for ever, and none that a living task asks is given to another."""

import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from store_asking import LEASE_S, age, ask, key, open_log, topics

from grhpc.store.claims import reclaim
from grhpc.store.decisions import DecisionLog, Made

MEMORY = Path("/dev/shm")
KEYS, TASKS = range(8), range(3)  # two keys a topic


class Task:
    """A verify task: `asks` while it is in the middle of a turn. One that is `asleep` gives no sign of life."""

    def __init__(self, folder: Path, name: str) -> None:
        self.log: DecisionLog = open_log(folder, name)
        self.turn = None
        self.asks: set[int] = set()
        self.asleep = False

    @property
    def alive(self) -> bool:
        return self.turn is not None and not self.asleep

    def end(self) -> None:
        self.turn.__exit__(None, None, None)
        self.turn, self.asks, self.asleep = None, set(), False


class Asking(RuleBasedStateMachine):
    tasks = st.integers(0, TASKS[-1])

    @initialize()
    def start(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="grhpc-asking-", dir=MEMORY if os.access(MEMORY, os.W_OK) else None))
        self.crew = [Task(self.folder, f"7_{n}") for n in TASKS]
        self.decided: list[int] = []
        self.overslept: set[int] = set()  # keys that a task asked which others took for dead

    def teardown(self) -> None:
        if not hasattr(self, "folder"):
            return
        try:
            self.settle()
        finally:
            shutil.rmtree(self.folder)

    @rule(number=tasks, wanted=st.sets(st.sampled_from(KEYS), min_size=1))
    def begin(self, number: int, wanted: set[int]) -> None:
        """A task meets a shard's questions. Where it would have to wait, it does something else here."""
        task = self.crew[number]
        if task.turn is not None:
            return
        task.turn = task.log.asking(topics(*wanted), lambda: True)
        free = task.turn.__enter__()
        known = {n for n in wanted if key(n) in task.log.recall([key(n)])}
        assert known <= set(self.decided)
        if free is None:
            assert any(other.turn for other in self.crew if other is not task) or self.dead_hold_something
            task.end()
            return
        task.asks = {n for n in wanted if key(n) in free} - known
        assert not task.asks & (set(self.decided) - self.overslept), "it is decided, and asked again"

    @rule(number=tasks, share=st.sets(st.sampled_from(KEYS)))
    def hear(self, number: int, share: set[int]) -> None:
        """The judge decides some of what it was asked, as an endpoint does, one by one."""
        task = self.crew[number]
        heard = task.asks & share
        task.log.record({key(n): Made("yes", f"reason {n}") for n in heard}, "g0")
        task.asks -= heard
        self.decided += heard

    @rule(number=tasks)
    def finish(self, number: int) -> None:
        """What the judge has not decided by now is no verdict: another may ask it."""
        if self.crew[number].turn is not None:
            self.crew[number].end()

    @rule(number=tasks)
    def die(self, number: int) -> None:
        self.crew[number] = Task(self.folder, f"7_{number}")

    @rule(number=tasks)
    def be_requeued(self, number: int) -> None:
        """The job's next life knows that its last one is over."""
        self.die(number)
        reclaim(self.folder, f"7_{number}")

    @rule(number=tasks)
    def fall_asleep(self, number: int) -> None:
        self.crew[number].asleep = self.crew[number].turn is not None

    @rule(share=st.sampled_from([0.3, 0.6, 1.1]))
    def time_passes(self, share: float) -> None:
        """For all but the living, who give signs of life."""
        for task in self.crew:
            if task.asleep:
                self.overslept |= {n ^ other for n in task.asks for other in (0, 1)}
        age(self.folder, share * LEASE_S, {task.log._claims._inode for task in self.crew if task.alive})

    @property
    def dead_hold_something(self) -> bool:
        inodes = {task.log._claims._inode for task in self.crew if task.turn is not None}
        return any(path.stat().st_ino not in inodes for path in self.folder.glob(".claim-*"))

    @invariant()
    def no_two_living_tasks_ask_about_one_topic(self) -> None:
        if hasattr(self, "folder"):
            about = [{n // 2 for n in task.asks} for task in self.crew if task.alive]
            assert sum(map(len, about)) == len(set().union(*about))
            twice = {n for n in self.decided if self.decided.count(n) > 1}
            assert twice <= self.overslept

    def settle(self) -> None:
        """In the end one task can have an answer to everything, and asks only what nobody has heard."""
        for task in self.crew:
            if task.turn is not None:
                task.end()
        age(self.folder)
        assert ask(open_log(self.folder, "7_9"), *KEYS) == (set(KEYS) - set(self.decided), set(self.decided))
        assert not list(self.folder.glob(".claim-*"))


Asking.TestCase.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestAsking = Asking.TestCase
