"""What one verify task decided, as the others and its own next incarnations see it."""

import hashlib
import os
import subprocess
import sys
import textwrap

import pytest

from grhpc.errors import StoreError
from grhpc.store.decisions import DecisionLog, Made
from grhpc.store.journal import encode_line, parse_journal

RUN = "run-1"


def key(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


def made(number: int) -> Made:
    return Made("yes" if number % 2 else "no", f"reason {number} ∀\nFinal Decision", 0.25)


def log(folder, task: str, **changes) -> DecisionLog:
    return DecisionLog(folder, **({"run_id": RUN, "task": task} | changes))


def record(log: DecisionLog, *numbers: int, shard: str = "g0") -> None:
    log.record({key(n): made(n) for n in numbers}, shard)


def recall(log: DecisionLog, *numbers: int) -> dict[int, str]:
    """By whom each is known; checks that it is what was made."""
    found = log.recall([key(n) for n in numbers])
    for number in numbers:
        if key(number) in found:
            got = found[key(number)]
            assert (got.decision, got.text, got.confidence) == (
                made(number).decision,
                made(number).text,
                made(number).confidence,
            )
    return {n: found[key(n)].by for n in numbers if key(n) in found}


def only_file(folder):
    [path] = folder.iterdir()
    return path


def test_what_one_task_decided_all_know_and_say_whose_it_was(tmp_path):
    one, other = log(tmp_path, "7_1"), log(tmp_path, "7_2")
    assert recall(other, 1) == {}
    record(one, 1, 2, shard="g00000000-0008")
    assert recall(one, 1, 3) == {1: "7_1 g00000000-0008"}
    assert recall(other, 1, 2, 3) == {1: "7_1 g00000000-0008", 2: "7_1 g00000000-0008"}
    record(one, 3)
    record(other, 4, shard="h000010-00000000-0008")
    assert recall(other, 3, 4) == {3: "7_1 g0", 4: "7_2 h000010-00000000-0008"}
    assert recall(one, 4) == {4: "7_2 h000010-00000000-0008"}
    assert one.asked_twice == other.asked_twice == 0


def test_a_requeued_task_knows_what_it_decided_before(tmp_path):
    record(log(tmp_path, "7_1"), 1)
    again = log(tmp_path, "7_1")
    assert recall(again, 1) == {1: "7_1 g0"}
    record(again, 2)
    assert len(list(tmp_path.iterdir())) == 2  # a zombie of its first life would write to its own file


def test_only_what_is_new_is_read(tmp_path, monkeypatch):
    one, other = log(tmp_path, "1"), log(tmp_path, "2")
    record(one, *range(50))
    recall(other, 1)
    file = other._files[0]
    assert file.end == only_file(tmp_path).stat().st_size
    record(one, 50)
    before = file.end
    recall(other, 50)
    assert before < file.end == only_file(tmp_path).stat().st_size


def test_a_line_on_its_way_is_read_when_it_is_whole(tmp_path):
    one, other = log(tmp_path, "1"), log(tmp_path, "2")
    record(one, 1)
    path = only_file(tmp_path)
    line = encode_line({"key": key(2).hex(), "decision": "yes", "text": "t", "confidence": None, "shard": "g1"})
    with open(path, "ab") as file:
        file.write(line[:40])
    assert recall(other, 1) == {1: "1 g0"}
    assert other.recall([key(2)]) == {}
    with open(path, "ab") as file:
        file.write(line[40:])
    assert other.recall([key(2)])[key(2)] == Made("yes", "t", None, "1 g1")
    assert other.news() == ()


def test_the_torn_end_of_a_killed_task_is_no_decision(tmp_path):
    record(log(tmp_path, "1"), 1, 2)
    path = only_file(tmp_path)
    os.truncate(path, path.stat().st_size - 5)
    other = log(tmp_path, "2")
    assert recall(other, 1, 2) == {1: "1 g0"}
    record(other, 2)
    assert recall(log(tmp_path, "3"), 1, 2) == {1: "1 g0", 2: "2 g0"}


@pytest.mark.parametrize("damage", [b"x", b"\0"])
def test_a_damaged_file_counts_up_to_the_damage_and_is_told_once(tmp_path, damage):
    record(log(tmp_path, "1"), 1, 2, 3)
    path = only_file(tmp_path)
    data = bytearray(path.read_bytes())
    second = data.index(key(2).hex().encode())
    data[second : second + 1] = damage
    path.write_bytes(data)
    other = log(tmp_path, "2")
    assert recall(other, 1, 2, 3) == {1: "1 g0"}
    assert [path.name in problem and "damaged" in problem for problem in other.news()] == [True]
    assert recall(other, 1) == {1: "1 g0"} and other.news() == ()


def test_a_file_of_another_run_is_not_believed(tmp_path):
    record(log(tmp_path, "1", run_id="run-2"), 1)
    mine = log(tmp_path, "2")
    assert recall(mine, 1) == {}
    assert ["belongs to run run-2" in problem for problem in mine.news()] == [True]
    record(mine, 1)
    assert recall(mine, 1) == {1: "2 g0"}


def test_a_decision_that_is_gone_is_made_again(tmp_path):
    record(log(tmp_path, "1"), 1, 2)
    mine = log(tmp_path, "2")
    assert len(recall(mine, 1, 2)) == 2
    only_file(tmp_path).unlink()
    assert recall(mine, 1) == {}
    assert len(mine.news()) == 1
    record(mine, 1)
    assert recall(mine, 1) == {1: "2 g0"}


def test_a_failed_write_is_raised_and_nothing_follows_it_in_that_file(tmp_path, monkeypatch):
    mine = log(tmp_path, "1")
    record(mine, 1)
    first, write = only_file(tmp_path), os.write

    def full(descriptor, data):
        monkeypatch.setattr(os, "write", write)
        write(descriptor, bytes(data)[:30])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StoreError, match="no space left"):
        record(mine, 2)
    torn = first.stat().st_size
    assert recall(mine, 1, 2) == {1: "1 g0"}
    record(mine, 2)
    assert first.stat().st_size == torn
    assert recall(log(tmp_path, "2"), 1, 2) == {1: "1 g0", 2: "1 g0"}


