"""A task dies, or is lied to, at every system call of what it does to a queue: no group is lost, none counted twice."""

import errno
import os
from pathlib import Path

import pytest
from store_faults import DEATHS, FAULTS, LOSE_REPLY, REFUSALS, SHORT_WRITES, Fault, Outcome, at_every_call, server
from store_faults import folder as folder
from store_rows import RUN, Row, open_queue, rows_of

from grhpc.errors import StoreError
from grhpc.store.shard import read_shard

GROUPS = [0, 1, 2, 3]


def prepare_put(root: Path) -> None:
    open_queue(root / "a").put("g0", rows_of(0, 1))


def prepare_hop(root: Path) -> None:
    queue = open_queue(root / "a")
    queue.put("g0", rows_of(0, 1))
    queue.put("g2", rows_of(2, 3))
    open_queue(root / "b")


def prepare_last_attempt(root: Path) -> None:
    prepare_hop(root)
    for path in (root / "a" / "ready").iterdir():
        path.rename(path.with_name(path.name.replace(".a1-0.", ".a3-2.")))


def prepare_dead_holders(root: Path) -> None:
    """One dead holder on a first attempt, one on a last."""
    prepare_hop(root)
    queue = open_queue(root / "a")
    first, last = queue.claim("dead"), queue.claim("dead")
    assert first is not None and last is not None
    (root / "a" / "leased").joinpath(last._path.name).rename(
        root / "a" / "leased" / last._path.name.replace(".a1-0.", ".a3-2.")
    )
    bury(root / "a")


def prepare_corrupt(root: Path) -> None:
    prepare_hop(root)
    path = root / "a" / "ready" / "g0.a1-0.parquet"
    path.write_bytes(path.read_bytes()[:-20])


def bury(queue: Path) -> None:
    """Every lease in this queue has been silent for hours, by the server's clock."""
    for path in (queue / "leased").iterdir():
        os.utime(path, (1_000_000, 1_000_000))


def assert_whole(root: Path, *, corrupt: str = "") -> None:
    """Every visible shard, in any state, reads back whole."""
    for path in root.glob("?/*/*"):
        if (
            path.suffix == ".parquet"
            and not path.name.startswith(".")
            and not (corrupt and path.name.startswith(corrupt))
        ):
            read_shard(path, Row, run_id=RUN)


def work_off(root: Path) -> list[int]:
    """Survivors finish the job. Returns the groups that reach the end of the line, in every delivery."""
    a, b = open_queue(root / "a", max_attempts=100), open_queue(root / "b", max_attempts=100)
    delivered = []
    for queue, onward in ((a, b), (b, None)):
        bury(queue.directory)
        queue.reap(at_once=True)
        while (lease := queue.claim("survivor")) is not None:
            if onward is not None:
                onward.put(lease.name, lease.rows)
            else:
                assert lease.rows == rows_of(*sorted({row.group for row in lease.rows}))
                delivered += sorted({row.group for row in lease.rows})
            assert lease.done()
        assert queue.names()["ready"] == queue.names()["leased"] == set()
    failed = [row.group for shard in a.failed() for row in read_shard(shard.path, Row, run_id=RUN)]
    return sorted(delivered + sorted(set(failed)))


def assert_clean(outcome: Outcome, fault: str) -> None:
    """A fault either kills, or is survived, or is told to a person in one line with a remedy."""
    if fault in DEATHS:
        return
    assert not outcome.killed
    if outcome.error:
        assert "StoreError" in outcome.error, f"{outcome.error[0]}: {outcome.problem}"
        assert outcome.remedy
        if fault == "disk full":
            assert "no space left" in outcome.problem


@pytest.mark.parametrize("fault", FAULTS)
def test_put_is_all_or_nothing(fault: str, folder: Path) -> None:
    for what, root, outcome in at_every_call("put", prepare_put, folder, FAULTS[fault]):
        assert_whole(root)
        assert_clean(outcome, fault)
        present = open_queue(root / "a").names()["ready"]
        assert present in ({"g0"}, {"g0", "g2"}), what
        if not outcome.killed and not outcome.error:
            assert present == {"g0", "g2"}, what
        # The producer was not told that it succeeded, so it, or its successor, puts the shard again.
        assert open_queue(root / "a").put("g2", rows_of(2, 3)) == ("g2" not in present), what
        assert work_off(root) == GROUPS, what


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(
    ("operation", "prepare"),
    [
        ("hop", prepare_hop),
        ("fail", prepare_hop),
        ("fail", prepare_last_attempt),
        ("release", prepare_hop),
        ("reap", prepare_dead_holders),
    ],
)
def test_every_group_stays_exactly_once(operation, prepare, fault: str, folder: Path) -> None:
    for what, root, outcome in at_every_call(operation, prepare, folder, FAULTS[fault]):
        assert_whole(root)
        assert_clean(outcome, fault)
        where = [path.name.split(".")[0] for path in root.glob("a/*/*.parquet")]
        assert len(where) == len(set(where)), f"{what}: a shard is twice in one queue: {where}"
        # Shards that were delivered are held once more upstream at most until their lease ends: then `put` knows them.
        assert work_off(root) == GROUPS, what


