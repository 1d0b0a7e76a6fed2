"""A trainer dies, or is lied to, at every system call of its ledger; and dead trainers that live on."""

import errno
from pathlib import Path

import pytest
from store_faults import DEATHS, FAULTS, LOSE_REPLY, SHORT_WRITES, Fault, at_every_call, server
from store_faults import folder as folder
from store_operations import journal
from store_rows import RUN

from grhpc.store.ledger import LedgerState, read_ledger


def state_of(root: Path) -> LedgerState:
    return read_ledger(root / "ledger", run_id=RUN)


def after(num_incarnations: int) -> tuple[int, dict[int, str]]:
    """The cursor and the fates after whole incarnations of `journal`."""
    fates = {}
    for n in range(num_incarnations):
        fates |= {3 * n: f"trained:{n + 1}", 3 * n + 1: "dropped:stale", 3 * n + 2: f"trained:{n + 1}"}
    return 3 * num_incarnations, fates


def prepare_one(root: Path) -> None:
    journal(root)


# After each entry of the second incarnation: the cursor and the fates.
STAGES = [after(1), (6, after(1)[1]), (6, after(1)[1] | {3: "trained:2", 5: "trained:2"}), after(2)]


@pytest.mark.parametrize("fault", FAULTS)
def test_the_ledger_holds_a_prefix_of_what_was_appended(fault: str, folder: Path) -> None:
    for what, root, outcome in at_every_call("journal", prepare_one, folder, FAULTS[fault]):
        if fault not in DEATHS:
            assert not outcome.killed
            assert not outcome.error or ("StoreError" in outcome.error and outcome.remedy), outcome.error
        seen = state_of(root)
        assert (seen.next_group, seen.fates) in STAGES, what
        if not outcome.killed and not outcome.error:
            assert (seen.next_group, seen.fates) == after(2), what
        generation = journal(root)  # the successor goes on from there
        assert generation > seen.generation, what
        later = state_of(root)
        assert later.fates.items() >= seen.fates.items() and later.next_group == seen.next_group + 3, what
        assert not later.open_groups() & set(later.fates), what
        assert later.open_groups() == seen.open_groups(), what


@pytest.mark.parametrize("said", [errno.EEXIST, errno.EIO])
def test_a_lost_reply_to_the_claiming_link_is_seen_through(said: int, folder: Path) -> None:
    lost = Fault(LOSE_REPLY, said, frozenset({"link"}))
    for what, root, outcome in at_every_call("journal", prepare_one, folder, lost):
        assert outcome.result == 2, f"{what}: {outcome.problem}"
        assert state_of(root).generation == 2


def test_an_entry_is_durable_before_append_returns(folder: Path) -> None:
    prepare_one(folder)
    calls = [(name, Path(path).name) for name, path, _ in server().run("journal", folder).calls]
    own = [name for name, path in calls if path == "g0002.jsonl" and name in ("write", "fsync")]
    assert own == ["write", "fsync"] * 4  # the cut, and three entries


def test_a_write_may_take_fewer_bytes(folder: Path) -> None:
    prepare_one(folder)
    assert server().run("journal", folder, SHORT_WRITES, 7).result == 2
    assert (state_of(folder).next_group, state_of(folder).fates) == after(2)
