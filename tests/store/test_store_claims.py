"""Who asks what just now: one task at a time, whoever dies, sleeps or is lied to."""

import errno
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from store_asking import LEASE_S, age, ask, hidden, key, open_log, still, topics
from store_crowd import counting
from store_faults import DEATHS, FAULTS, LOSE_REPLY, LOST_REPLIES, Fault, at_every_call
from store_faults import folder as folder
from store_operations import ASKED
from store_rows import small_config

from grhpc.errors import StoreError
from grhpc.store import decisions as decisions_module
from grhpc.store.claims import Claims, reclaim
from grhpc.store.decisions import Made
from grhpc.store.rundir import RunDir

HERE = Path(__file__).parent
PER_TOPIC, PER_SHARD, A_LOOK = 2, 4, 4


def claims(folder: Path, holder: str) -> Claims:
    return still(Claims(folder, holder, LEASE_S))


def test_a_name_has_one_holder_and_who_leaves_leaves_nothing(tmp_path):
    one, other = claims(tmp_path, "7_1"), claims(tmp_path, "7_2")
    assert one.take({"a", "b"}) == {"a", "b"} == one.take({"a", "b"})
    assert other.take({"b", "c"}) == {"c"}
    assert (other.holder("a"), other.holder("c"), other.holder("d")) == ("7_1", "7_2", "")
    one.leave()
    assert other.take({"a", "b"}) == {"a", "b"}
    other.leave()
    other.leave()
    assert list(tmp_path.iterdir()) == []


def test_of_a_crowd_one_gets_each_name(tmp_path):
    names, crowd = {str(n) for n in range(20)}, [claims(tmp_path, f"7_{n}") for n in range(8)]
    barrier, taken = threading.Barrier(len(crowd)), []

    def take(mine: Claims) -> None:
        barrier.wait()
        taken.append(mine.take(names))

    threads = [threading.Thread(target=take, args=(mine,)) for mine in crowd]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(name for mine in taken for name in mine) == sorted(names)


def test_a_living_holder_gives_signs_of_life_for_all_it_holds(tmp_path):
    one = Claims(tmp_path, "7_1", lease_s=0.2)
    one.take({"a", "b"})
    seat, *held = hidden(tmp_path)
    assert len(held) == 2 and all(seat.samefile(path) for path in held), "one touch is for all of them"
    seen: set[int] = set()
    for _ in range(6000):
        seen.add(seat.stat().st_mtime_ns)
        if len(seen) > 3:
            break
        time.sleep(0.01)
    assert len(seen) > 3
    one.leave()


def test_a_dead_holder_is_replaced_after_its_lease_and_not_before(tmp_path):
    script = f"""
        import sys, time
        sys.path[:0] = [{str(HERE)!r}, {str(HERE.parents[1])!r}]
        from pathlib import Path
        from store_asking import open_log, topics
        with open_log(Path({str(tmp_path)!r}), "7_1").asking(topics(1, 2), lambda: True) as free:
            print(len(free), flush=True)
            time.sleep(600)
    """
    holder = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "2\n"
    holder.kill()
    holder.wait()
    other = open_log(tmp_path, "7_2")
    assert ask(other, 1) is None
    age(tmp_path, LEASE_S / 2)
    assert ask(other, 1) is None
    age(tmp_path, LEASE_S)
    assert ask(other, 1, 2) == ({1, 2}, set())
    assert ask(open_log(tmp_path, "7_3"), 1, 2) == (set(), {1, 2}), "asked once more, and no more"


def test_what_a_dead_task_left_behind_is_swept_in_the_end(tmp_path):
    dead = claims(tmp_path, "7_1")
    dead.take({"a"})
    age(tmp_path)
    other = claims(tmp_path, "7_2")
    assert other.take({"a"}) == {"a"}
    other.leave()
    assert list(tmp_path.iterdir()) == []


def test_a_claim_that_nobody_wants_again_is_swept_too(tmp_path):
    claims(tmp_path, "7_1").take({"a", "b"})
    age(tmp_path)
    living = claims(tmp_path, "7_2")
    living.take({"c"})
    other = claims(tmp_path, "7_3")
    other.take({"d"})
    assert {path.name for path in tmp_path.glob(".claim-*")} == {".claim-c", ".claim-d"}
    other.leave()
    living.leave()
    assert list(tmp_path.iterdir()) == []


def test_a_holder_that_slept_does_not_free_its_successors_claim(tmp_path):
    slept, other, third = (claims(tmp_path, f"7_{n}") for n in range(3))
    slept.take({"a", "b"})
    age(tmp_path)
    assert other.take({"a"}) == {"a"}
    slept.leave()
    assert third.take({"a", "b"}) == {"b"}


def test_a_claim_that_was_just_renewed_by_another_is_put_back(tmp_path, monkeypatch):
    """Two find the same dead holder; the slower one catches the quicker one's new claim."""
    dead, quick, slow = (claims(tmp_path, f"7_{n}") for n in range(3))
    dead.take({"a"})
    age(tmp_path)
    rename = os.rename

    def late(source, target):
        monkeypatch.setattr(os, "rename", rename)
        assert quick.take({"a"}) == {"a"}
        rename(source, target)

    monkeypatch.setattr(os, "rename", late)
    assert slow.take({"a"}) == set()
    assert slow.holder("a") == "7_1"
    quick.leave(), slow.leave()
    assert not [path for path in hidden(tmp_path) if "claim" in path.name]


