"""What the trainer and the readers of weights rely on."""

import hashlib
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from store_rows import RUN

from grhpc.errors import CorruptFile, ForeignFile, Pruned, StoreError
from grhpc.store import local_copy, weights
from grhpc.store.local_copy import FOLDER_PREFIX
from grhpc.store.weights import WeightStore


def publish(store: WeightStore, generation: int, version: int, data: bytes = b"") -> weights.WeightRef:
    staging = store.begin(generation, version)
    (staging / "model.safetensors").write_bytes(data or bytes([version]) * 1000)
    (staging / "config.json").write_text("{}")
    return store.commit(generation, version, base="tiny", extra={"step": version})


@pytest.fixture
def store(tmp_path: Path) -> WeightStore:
    return WeightStore(tmp_path / "weights", run_id=RUN)


def reader_of(store: WeightStore) -> WeightStore:
    return WeightStore(store.directory, run_id=RUN)


def test_nothing_is_there_before_the_first_commit(store: WeightStore, tmp_path: Path) -> None:
    store.begin(1, 1)
    assert store.newest() is None and store.fetch_newest(tmp_path / "local") is None


def test_the_newest_is_the_latest_generation_not_the_highest_version(store: WeightStore) -> None:
    publish(store, 1, 7)
    publish(store, 2, 5)
    newest = reader_of(store).newest()
    assert (newest.generation, newest.version) == (2, 5)


def test_a_version_is_found_by_number_in_its_latest_generation(store: WeightStore) -> None:
    for generation, version in ((1, 3), (1, 4), (2, 3)):
        publish(store, generation, version)
    found = reader_of(store).find(3)
    assert found is not None and (found.generation, found.version) == (2, 3)
    assert reader_of(store).find(5) is None


def test_a_reader_gets_what_was_published(store: WeightStore, tmp_path: Path) -> None:
    published = publish(store, 1, 3)
    reader = reader_of(store)
    ref = reader.newest()
    assert ref == published
    path = reader.fetch(ref, tmp_path / "local")
    assert (path / "model.safetensors").read_bytes() == bytes([3]) * 1000
    manifest = reader.manifest(ref)
    assert (
        manifest["base"] == "tiny"
        and manifest["extra"] == {"step": 3}
        and set(manifest["files"])
        == {
            "config.json",
            "model.safetensors",
        }
    )
    assert os.listdir(store.directory / "pins") == []


def entry_of(data: bytes) -> dict[str, Any]:
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def described(*names: str) -> dict[str, dict[str, Any]]:
    """What ranks say of files that hold their own name."""
    return {f"{name}.safetensors": entry_of(name.encode()) for name in names}


def test_equal_weights_have_equal_digests(store: WeightStore) -> None:
    assert publish(store, 1, 3).digest == publish(store, 2, 3).digest != publish(store, 2, 4).digest


def test_a_rank_that_never_wrote_stops_the_publication(store: WeightStore, monkeypatch) -> None:
    monkeypatch.setattr(weights, "_VISIBLE_S", 0.0)
    (store.begin(1, 1) / "a.safetensors").write_bytes(b"a")
    with pytest.raises(StoreError, match=r"lacks b\.safetensors"):
        store.commit(1, 1, base="tiny", extra={}, written=described("a", "b"))
    assert store.newest() is None


def test_a_part_of_a_ranks_file_is_not_published(store: WeightStore, monkeypatch) -> None:
    monkeypatch.setattr(weights, "_VISIBLE_S", 0.0)
    (store.begin(1, 1) / "a.safetensors").write_bytes(b"")
    with pytest.raises(StoreError, match=r"lacks a\.safetensors, or a part of it"):
        store.commit(1, 1, base="tiny", extra={}, written=described("a"))
    assert store.newest() is None


def test_what_a_rank_described_is_not_read_again(store: WeightStore, monkeypatch) -> None:
    """Rank 0 would read all weights of the run every step while the others wait."""
    staging, read, describe = store.begin(1, 1), [], weights.sync_and_describe
    for name in ("a.safetensors", "config.json"):
        (staging / name).write_bytes(name[:1].encode())
    monkeypatch.setattr(weights, "sync_and_describe", lambda path: read.append(path.name) or describe(path))
    ref = store.commit(1, 1, base="tiny", extra={}, written=described("a"))
    assert read == ["config.json"]
    assert store.manifest(ref)["files"] == {**described("a"), "config.json": entry_of(b"c")}


def test_a_ranks_file_that_shows_late_is_waited_for(store: WeightStore) -> None:
    staging = store.begin(1, 1)
    (staging / "a.safetensors").write_bytes(b"a")
    late = threading.Timer(0.3, (staging / "b.safetensors").write_bytes, (b"b",))
    late.start()
    ref = store.commit(1, 1, base="tiny", extra={}, written=described("a", "b"))
    assert set(store.manifest(ref)["files"]) == {"a.safetensors", "b.safetensors"}


