"""No group has two fates, whoever dies, whoever lives on."""

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_rows import RUN

from grhpc.errors import CorruptFile, ForeignFile, StoreError, Superseded
from grhpc.store import ledger as ledger_module
from grhpc.store.journal import encode_line, parse_journal
from grhpc.store.ledger import Admit, Ledger, StepEntry, read_ledger


def admit(first: int, count: int = 4, version: int = 0) -> dict:
    return {"kind": "admit", "first": first, "count": count, "version": version}


def step(number: int, *groups: int) -> dict:
    return {"kind": "step", "step": number, "version": number - 1, "batch": "b", "sha256": "", "groups": list(groups)}


def drop(reason: str, *groups: int) -> dict:
    return {"kind": "drop", "groups": {str(group): reason for group in groups}}


def opened(directory: Path) -> Ledger:
    return Ledger.open_next(directory, run_id=RUN)


def fates(directory: Path) -> dict[int, str]:
    return read_ledger(directory, run_id=RUN).fates


def test_an_empty_ledger(tmp_path: Path) -> None:
    state = read_ledger(tmp_path / "none", run_id=RUN)
    assert (state.generation, state.next_group, state.last_step, state.fates) == (0, 0, 0, {})


def test_every_reader_sees_what_was_appended(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    for entry in (admit(0, 4, 0), admit(4, 2, 1), step(1, 0, 2), drop("stale", 1)):
        ledger.append(entry)
    ledger.append({"kind": "checkpoint", "step": 1})
    ledger.append({"kind": "finish"})
    for state in (ledger.state, read_ledger(tmp_path, run_id=RUN), opened(tmp_path).state):
        assert state.fates == {0: "trained:1", 2: "trained:1", 1: "dropped:stale"}
        assert state.open_groups() == {3, 4, 5}
        assert (state.next_group, state.last_step, state.checkpoints, state.finished) == (6, 1, [1], True)
        assert state.steps == {1: StepEntry(1, 0, "b", "", [0, 2])}
        assert state.admits == [Admit(0, 4, 0), Admit(4, 2, 1)]


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        (step(2, 0), "second fate for group 0"),
        (drop("stale", 0), "second fate for group 0"),
        (step(2, 9), "never admitted"),
        (step(2, 1, 1), "same group twice"),
        (step(4, 1), "step 4 follows step 1"),
        (step(1, 1), "step 1 follows step 1"),
        (admit(0), "expected 4"),
        (admit(8), "expected 4"),
        ({"kind": "checkpoint", "step": 5}, "before its record"),
        ({"kind": "wish"}, "unknown kind"),
        ({"kind": "step"}, "malformed"),
        ({}, "malformed"),
    ],
)
def test_a_contradiction_is_refused_and_nothing_is_written(tmp_path: Path, entry: dict, complaint: str) -> None:
    ledger = opened(tmp_path)
    ledger.append(admit(0))
    ledger.append(step(1, 0))
    before = (tmp_path / "g0001.jsonl").read_bytes()
    with pytest.raises(StoreError, match=complaint):
        ledger.append(entry)
    assert (tmp_path / "g0001.jsonl").read_bytes() == before
    ledger.append(step(2, 1))  # it is still usable


def test_a_new_incarnation_cuts_the_old_one_off(tmp_path: Path) -> None:
    old = opened(tmp_path)
    old.append(admit(0))
    new = opened(tmp_path)
    with pytest.raises(Superseded, match="generation 2 took over"):
        old.append(step(1, 0))
    with pytest.raises(StoreError):
        old.append(step(1, 0))
    new.append(drop("stale", 0))
    assert fates(tmp_path) == {0: "dropped:stale"}


def blind(ledger: Ledger, monkeypatch) -> None:
    """A zombie on a node whose directory cache is old: it does not see that it was replaced."""
    monkeypatch.setattr(ledger, "check_alone", lambda: None)


def test_what_a_blind_zombie_writes_after_its_cut_is_read_by_nobody(tmp_path: Path, monkeypatch) -> None:
    zombie = opened(tmp_path)
    zombie.append(admit(0))
    new = opened(tmp_path)
    blind(zombie, monkeypatch)
    zombie.append(step(1, 0, 1))
    new.append(drop("stale", 0))
    zombie.append(drop("zombie", 2, 3))
    assert fates(tmp_path) == {0: "dropped:stale"}
    third = opened(tmp_path)
    assert third.state.fates == {0: "dropped:stale"}
    zombie.append(admit(4))
    third.append(step(1, 1))
    assert fates(tmp_path) == opened(tmp_path).state.fates == {0: "dropped:stale", 1: "trained:1"}


def test_what_a_zombie_wrote_before_it_could_know_counts(tmp_path: Path, monkeypatch) -> None:
    """Between the successor's claim and its measuring of the cut: the append is told Superseded, or counts, or both."""
    zombie = opened(tmp_path)
    zombie.append(admit(0))
    real = ledger_module._replay

    def late_append(directory, run_id, generations):
        monkeypatch.setattr(ledger_module, "_replay", real)
        blind(zombie, monkeypatch)
        zombie.append(step(1, 0))
        return real(directory, run_id, generations)

    monkeypatch.setattr(ledger_module, "_replay", late_append)
    new = opened(tmp_path)
    assert new.state.fates == fates(tmp_path) == {0: "trained:1"}