def test_the_oldest_are_forgotten_first(tmp_path):
    mine = log(tmp_path, "1", most_kept=3)
    record(mine, 1, 2, 3, 4)
    assert set(recall(mine, 1, 2, 3, 4)) == {2, 3, 4}


def test_what_two_tasks_asked_at_once_is_counted_once(tmp_path):
    one, other = log(tmp_path, "1"), log(tmp_path, "2")
    record(one, 1, 2)
    record(other, 2, 3)
    for mine in (one, other, one, other):
        recall(mine, 1, 2, 3)
    assert one.asked_twice + other.asked_twice == 1


def test_a_task_that_is_killed_while_it_writes_leaves_whole_decisions_only(tmp_path):
    """Killed at any moment of a stream of records: what can be read is a beginning of it."""
    script = f"""
        import hashlib, sys
        from grhpc.store.decisions import DecisionLog, Made
        log = DecisionLog({str(tmp_path)!r}, run_id={RUN!r}, task="1")
        for n in range(10**6):
            log.record({{hashlib.sha256(str(n).encode()).digest(): Made("yes", "t" * 5000)}}, "g0")
            print(n, flush=True)
    """
    writer = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True)
    told = [int(writer.stdout.readline()) for _ in range(20)]
    writer.kill()
    told += [int(line) for line in writer.stdout.read().split("\n") if line]
    writer.wait()
    found = log(tmp_path, "2").recall([key(n) for n in range(len(told) + 2)])
    assert all(key(n) in found for n in told)
    parse_journal(only_file(tmp_path).read_bytes(), tmp_path)  # raises for anything but a torn end


def test_nothing_to_record_makes_no_file(tmp_path):
    log(tmp_path, "1").record({}, "g0")
    assert list(tmp_path.iterdir()) == []
