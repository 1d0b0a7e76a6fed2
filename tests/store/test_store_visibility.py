"""A network filesystem shows late: names that are gone are still listed, names that are there are not yet.

The server itself is right at once; only what a client's `listdir` (and, for a file just renamed, `open`) says is old.
"""

import hashlib
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from store_rows import RUN, open_queue, rows_of, small_config

from grhpc.errors import CorruptFile
from grhpc.store import queue as queue_module
from grhpc.store import recorded
from grhpc.store.ledger import StepEntry
from grhpc.store.rundir import RunDir
from grhpc.store.weights import WeightStore


class LateListing:
    """`os.listdir` as a client with an old cache sees it: up to date, or up to three listings behind."""

    def __init__(self, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self._random, self._real = random.Random(seed), os.listdir
        self._seen: dict[str, list[list[str]]] = {}
        monkeypatch.setattr(os, "listdir", self)

    def __call__(self, path) -> list[str]:
        now = self._real(path)
        past = self._seen.setdefault(str(path), [])
        past.append(now)
        del past[:-4]
        return list(self._random.choice(past))


def on_the_server(directory: Path) -> list[str]:
    return [entry.path for entry in os.scandir(directory)]


def drain(poll: Callable[[], bool], patience: int = 2000) -> None:
    """Poll until nothing has come for a good while: a late listing shows in the end."""
    idle = 0
    for _ in range(patience):
        idle = 0 if poll() else idle + 1
        if idle > 30:
            return
    raise AssertionError("it never came to rest")


@pytest.mark.parametrize("seed", range(8))
def test_every_group_arrives_once_though_listings_are_late(seed: int, tmp_path: Path, monkeypatch) -> None:
    a, b = open_queue(tmp_path / "a", lease_s=100, max_attempts=50), open_queue(tmp_path / "b", max_attempts=50)
    others = [open_queue(tmp_path / "a", lease_s=100, max_attempts=50) for _ in range(2)]
    LateListing(seed, monkeypatch)
    chance = random.Random(seed)
    for n in range(12):
        assert a.put(f"g{n:02d}", rows_of(n))
    arrived: list[int] = []

    def hop() -> bool:
        lease = chance.choice([a, *others]).claim("w")
        if lease is None:
            for path in on_the_server(tmp_path / "a" / "leased"):
                os.utime(path, (1_000_000, 1_000_000))
            return bool(a.reap(at_once=True))
        if chance.random() < 0.2:
            return True  # it dies with the shard in hand
        b.put(lease.name, lease.rows)
        lease.done()
        return True

    def take() -> bool:
        lease = b.claim("t")
        if lease is None:
            return False
        arrived.extend({row.group for row in lease.rows} - set(arrived))  # as the ledger does
        lease.done()
        return True

    drain(hop)
    drain(take)
    assert sorted(arrived) == list(range(12))
    assert on_the_server(tmp_path / "a" / "ready") == on_the_server(tmp_path / "a" / "leased") == []


def test_a_claimed_file_that_does_not_open_yet_is_waited_for(tmp_path: Path, monkeypatch) -> None:
    queue = open_queue(tmp_path)
    queue.put("g0", rows_of(0))
    monkeypatch.setattr(queue_module, "_PATIENCE_S", (0.0,) * 4)
    real, failures = queue_module.read_bytes, [FileNotFoundError(), FileNotFoundError()]

    def late(path: Path) -> bytes:
        if failures:
            raise failures.pop()
        return real(path)

    monkeypatch.setattr(queue_module, "read_bytes", late)
    assert queue.claim("w").rows == rows_of(0)


def test_a_claim_whose_lease_was_reaped_at_once_is_given_up(tmp_path: Path, monkeypatch) -> None:
    """The claimer slept between its rename and its read, for longer than its lease."""
    slow, quick = open_queue(tmp_path, lease_s=100), open_queue(tmp_path, lease_s=100)
    slow.put("g0", rows_of(0))
    real = queue_module.read_bytes

    def sleep_then_read(path: Path) -> bytes:
        monkeypatch.setattr(queue_module, "read_bytes", real)
        os.utime(path, (1_000_000, 1_000_000))
        assert quick.reap(at_once=True) == ["g0"]
        assert quick.claim("quick").attempt == 2
        return real(path)

    monkeypatch.setattr(queue_module, "read_bytes", sleep_then_read)
    assert slow.claim("slow") is None


def test_a_version_that_is_listed_but_pruned_is_passed_over(tmp_path: Path, monkeypatch) -> None:
    writer, reader = (WeightStore(tmp_path / "weights", run_id=RUN) for _ in range(2))
    for version in (1, 2, 3):
        (writer.begin(1, version) / "w.safetensors").write_bytes(bytes([version]) * 10)
        writer.commit(1, version, base="b", extra={})
        reader.newest()
    assert writer.prune(1, set()) == ["g0001-v000001", "g0001-v000002"]
    LateListing(3, monkeypatch)
    for _ in range(10):
        ref, path = reader.fetch_newest(tmp_path / "local")
        assert (path / "w.safetensors").read_bytes() == bytes([ref.version]) * 10
    assert ref.version == 3


def recorded_step(folder: Path) -> tuple[RunDir, StepEntry]:
    """A run whose first batch rank 0 has just renamed in."""
    run = RunDir.create(folder / "run", small_config())
    path = run.batch_path(1, 1)
    path.write_bytes(b"rows")
    return run, StepEntry(1, 0, path.name, hashlib.sha256(b"rows").hexdigest(), [0])


def test_a_batch_that_no_listing_shows_yet_is_opened_at_once(tmp_path: Path, monkeypatch) -> None:
    run, entry = recorded_step(tmp_path)
    monkeypatch.setattr(os, "listdir", lambda path: [])
    assert recorded.batch_bytes(run, entry) == b"rows"


def test_a_batch_that_does_not_open_yet_is_waited_for_and_said_so(tmp_path: Path, monkeypatch) -> None:
    run, entry = recorded_step(tmp_path)
    monkeypatch.setattr(recorded.time, "sleep", lambda seconds: None)
    real, failures, told = recorded.read_bytes, [FileNotFoundError(), FileNotFoundError()], list[str]()

    def late(path: Path) -> bytes:
        if failures:
            raise failures.pop()
        return real(path)

    monkeypatch.setattr(recorded, "read_bytes", late)
    assert recorded.batch_bytes(run, entry, on_wait=told.append) == b"rows"
    assert told == [f"{run.named_batch(entry.batch)} to show on this machine"]


def test_a_batch_that_never_shows_is_named_in_the_end(tmp_path: Path, monkeypatch) -> None:
    run, entry = recorded_step(tmp_path)
    run.named_batch(entry.batch).unlink()
    monkeypatch.setattr(recorded, "_VISIBLE_S", 0.0)
    with pytest.raises(CorruptFile, match=entry.batch):
        recorded.batch_bytes(run, entry, on_wait=lambda what: None)