def test_an_empty_version_is_refused(store: WeightStore) -> None:
    store.begin(1, 1)
    with pytest.raises(StoreError, match="no files to publish"):
        store.commit(1, 1, base="tiny", extra={})


@pytest.mark.parametrize("damage", ["flip", "cut", "missing"])
def test_a_damaged_file_is_never_handed_out(store: WeightStore, tmp_path: Path, damage: str) -> None:
    path = publish(store, 1, 1).path / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[500] ^= 1
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(data if damage == "flip" else data[:-1])
    reader = reader_of(store)
    with pytest.raises(CorruptFile, match=r"model\.safetensors"):
        reader.fetch(reader.newest(), tmp_path / "local")
    assert [name for name in os.listdir(tmp_path / "local" / f"{FOLDER_PREFIX}{RUN}") if name.startswith("g")] == []


@pytest.mark.parametrize("text", ["", "{", "{}", '{"digest": "0", "files": {}}', "[]"])
def test_a_damaged_manifest_is_named(store: WeightStore, text: str) -> None:
    (publish(store, 1, 1).path / "manifest.json").write_text(text)
    with pytest.raises(CorruptFile, match=r"manifest\.json"):
        reader_of(store).newest()


def test_another_runs_weights_are_refused(store: WeightStore) -> None:
    publish(store, 1, 1)
    with pytest.raises(ForeignFile, match=f"belongs to run {RUN}"):
        WeightStore(store.directory, run_id="other").newest()


def test_pruning_keeps_the_newest_the_protected_and_what_is_being_read(store: WeightStore) -> None:
    for version in range(1, 7):
        publish(store, 1, version)
    with reader_of(store)._pin("g0001-v000003"):
        assert store.prune(2, {1}) == ["g0001-v000002", "g0001-v000004"]
    assert store.prune(2, {1}) == ["g0001-v000003"]
    assert [n for n in sorted(os.listdir(store.directory)) if n.startswith("g")] == [
        "g0001-v000001",
        "g0001-v000005",
        "g0001-v000006",
    ]


def test_a_reader_that_pins_while_the_pruner_looks_away_keeps_its_version(store: WeightStore, monkeypatch) -> None:
    for version in (1, 2):
        publish(store, 1, version)
    rename, reader, pins = os.rename, reader_of(store), []

    def pin_then_rename(source, target):
        if not pins:
            pins.append(reader._pin("g0001-v000001"))
            pins[0].__enter__()
        rename(source, target)

    monkeypatch.setattr(os, "rename", pin_then_rename)
    assert store.prune(1, set()) == []
    assert "g0001-v000001" in os.listdir(store.directory)


def test_the_pin_of_a_dead_reader_ends(store: WeightStore) -> None:
    for version in (1, 2):
        publish(store, 1, version)
    pin = store.directory / "pins" / "g0001-v000001.node7-1-deadbeef"
    pin.touch()
    assert store.prune(1, set()) == []
    os.utime(pin, (1_000_000, 1_000_000))
    assert store.prune(1, set()) == ["g0001-v000001"] and not pin.exists()


def test_weights_pruned_under_the_reader_are_told_and_the_newest_is_taken(
    store: WeightStore, tmp_path: Path, monkeypatch
) -> None:
    publish(store, 1, 1)
    reader = reader_of(store)
    old = reader.newest()
    publish(store, 1, 2)
    copy = weights.copy_checked

    def prune_then_copy(*args):
        monkeypatch.setattr(weights, "copy_checked", copy)
        monkeypatch.setattr(store, "_pinned", lambda: set())  # a pruner whose listing does not show the pin yet
        store.prune(1, set())
        copy(*args)

    monkeypatch.setattr(weights, "copy_checked", prune_then_copy)
    with pytest.raises(Pruned):
        reader.fetch(old, tmp_path / "local")
    ref, path = reader.fetch_newest(tmp_path / "local")
    assert ref.version == 2 and (path / "model.safetensors").read_bytes() == bytes([2]) * 1000


def fetch_in_child(directory: Path, local: Path, started, copies) -> None:
    real = weights.copy_checked

    def counted(*args):
        with copies.get_lock():
            copies.value += 1
        real(*args)

    weights.copy_checked = counted
    store = WeightStore(directory, run_id=RUN)
    started.wait(60)
    ref, path = store.fetch_newest(local)
    assert (path / "model.safetensors").read_bytes() == bytes([ref.version]) * 1000


