"""What producers and consumers of a queue rely on."""

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from store_rows import RUN, Row, open_queue, rows_of

from grhpc.errors import OtherVersion
from grhpc.store.names import ShardFile, parse
from grhpc.store.queue import Queue
from grhpc.store.shard import read_shard, write_shard


def age(queue, seconds: float, name: str = "") -> None:
    """Let the server believe that the holders have been silent for so long."""
    for path in (queue.directory / "leased").iterdir():
        if path.name.startswith(name):
            then = path.stat().st_mtime - seconds
            os.utime(path, (then, then))


def test_a_shard_goes_through(tmp_path: Path) -> None:
    queue = open_queue(tmp_path)
    assert queue.put("g0", rows_of(0, 1)) is True
    assert queue.counts() == {"ready": 1, "leased": 0, "failed": 0}
    lease = queue.claim("worker")
    assert (lease.name, lease.attempt, lease.rows) == ("g0", 1, rows_of(0, 1))
    assert queue.counts() == {"ready": 0, "leased": 1, "failed": 0}
    assert queue.claim("other") is None
    assert lease.done() is True
    assert queue.counts() == {"ready": 0, "leased": 0, "failed": 0}


def test_the_same_name_twice_is_one_shard(tmp_path: Path) -> None:
    queue = open_queue(tmp_path, max_attempts=1)
    for _ in range(2):
        queue.put("g0", rows_of(0))
    assert queue.put("g0", rows_of(0)) is False
    lease = queue.claim("worker")
    assert queue.put("g0", rows_of(0)) is False, "leased"
    lease.fail("no")
    assert queue.put("g0", rows_of(0)) is False, "failed"
    assert queue.counts() == {"ready": 0, "leased": 0, "failed": 1}


def test_shards_come_in_order_of_their_names_and_some_go_first(tmp_path: Path) -> None:
    queue = open_queue(tmp_path, first="h")
    for name in ("g00000002-0001", "h000001-00000000-0001", "g00000001-0001", "g00000010-0001"):
        queue.put(name, rows_of(1))
    taken = [queue.claim("w").name for _ in range(4)]
    assert taken == ["h000001-00000000-0001", "g00000001-0001", "g00000002-0001", "g00000010-0001"]


def test_a_silent_holder_loses_its_lease_and_a_living_one_does_not(tmp_path: Path) -> None:
    queue = open_queue(tmp_path, lease_s=100)
    queue.put("g0", rows_of(0))
    queue.put("g1", rows_of(1))
    dead, living = queue.claim("dead"), queue.claim("living")
    age(queue, 50)
    assert queue.reap(at_once=True) == []
    age(queue, 60, "g0")
    assert queue.reap(at_once=True) == ["g0"]
    again = queue.claim("next")
    assert (again.name, again.attempt, again.rows) == ("g0", 2, rows_of(0))
    assert dead.done() is False, "it delivered late: the successor's lease is untouched"
    assert again.done() is True and living.done() is True


def test_a_lease_begins_at_the_claim_not_at_the_put(tmp_path: Path) -> None:
    queue = open_queue(tmp_path, lease_s=100)
    queue.put("g0", rows_of(0))
    (ready,) = (tmp_path / "ready").iterdir()
    os.utime(ready, (1_000_000, 1_000_000))
    assert queue.claim("w") is not None
    assert queue.reap(at_once=True) == []


def test_a_clock_that_is_wrong_on_this_machine_does_not_matter(tmp_path: Path, monkeypatch) -> None:
    """Expiry compares two times that the server set; only the server's own clock moves them."""
    queue = open_queue(tmp_path, lease_s=100)
    queue.put("g0", rows_of(0))
    assert queue.claim("w") is not None
    for wrong_s in (0.0, 4e9):
        monkeypatch.setattr(time, "time", lambda wrong_s=wrong_s: wrong_s)
        assert queue.reap(at_once=True) == []