def test_what_a_task_held_that_is_known_to_be_dead_is_free_at_once(tmp_path):
    for holder, name in (("7_1", "a"), ("7_2", "b"), ("7_10", "c")):
        claims(tmp_path, holder).take({name})
    reclaim(tmp_path, "7_1", "7_3")
    assert claims(tmp_path, "7_4").take({"a", "b", "c"}) == {"a"}
    reclaim(tmp_path / "nothing", "7_1")


def test_the_first_to_come_after_another_sees_what_that_one_wrote(tmp_path, monkeypatch):
    """A client remembers a directory's listing until it has changed that directory itself: the other's file is new."""
    seen: dict[str, list[str]] = {}
    now = {"client": ""}
    list_names, link = decisions_module.list_names, os.link

    def remembered(directory):
        return seen.setdefault(now["client"], list_names(directory))

    def linking(source, target):
        seen.pop(now["client"], None)
        link(source, target)

    monkeypatch.setattr(decisions_module, "list_names", remembered)
    monkeypatch.setattr(os, "link", linking)
    one, other = open_log(tmp_path, "7_1"), open_log(tmp_path, "7_2")
    now["client"] = "other's"
    assert ask(other, 8) == ({8}, set())
    now["client"] = "one's"
    assert ask(one, 1) == ({1}, set())
    now["client"] = "other's"
    assert other.recall([key(1)]) == {}, "by itself it would not see it for a minute"
    assert ask(other, 1) == (set(), {1})


def test_what_is_known_is_not_claimed_and_what_others_ask_is_left_for_later(tmp_path):
    one, other = open_log(tmp_path, "7_1"), open_log(tmp_path, "7_2")
    ask(one, 0)
    with one.asking(topics(0, 2, 3), lambda: True) as free:
        assert free == {key(2), key(3)}
        assert len(hidden(tmp_path)) == 2, "the seat, and one topic"
        with other.asking(topics(2, 4), lambda: True) as others:
            assert others == {key(4)}
        with other.asking(topics(3), lambda: True) as others:
            assert others is None
        one.record({key(2): Made("no", "t")}, "g0")
    assert ask(other, 2, 3) == ({3}, {2})
    assert hidden(tmp_path) == []


def test_a_questions_price_at_the_file_server(folder):
    """Of a shard of 16 questions about 8 topics; of one where all is known; of a look of a task that waits."""
    log, other, numbers = open_log(folder, "7_1"), open_log(folder, "7_2"), range(16)
    ask(log, 98), ask(other, 99)  # each looks once for what dead tasks left
    with counting() as first, log.asking(topics(*numbers), lambda: True):
        pass
    assert 0 < first.total() <= 8 * PER_TOPIC + PER_SHARD, first
    log.record({key(n): Made("yes", "t") for n in numbers}, "g0")
    with counting() as known, log.asking(topics(*numbers), lambda: True):
        pass
    assert known.total() == 0
    with log.asking(topics(20), lambda: True):
        other._claims.take({"another"})
        with counting() as look:
            assert other._claims.take({topic.hex() for topic in topics(20).values()}) == set()
        other._claims.leave()
    assert look.total() <= A_LOOK, look


def prepare_ask(root: Path) -> None:
    """One question is decided, of another one its holder has died."""
    folder = root / "decisions"
    ask(open_log(folder, "7_1"), ASKED[0])
    dead = open_log(folder, "7_2")._claims
    dead.take({topic.hex() for topic in topics(ASKED[1]).values()})
    age(folder)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_task_that_dies_or_is_lied_to_while_it_asks_blocks_nobody_for_longer_than_its_lease(fault, folder):
    for what, root, outcome in at_every_call("ask_judge", prepare_ask, folder, FAULTS[fault]):
        where = root / "decisions"
        if fault not in DEATHS:
            assert not outcome.killed
            assert not outcome.error or ("StoreError" in outcome.error and outcome.remedy), outcome.error
        if outcome.result is not None and fault in LOST_REPLIES:
            assert outcome.result == [list(ASKED[1:]), [ASKED[0]]], what
        age(where)
        survivor = open_log(where, "7_4")
        asked, known = ask(survivor, *ASKED)
        assert asked | known == set(ASKED) and not asked & known, what
        if outcome.result is not None:
            assert set(outcome.result[0]) <= known, what
        assert ask(open_log(where, "7_5"), *ASKED) == (set(), set(ASKED)), what


@pytest.mark.parametrize("said", [errno.EEXIST, errno.EIO])
def test_a_lost_reply_to_the_claiming_link_is_seen_through(said, folder):
    lost = Fault(LOSE_REPLY, said, frozenset({"link"}))
    for what, root, outcome in at_every_call("ask_judge", prepare_ask, folder, lost):
        assert outcome.result == [list(ASKED[1:]), [ASKED[0]]], f"{what}: {outcome.problem}"
        assert [path.name for path in hidden(root / "decisions") if path.name.startswith(".claim")] == [], what


def test_where_nothing_can_be_written_it_is_said(tmp_path):
    (tmp_path / "decisions").write_text("no folder")
    with pytest.raises(StoreError):
        claims(tmp_path / "decisions", "7_1").take({"a"})


def test_a_log_of_a_run_has_its_lease_and_tells_of_waits(tmp_path):
    run = RunDir.create(tmp_path / "run", small_config())
    events = run.events("verify", "7_1")
    log = decisions_module.DecisionLog.of_run(run, "7_1", events)
    assert (log._claims._lease_s, log._wait_s) == (small_config().store.lease_s, small_config().store.wait_s)
    log._on_wait("7_2 to hear", 5.0)
    [event] = events.past()
    assert (event["event"], event["for"], event["since_s"]) == ("waiting", "7_2 to hear", 5.0)