@pytest.mark.parametrize("fault", FAULTS)
def test_a_corrupt_shard_is_set_aside_and_the_next_one_taken(fault: str, folder: Path) -> None:
    for what, root, outcome in at_every_call("hop", prepare_corrupt, folder, FAULTS[fault]):
        assert_whole(root, corrupt="g0")
        assert_clean(outcome, fault)
        if not outcome.killed and not outcome.error:
            assert outcome.result == "g2", what
        b = open_queue(root / "b")
        a = open_queue(root / "a", max_attempts=100)
        bury(a.directory)
        a.reap(at_once=True)
        while (lease := a.claim("survivor")) is not None:
            b.put(lease.name, lease.rows)
            lease.done()
        (failed,) = a.failed()
        assert failed.name == "g0" and "checksum" in failed.reason, what
        assert b.names()["ready"] == {"g2"}, what


@pytest.mark.parametrize(("call", "said"), [("rename", errno.ENOENT), ("rename", errno.EIO), ("unlink", errno.ENOENT)])
def test_a_lost_reply_does_not_stop_the_work(call: str, said: int, folder: Path) -> None:
    """The server did it, the client heard an error (NFS repeats a rename whose reply was lost): look, and go on."""
    lost = Fault(LOSE_REPLY, said, frozenset({call}))
    seen = 0
    for what, root, outcome in at_every_call("hop", prepare_hop, folder, lost):
        seen += 1
        assert outcome.result == "g0", f"{what}: {outcome.problem}"
        assert open_queue(root / "a").names() == {"ready": {"g2"}, "leased": set(), "failed": set()}
        assert open_queue(root / "b").names()["ready"] == {"g0"}
    assert seen >= 1


def test_a_write_may_take_fewer_bytes(folder: Path) -> None:
    prepare_put(folder)
    assert server().run("put", folder, SHORT_WRITES, 100).result is True
    assert_whole(folder)
    assert open_queue(folder / "a").names()["ready"] == {"g0", "g2"}


def test_a_shard_is_durable_before_its_name_shows(folder: Path) -> None:
    """A kill keeps the page cache, a power cut does not: so the order of the calls is held, too."""
    prepare_put(folder)
    outcome = server().run("put", folder)
    names = [name for name, _, _ in outcome.calls]
    rename = names.index("rename")
    _, temporary, final = outcome.calls[rename]
    assert Path(final).name == "g2.a1-0.parquet" and Path(temporary).name.startswith(".")
    assert ("fsync", temporary, "") in outcome.calls[:rename]
    assert names[:rename].index("fsync") > names[:rename].index("write")
    assert ("fsync", str(folder / "a" / "ready"), "") in outcome.calls[rename:]


def test_no_name_is_probed_that_may_not_exist(folder: Path) -> None:
    """NFS remembers for a minute that a name was absent: only names that a listing gave, or our own, are opened."""
    prepare_hop(folder)
    outcome = server().run("hop", folder)
    known = {str(path) for path in folder.rglob("*")} | {str(folder)}
    for name, path, second in outcome.calls:
        if name in ("open", "utime", "unlink"):
            made = {p for n, *paths in outcome.calls for p in paths if n in ("create", "rename", "mkdir")}
            assert path in known | made, f"{name} {path} {second}"


def test_these_tests_catch_a_plain_rename_queue(folder: Path) -> None:
    """The queue that writes the final name at once and removes by name loses or tears groups under the same faults."""

    def prepare(root: Path) -> None:
        for folder in ("a/ready", "a/leased", "b/ready"):
            (root / folder).mkdir(parents=True)
        open_queue(root / "donor").put("g0", rows_of(0, 1))
        (root / "donor/ready/g0.a1-0.parquet").rename(root / "a/ready/g0.a1-0.parquet")

    def broken(fault: Fault, name: str) -> int:
        count = 0
        for _, root, _ in at_every_call("plain_hop", prepare, folder / name, fault):
            try:
                assert_whole(root)
                assert work_off(root) == [0, 1]
            except (AssertionError, StoreError):
                count += 1
        return count

    assert broken(DEATHS["killed"], "killed")
    assert broken(DEATHS["killed in a write"], "torn")
    assert broken(REFUSALS["disk full"], "full")