def test_the_heartbeat_keeps_a_lease_and_notices_its_loss(tmp_path: Path) -> None:
    queue, others = open_queue(tmp_path, lease_s=0.2), threading.enumerate()
    queue.put("g0", rows_of(0))
    lease = queue.claim("w")
    (path,) = (tmp_path / "leased").iterdir()
    with lease.keep_alive():
        before = path.stat().st_mtime_ns
        wait_until(lambda: path.stat().st_mtime_ns > before)
        assert not lease.lost
        path.unlink()  # as a reaper on another machine would
        wait_until(lambda: lease.lost)
    assert lease.done() is False
    wait_until(lambda: not any(t.name == "lease-heartbeat" for t in threading.enumerate() if t not in others))


def wait_until(holds, patience_s: float = 60.0) -> None:
    deadline = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_after_the_last_attempt_a_shard_is_set_aside_with_the_reason(tmp_path: Path) -> None:
    queue = open_queue(tmp_path, max_attempts=2)
    queue.put("g0", rows_of(0))
    queue.claim("w1").fail("CUDA out of memory")
    assert queue.failed() == []
    lease = queue.claim("w2")
    assert lease.attempt == 2
    lease.fail("CUDA out of memory again")
    (failed,) = queue.failed()
    assert (failed.name, failed.attempts) == ("g0", 2)
    assert "out of memory again" in failed.reason
    assert read_shard(failed.path, Row, run_id=RUN) == rows_of(0)
    assert queue.claim("w3") is None


def test_a_shard_that_kills_its_holders_is_set_aside(tmp_path: Path) -> None:
    queue = open_queue(tmp_path, lease_s=100, max_attempts=2)
    queue.put("g0", rows_of(0))
    for _ in range(2):
        assert queue.claim("job-17") is not None
        age(queue, 200)
        assert queue.reap(at_once=True) == ["g0"]
    (failed,) = queue.failed()
    assert "job-17 gave no sign of life" in failed.reason and failed.attempts == 2


def test_a_drain_is_not_a_failure(tmp_path: Path) -> None:
    queue = open_queue(tmp_path, max_attempts=1)
    queue.put("g0", rows_of(0))
    for _ in range(5):
        queue.claim("w").release("end of the allocation")
    assert queue.claim("w").attempt == 1


def test_a_replaced_consumer_takes_back_what_it_held(tmp_path: Path) -> None:
    queue = open_queue(tmp_path)
    for n in range(3):
        queue.put(f"g{n}", rows_of(n))
    queue.claim("train")
    queue.claim("train")
    queue.claim("train-2")
    assert queue.reclaim("train") == ["g0", "g1"]
    assert queue.claim("train").attempt == 1
    assert queue.reclaim("nobody") == [] and sorted(queue.reclaim("train", "train-2", failed="it broke")) == [
        "g0",
        "g2",
    ]
    assert [queue.claim("w").attempt for _ in range(3)] == [2, 1, 2]


def test_a_corrupt_shard_is_named_and_the_next_one_is_given(tmp_path: Path) -> None:
    queue = open_queue(tmp_path)
    queue.put("g0", rows_of(0))
    queue.put("g1", rows_of(1))
    (bad,) = (tmp_path / "ready").glob("g0*")
    bad.write_bytes(bad.read_bytes()[:-1])
    assert queue.claim("w").name == "g1"
    (failed,) = queue.failed()
    assert failed.name == "g0" and "damaged" in failed.reason


def test_a_shard_of_another_version_stays_as_it_was_for_its_own_code(tmp_path: Path) -> None:
    """Its lease is given back, no attempt is spent, and its claimer hears why, however often it is claimed."""

    @dataclass(frozen=True, kw_only=True)
    class Newer(Row):
        why: str

    Newer.__name__ = "Row"
    rows = [Newer(**vars(row), why="") for row in rows_of(0)]
    theirs = Queue(tmp_path, Newer, run_id=RUN, lease_s=1000.0, max_attempts=3)
    theirs.put("g0", rows)
    ours = open_queue(tmp_path, max_attempts=3)
    for _ in range(5):
        with pytest.raises(OtherVersion, match="unknown to this one: why"):
            ours.claim("8_0")
    assert ours.counts() == {"ready": 1, "leased": 0, "failed": 0} and not ours.failed()
    lease = theirs.claim("7_0")
    assert lease.attempt == 1 and lease.rows == rows