def test_the_tasks_of_one_node_copy_once(store: WeightStore, tmp_path: Path) -> None:
    publish(store, 1, 1)
    context = multiprocessing.get_context("fork")
    started, copies = context.Barrier(4), context.Value("i", 0)
    children = [
        context.Process(target=fetch_in_child, args=(store.directory, tmp_path / "local", started, copies))
        for _ in range(4)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
        assert child.exitcode == 0
    assert copies.value == 2, "two files, each copied by one of four processes"


def test_a_copy_in_use_stays_and_one_that_nobody_uses_goes(store: WeightStore, tmp_path: Path) -> None:
    first, second = reader_of(store), reader_of(store)
    publish(store, 1, 1)
    old = first.fetch(first.newest(), tmp_path / "local")
    publish(store, 1, 2)
    new = second.fetch(second.newest(), tmp_path / "local")
    assert old.exists() and new.exists(), "the first process may still be loading the old one"
    assert first.fetch(first.newest(), tmp_path / "local") == new
    publish(store, 1, 3)
    first.fetch(first.newest(), tmp_path / "local")
    assert not old.exists() and new.exists()


def test_the_last_task_to_leave_a_node_removes_the_copy(store: WeightStore, tmp_path: Path) -> None:
    first, second = reader_of(store), reader_of(store)
    publish(store, 1, 1)
    path = first.fetch(first.newest(), tmp_path / "local")
    second.fetch(second.newest(), tmp_path / "local")
    first.leave()
    assert path.exists(), "the second still uses it"
    second.leave()
    second.leave()
    assert os.listdir(tmp_path / "local") == []
    assert first.fetch(first.newest(), tmp_path / "local").exists(), "who left may come back"


def come_and_go(directory: Path, local: Path) -> None:
    store = WeightStore(directory, run_id=RUN)
    for _ in range(40):
        _, path = store.fetch_newest(local)
        assert (path / "model.safetensors").read_bytes()[:2] == b"\1\1"
        store.leave()


def test_tasks_of_one_node_come_and_go_at_once(store: WeightStore, tmp_path: Path) -> None:
    publish(store, 1, 1)
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=come_and_go, args=(store.directory, tmp_path / "local")) for _ in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
        assert child.exitcode == 0
    assert os.listdir(tmp_path / "local") == []


def fetch_and_be_killed(directory: Path, local: Path) -> None:
    WeightStore(directory, run_id=RUN).fetch_newest(local)
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_killed_task_of_another_run_left_goes_at_the_next_start(store: WeightStore, tmp_path: Path) -> None:
    publish(store, 1, 1)
    local, left = tmp_path / "local", tmp_path / "local" / f"{FOLDER_PREFIX}{RUN}" / "g0001-v000001"
    child = multiprocessing.get_context("fork").Process(target=fetch_and_be_killed, args=(store.directory, local))
    child.start()
    child.join(60)
    assert left.exists()
    new, later = (WeightStore(tmp_path / run, run_id=run) for run in ("new", "later"))
    used = [run.fetch(publish(run, 1, 1), local) for run in (new, later)]
    assert not left.exists() and all(path.exists() for path in used), "but not what a live task of another run uses"


def test_what_another_node_made_in_a_shared_folder_is_left_to_it(
    store: WeightStore, tmp_path: Path, monkeypatch
) -> None:
    publish(store, 1, 1)
    reader = reader_of(store)
    path = reader.fetch(store.newest(), tmp_path / "local")
    monkeypatch.setattr(local_copy, "_boot", lambda: "another node")
    reader.leave()
    assert path.exists()


def test_a_copy_from_before_a_crash_is_not_trusted(store: WeightStore, tmp_path: Path, monkeypatch) -> None:
    """A local copy is not synced: after the machine came up again its bytes may be gone although its name is there."""
    publish(store, 1, 1)
    path = reader_of(store).fetch(store.newest(), tmp_path / "local")
    (path / "model.safetensors").write_bytes(b"\0" * 1000)
    monkeypatch.setattr(local_copy, "_boot", lambda: "the next boot")
    again = reader_of(store).fetch(store.newest(), tmp_path / "local")
    assert (again / "model.safetensors").read_bytes() == bytes([1]) * 1000


def test_without_locks_on_the_local_disk_it_still_works(store: WeightStore, tmp_path: Path, monkeypatch) -> None:
    def refuse(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(local_copy.fcntl, "flock", refuse)
    publish(store, 1, 1)
    for _ in range(2):
        path = reader_of(store).fetch(store.newest(), tmp_path / "local")
        assert (path / "model.safetensors").read_bytes() == bytes([1]) * 1000


def test_a_superseded_trainers_version_never_wins(store: WeightStore) -> None:
    publish(store, 2, 4)
    publish(store, 1, 5, b"zombie")
    assert reader_of(store).newest().generation == 2


def test_a_folder_that_goes_while_it_is_made_is_made_again(tmp_path: Path, monkeypatch) -> None:
    """What mkdir finds to be there another task that leaves may have removed when mkdir looks at what it is."""
    root, look = tmp_path / "local", Path.is_dir
    root.mkdir()

    def gone(path: Path) -> bool:
        if path == root and path.exists():
            path.rmdir()
        return look(path)

    monkeypatch.setattr(Path, "is_dir", gone)
    descriptor, alone = local_copy._take_lock(root, time.monotonic() + 5)
    os.close(descriptor)
    assert alone
