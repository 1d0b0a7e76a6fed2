"""A run directory, its paths, its notes and its event logs."""

import json
import math
from pathlib import Path

import pytest
from prompts import prompt
from store_rows import small_config

from grhpc.errors import CorruptFile, StoreError
from grhpc.store.events import EventLog, read_events
from grhpc.store.rundir import RunDir


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir.create(tmp_path / "runs" / "small", small_config(), git="abc", versions={"torch": "2"})


def test_a_run_is_opened_as_it_was_created(run: RunDir) -> None:
    again = RunDir.open(run.root)
    assert again.run_id == run.run_id and again.config() == small_config()
    assert again.about["git"] == "abc" and again.about["name"] == "small"


def test_two_runs_have_different_ids(run: RunDir, tmp_path: Path) -> None:
    assert RunDir.create(tmp_path / "other", small_config()).run_id != run.run_id


def test_an_empty_folder_may_become_a_run(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    assert RunDir.open(RunDir.create(tmp_path / "here", small_config()).root)


def test_a_run_in_use_or_leftovers_are_refused_and_left_alone(run: RunDir, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="holds a run already") as caught:
        RunDir.create(run.root, small_config())
    assert "resume" in caught.value.remedy and RunDir.open(run.root).run_id == run.run_id
    (tmp_path / "left").mkdir()
    (tmp_path / "left" / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match=r"is not empty: notes\.txt"):
        RunDir.create(tmp_path / "left", small_config())
    assert [path.name for path in (tmp_path / "left").iterdir()] == ["notes.txt"]
    (tmp_path / "file").write_text("a file")
    with pytest.raises(StoreError):
        RunDir.create(tmp_path / "file", small_config())
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".tmp")]


def test_where_no_run_is_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no run in"):
        RunDir.open(tmp_path / "nothing")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "run.json").write_text('{"name": "bad"}')
    with pytest.raises(CorruptFile, match="names no run id"):
        RunDir.open(tmp_path / "bad")


def test_the_queues_carry_the_runs_settings(run: RunDir) -> None:
    queue = RunDir.open(run.root).queue("prompts")
    assert (queue.lease_s, queue.max_attempts, queue.run_id) == (600.0, 5, run.run_id)
    queue.put("g00000000-0001", [prompt(0)])
    queue.put("h000001-00000000-0001", [prompt(0)])
    assert queue.claim("w").name.startswith("h"), "held-out prompts are not starved by training"


def test_a_stop_is_asked_for_seen_and_taken_back(run: RunDir) -> None:
    assert run.stop_reason() is None
    run.request_stop("lunch")
    assert RunDir.open(run.root).stop_reason() == "lunch"
    run.clear_stop()
    run.clear_stop()
    assert run.stop_reason() is None


def test_the_end_is_recorded(run: RunDir) -> None:
    assert run.finished() is None
    run.finish({"step": 3, "loss": math.nan})
    finished = RunDir.open(run.root).finished()
    assert finished["step"] == 3 and finished["loss"] is None


def test_a_bad_file_is_set_aside_with_the_reason(run: RunDir) -> None:
    path = run.batch_path(3, 1)
    path.write_bytes(b"bad")
    there = run.set_aside(path, "its checksum does not match")
    assert not path.exists() and there.read_bytes() == b"bad"
    note = json.loads(there.with_name(there.name + ".json").read_text())
    assert note == {"was": str(path), "reason": "its checksum does not match"}


def test_paths_sort_by_number(run: RunDir) -> None:
    assert run.batch_path(12, 3).name == "s000012-g0003.parquet"
    assert run.named_batch("s000012-g0003.parquet") == run.batch_path(12, 3)
    assert run.checkpoint_dir(100).name == "s000100"
    for version in (10, 2):
        run.heldout_path(version).write_bytes(b"")
    assert run.heldout_versions() == [2, 10]


def test_events_of_every_process_are_read_together(run: RunDir) -> None:
    run.events("rollout", "7_0").emit("start", node="n1")
    run.events("verify", "8_0").emit("shard", seconds=math.inf)
    events = read_events(run.events_dir)
    assert [(event["role"], event["job"], event["event"]) for event in events] == [
        ("rollout", "7_0", "start"),
        ("verify", "8_0", "shard"),
    ]
    assert events[1]["seconds"] is None
    assert read_events(run.events_dir, "verify") == events[1:]
    assert read_events(run.root / "nothing") == []


def test_an_event_log_torn_at_any_byte_goes_on_with_whole_lines(tmp_path: Path) -> None:
    EventLog(tmp_path / "a.jsonl").emit("first", text="ü\n")
    data = (tmp_path / "a.jsonl").read_bytes()
    for length in range(len(data)):
        (tmp_path / "a.jsonl").write_bytes(data + data[:length])
        EventLog(tmp_path / "a.jsonl").emit("second")
        named = [event["event"] for event in read_events(tmp_path)]
        assert named in (["first", "second"], ["first", "first", "second"])
        assert len(named) == 2 or length == len(data) - 1


def test_the_end_of_a_long_event_log_is_read_alone(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "a.jsonl")
    for n in range(1000):
        log.emit("shard", n=n)
    tail = read_events(tmp_path, tail_bytes=1000)
    assert tail[-1]["n"] == 999 and 5 < len(tail) < 40
    assert len(read_events(tmp_path)) == 1000