def test_another_runs_shard_is_set_aside_with_the_reason(tmp_path: Path) -> None:
    queue = open_queue(tmp_path)
    write_shard(tmp_path / "ready" / ShardFile("g0").file, rows_of(0), run_id="yesterday")
    assert queue.claim("w") is None
    (failed,) = queue.failed()
    assert "belongs to run yesterday" in failed.reason


def test_other_programs_files_are_left_alone(tmp_path: Path) -> None:
    queue = open_queue(tmp_path)
    for name in (".nfs000012", "core", "notes.parquet"):
        (tmp_path / "ready" / name).write_text("not ours")
    assert queue.claim("w") is None
    assert len(list((tmp_path / "ready").iterdir())) == 3


def test_what_dead_producers_left_is_swept_and_what_living_ones_write_is_not(tmp_path: Path) -> None:
    queue = open_queue(tmp_path, lease_s=1)
    old, new = tmp_path / "temp" / ".g0.x.tmp", tmp_path / "temp" / ".g1.x.tmp"
    for path in (old, new):
        path.write_text("half")
    os.utime(old, (1_000_000, 1_000_000))
    queue.reap(at_once=True)
    assert not old.exists() and new.exists()


def test_a_producer_whose_temporary_file_was_swept_writes_it_again(tmp_path: Path, monkeypatch) -> None:
    queue = open_queue(tmp_path)
    rename, swept = os.rename, []

    def sweep_first(source, target):
        if not swept:
            swept.append(source)
            os.unlink(source)
        rename(source, target)

    monkeypatch.setattr(os, "rename", sweep_first)
    assert queue.put("g0", rows_of(0)) is True
    assert queue.claim("w").rows == rows_of(0)


def test_a_thousand_pollers_do_not_all_look_for_dead_holders(tmp_path: Path) -> None:
    """The first look of a process always counts; later ones wait until nobody has looked for a while."""
    queues = [open_queue(tmp_path, lease_s=4000) for _ in range(5)]
    queues[0].put("g0", rows_of(0))
    queues[0].claim("dead")
    for queue in queues:
        assert queue.reap() == []
    age(queues[0], 5000)
    for queue in queues:
        assert queue.reap() == []
    queues[1]._next_look = time.monotonic()  # its interval is over, but another process has looked meanwhile
    queues[0].reap(at_once=True)
    queues[0].put("g1", rows_of(1))
    assert queues[1].reap() == []
    queues[1]._next_look = time.monotonic()  # this time nobody has
    queues[0].claim("dead")
    queues[0].claim("dead")
    age(queues[0], 5000)
    assert queues[1].reap() == ["g0", "g1"]


def test_a_busy_queue_is_reaped_too(tmp_path: Path) -> None:
    """Nobody is ever idle, so nobody ever calls `reap`: claims see to it."""
    queue = open_queue(tmp_path, lease_s=0.5)
    for n in range(200):
        queue.put(f"g{n:03d}", rows_of(n))
    dead = queue.claim("dead")
    taken = []
    wait_until(lambda: taken.append(queue.claim("busy").name) or time.sleep(0.02) or taken[-1] == dead.name)
    assert len(taken) < 200


@pytest.mark.parametrize("name", ["", "a/b", "a.b", "../x", "a b", "ü"])
def test_a_name_that_is_no_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="not a shard name"):
        open_queue(tmp_path).put(name, rows_of(0))


def test_file_names_say_what_they_are() -> None:
    leased = ShardFile("g00000032-0008", 2, 3).leased_by("4711_2.0", "9f86d081")
    assert leased.file == "g00000032-0008.a2-3.4711_2_0-9f86d081.parquet"
    assert parse(leased.file) == leased
    assert parse("g0.a1-0.json") is None and parse("g0.parquet") is None


def test_a_queue_of_another_run_id_in_place_is_refused_not_eaten(tmp_path: Path) -> None:
    open_queue(tmp_path, run_id="yesterday").put("g0", rows_of(0))
    mine = open_queue(tmp_path, run_id=RUN)
    assert mine.claim("w") is None
    assert [shard.name for shard in mine.failed()] == ["g0"]
