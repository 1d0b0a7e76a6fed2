"""A trainer or a reader dies, or is lied to, at every system call of publish, fetch and prune."""

import errno
import os
from pathlib import Path

import pytest
from store_faults import DEATHS, FAULTS, LOSE_REPLY, Fault, at_every_call, server
from store_faults import folder as folder
from store_rows import RUN

from grhpc.store.weights import WeightRef, WeightStore


def weights(root: Path) -> WeightStore:
    return WeightStore(root / "weights", run_id=RUN)


def content(version: int, part: int) -> bytes:
    return bytes([part, version]) * 3000


def publish(root: Path, generation: int, version: int) -> WeightRef:
    store = weights(root)
    staging = store.begin(generation, version)
    for part in range(2):
        (staging / f"part{part}.safetensors").write_bytes(content(version, part))
    return store.commit(generation, version, base="tiny", extra={})


def prepare_one(root: Path) -> None:
    publish(root, 1, 1)


def prepare_three(root: Path) -> None:
    for version in (1, 2, 3):
        publish(root, 1, version)


def assert_good(root: Path, version: int) -> None:
    """The newest version is this one, and a reader gets exactly its bytes."""
    fetched = weights(root).fetch_newest(root / "reader")
    assert fetched is not None and fetched[0].version == version
    for part in range(2):
        assert (fetched[1] / f"part{part}.safetensors").read_bytes() == content(version, part)


def assert_told(outcome, fault: str) -> None:
    if fault not in DEATHS:
        assert not outcome.killed
        assert not outcome.error or ("StoreError" in outcome.error and outcome.remedy), outcome.error
        assert not outcome.error or fault != "disk full" or "no space left" in outcome.problem


@pytest.mark.parametrize("fault", FAULTS)
def test_a_version_is_published_whole_or_not_at_all(fault: str, folder: Path) -> None:
    for what, root, outcome in at_every_call("publish", prepare_one, folder, FAULTS[fault]):
        assert_told(outcome, fault)
        newest = weights(root).newest()
        assert newest is not None and newest.version in (1, 2), what
        if not outcome.killed and not outcome.error:
            assert newest.version == 2, what
        assert_good(root, newest.version)
        if outcome.error:  # the same trainer tries again
            assert publish(root, 1, 2).version == 2
        publish(root, 2, 2)  # its successor
        assert_good(root, 2)
        weights(root).prune(1, set())
        assert os.listdir(root / "weights" / "staging") == [], what
        assert os.listdir(root / "weights" / "trash") == [], what


@pytest.mark.parametrize("fault", FAULTS)
def test_a_local_copy_is_whole_or_not_there(fault: str, folder: Path) -> None:
    for what, root, outcome in at_every_call("fetch", prepare_three, folder, FAULTS[fault]):
        assert_told(outcome, fault)
        for path in (root / "local").glob("*/g*"):
            assert {part.name for part in path.iterdir()} >= {"part0.safetensors", "part1.safetensors"}, what
            assert (path / "part0.safetensors").read_bytes() == content(3, 0), what
        _, path = weights(root).fetch_newest(root / "local")
        assert (path / "part1.safetensors").read_bytes() == content(3, 1), what
        assert [p for p in os.listdir(path.parent) if p.startswith(".g")] == [], f"{what}: a dead copier's rest"
        for pin in (root / "weights" / "pins").iterdir():  # a dead reader's pin is in nobody's way for ever
            os.utime(pin, (1_000_000, 1_000_000))
        publish(root, 1, 4)
        assert len(weights(root).prune(1, set())) == 3, what


@pytest.mark.parametrize("fault", FAULTS)
def test_pruning_never_harms_what_is_kept(fault: str, folder: Path) -> None:
    for what, root, outcome in at_every_call("prune", prepare_three, folder, FAULTS[fault]):
        assert_told(outcome, fault)
        assert_good(root, 3)
        weights(root).prune(1, set())
        left = [name for name in os.listdir(root / "weights") if name.startswith("g")]
        assert left == ["g0001-v000003"] and os.listdir(root / "weights" / "trash") == [], what


@pytest.mark.parametrize("said", [errno.ENOENT, errno.EIO])
def test_a_lost_reply_to_the_publishing_rename_is_seen_through(said: int, folder: Path) -> None:
    for what, root, outcome in at_every_call(
        "publish", prepare_one, folder, Fault(LOSE_REPLY, said, frozenset({"rename"}))
    ):
        assert outcome.result, f"{what}: {outcome.problem}"
        assert_good(root, 2)


def test_the_manifest_is_durable_before_the_version_shows(folder: Path) -> None:
    prepare_one(folder)
    calls = server().run("publish", folder).calls
    final = calls.index(next(call for call in calls if call[0] == "rename" and call[2].endswith("g0001-v000002")))
    staging = str(folder / "weights" / "staging" / "g0001-v000002")
    synced = [path for name, path, _ in calls[:final] if name == "fsync"]
    assert any(Path(path).name.startswith(".manifest.json") for path in synced)
    assert staging in synced and {f"{staging}/part0.safetensors", f"{staging}/part1.safetensors"} <= set(synced)
    assert ("fsync", str(folder / "weights"), "") in calls[final:]
