"""Any interleaving of producers, claimers, reapers, sleepers that deliver late, and deaths: every group arrives once.

The server's clock is played by the files' times: time passes by making every file older.
"""

import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule
from store_rows import RUN, Row, open_queue, rows_of

from grhpc.store.lease import Lease
from grhpc.store.shard import read_shard

LEASE_S = 100.0
MEMORY = Path("/dev/shm")


class TwoQueues(RuleBasedStateMachine):
    """Prompts in `a`, answers in `b`, a ledger that takes each group once."""

    leases: Bundle = Bundle("leases")

    @initialize()
    def start(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="grhpc-machine-", dir=MEMORY if os.access(MEMORY, os.W_OK) else None))
        # Several machines, each with its own view.
        self.a = [open_queue(self.root / "a", lease_s=LEASE_S, max_attempts=3) for _ in range(3)]
        self.b = open_queue(self.root / "b", lease_s=LEASE_S, max_attempts=3)
        self.admitted: set[int] = set()
        self.ledger: list[int] = []
        self.delivered: set[int] = set()

    def teardown(self) -> None:
        if not hasattr(self, "root"):
            return
        try:
            self.settle()
        finally:
            shutil.rmtree(self.root)

    @rule(machine=st.integers(0, 2), group=st.integers(0, 3))
    def admit(self, machine: int, group: int) -> None:
        """The trainer puts a group, or, after a restart, puts it again."""
        if group not in self.delivered:
            self.a[machine].put(f"g{group}", rows_of(group))
            self.admitted.add(group)

    @rule(target=leases, machine=st.integers(0, 2))
    def claim(self, machine: int):
        lease = self.a[machine].claim(f"task{machine}")
        if lease is None:
            return multiple()
        (group,) = {row.group for row in lease.rows}
        assert lease.rows == rows_of(group), "half-read"
        return lease

    @rule(lease=leases)
    def deliver(self, lease: Lease) -> None:
        """The work is done; the process may die before it says so, or be a zombie whose lease is long gone."""
        self.b.put(lease.name, lease.rows)
        self.delivered.update(row.group for row in lease.rows)

    @rule(lease=consumes(leases))
    def finish(self, lease: Lease) -> None:
        self.deliver(lease)
        lease.done()

    @rule(lease=consumes(leases))
    def fail(self, lease: Lease) -> None:
        lease.fail("bad luck")

    @rule(lease=consumes(leases))
    def release(self, lease: Lease) -> None:
        lease.release("drain")

    @rule(lease=consumes(leases))
    def die(self, lease: Lease) -> None:
        pass

    @rule(lease=leases)
    def beat(self, lease: Lease) -> None:
        if lease._path.exists():
            os.utime(lease._path)

    @rule(seconds=st.sampled_from([30.0, 60.0, 110.0]))
    def time_passes(self, seconds: float) -> None:
        for path in (self.root / "a" / "leased").iterdir():
            then = path.stat().st_mtime - seconds
            os.utime(path, (then, then))

    @rule(machine=st.integers(0, 2))
    def reap(self, machine: int) -> None:
        self.a[machine].reap(at_once=True)

    @rule()
    def collect(self) -> None:
        """The trainer takes verdicts in; the ledger refuses a second fate."""
        while (lease := self.b.claim("train")) is not None:
            self.ledger.extend(sorted({row.group for row in lease.rows} - set(self.ledger)))
            lease.done()

    @invariant()
    def every_group_is_somewhere(self) -> None:
        if not hasattr(self, "root"):
            return
        places = [*self.a[0].names().values(), *self.b.names().values()]
        somewhere = {int(name[1:]) for names in places for name in names} | set(self.ledger)
        assert self.admitted <= somewhere
        assert len(self.ledger) == len(set(self.ledger))

    def settle(self) -> None:
        """One diligent task finishes everything: each admitted group ends in the ledger, or in failed, named."""
        self.time_passes(1000.0)
        self.a[0].reap(at_once=True)
        while (lease := self.a[0].claim("last")) is not None:
            self.finish(lease)
        self.collect()
        failed = {int(shard.name[1:]) for shard in self.a[0].failed()}
        assert self.admitted == set(self.ledger) | failed
        for shard in self.a[0].failed():
            assert shard.reason and read_shard(shard.path, Row, run_id=RUN)
        assert self.a[0].counts()["ready"] == self.a[0].counts()["leased"] == 0


TwoQueues.TestCase.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestTwoQueues = TwoQueues.TestCase