def test_a_claimer_that_stalls_before_its_cut_is_harmless(tmp_path: Path, monkeypatch) -> None:
    """Generation 2 claims, sleeps, and wakes after generation 3 took over: its cut is not counted."""
    first = opened(tmp_path)
    first.append(admit(0))
    real, third = ledger_module._replay, []

    def sleep(directory, run_id, generations):
        answer = real(directory, run_id, generations)
        monkeypatch.setattr(ledger_module, "_replay", real)
        blind(first, monkeypatch)
        first.append(step(1, 0))  # after generation 2 measured it, before generation 3 does
        third.append(opened(tmp_path))
        return answer

    monkeypatch.setattr(ledger_module, "_replay", sleep)
    with pytest.raises(Superseded):
        opened(tmp_path)
    assert third[0].state.fates == fates(tmp_path) == {0: "trained:1"}
    third[0].append(drop("stale", 1))
    assert fates(tmp_path) == {0: "trained:1", 1: "dropped:stale"}


def test_many_claimers_get_a_generation_each_and_the_last_one_writes(tmp_path: Path) -> None:
    opened(tmp_path).append(admit(0, 100))
    generations, barrier = [], threading.Barrier(6)

    def claim() -> None:
        barrier.wait()
        try:
            ledger = opened(tmp_path)
            generations.append(ledger.generation)
            ledger.append(drop(f"by {ledger.generation}", ledger.generation))
        except Superseded:
            generations.append(None)

    threads = [threading.Thread(target=claim) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told = [generation for generation in generations if generation is not None]
    assert len(told) == len(set(told)) and 7 in told
    last = opened(tmp_path)
    assert last.generation == 8 and last.state.fates[7] == "dropped:by 7"


def grown(directory: Path) -> tuple[bytes, list[dict[int, str]]]:
    """A ledger's bytes, and the fates after each of its lines."""
    ledger, after = opened(directory), [{}]
    for entry in (admit(0), step(1, 0, 1), drop("stale", 2), step(2, 3)):
        after.append(dict(ledger.state.fates))
        ledger.append(entry)
    return (directory / "g0001.jsonl").read_bytes(), [*after, dict(ledger.state.fates)]


def test_a_tail_torn_at_any_byte_loses_only_the_torn_line(tmp_path: Path) -> None:
    data, _ = grown(tmp_path)
    ends = [line.end for line in parse_journal(data, tmp_path)]
    for length in range(ends[0], len(data)):
        (tmp_path / "g0001.jsonl").write_bytes(data[:length])
        whole = sum(end <= length for end in ends)
        assert len(parse_journal(data[:length], tmp_path)) == whole
        seen = fates(tmp_path)
        if length in (*ends, *(end + 5 for end in ends[:-1])):  # a successor goes on from there
            new = opened(tmp_path)
            assert new.state.fates == seen
            (tmp_path / "g0002.jsonl").unlink()
            new.close()


def test_a_tail_that_a_crash_filled_with_zeros_is_dropped(tmp_path: Path) -> None:
    data, after = grown(tmp_path)
    cut = data.rstrip(b"\n").rfind(b"\n") + 1
    for hole in (b"\0" * 40, data[cut : cut + 20] + b"\0" * 20 + b"\n"):
        (tmp_path / "g0001.jsonl").write_bytes(data[:cut] + hole)
        assert fates(tmp_path) == after[-2]


def test_damage_is_never_taken_for_a_torn_tail(tmp_path: Path) -> None:
    data, _ = grown(tmp_path)
    for index in range(len(data) - 1):
        damaged = bytearray(data)
        damaged[index] ^= 1
        (tmp_path / "g0001.jsonl").write_bytes(damaged)
        with pytest.raises((CorruptFile, ForeignFile)):
            read_ledger(tmp_path, run_id=RUN)


def test_a_lost_end_or_a_lost_file_is_noticed(tmp_path: Path) -> None:
    data, _ = grown(tmp_path)
    opened(tmp_path)
    (tmp_path / "g0001.jsonl").write_bytes(data[:-30])
    with pytest.raises(CorruptFile, match="lost its end"):
        read_ledger(tmp_path, run_id=RUN)
    (tmp_path / "g0001.jsonl").unlink()
    with pytest.raises(CorruptFile, match="missing"):
        read_ledger(tmp_path, run_id=RUN)


def test_another_runs_ledger_is_refused(tmp_path: Path) -> None:
    Ledger.open_next(tmp_path, run_id="yesterday")
    with pytest.raises(ForeignFile, match="belongs to run yesterday"):
        opened(tmp_path)


def test_after_a_failed_write_only_a_new_incarnation_goes_on(tmp_path: Path, monkeypatch) -> None:
    ledger = opened(tmp_path)
    ledger.append(admit(0))

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="no space left"):
        ledger.append(step(1, 0))
    monkeypatch.undo()
    with pytest.raises(StoreError, match="closed after a failed write"):
        ledger.append(step(1, 0))
    assert ledger.state.fates == {}
    assert opened(tmp_path).state.fates == {0: "trained:1"}, "the line was there: only a reader can tell"


ENTRIES = st.dictionaries(
    st.text(min_size=1).filter(lambda key: key != "crc"),
    st.none() | st.integers() | st.text() | st.lists(st.integers()) | st.floats(allow_nan=False, allow_infinity=False),
    min_size=1,
)


@settings(max_examples=100, deadline=None)
@given(st.lists(ENTRIES, max_size=5))
def test_lines_come_back_as_they_went(entries: list[dict]) -> None:
    data = b"".join(map(encode_line, entries))
    lines = parse_journal(data, Path("x"))
    assert [{k: v for k, v in line.entry.items() if k != "crc"} for line in lines] == entries
