"""How a sample came by its reward: trained, on its way, held out; and a model's text stays text."""

import argparse
import dataclasses
import json

import pytest

from grhpc.errors import StoreError
from grhpc.records import NO, NO_ANSWER, NO_VERDICT, YES, Trained, Verdict
from grhpc.store.groups import train_name
from grhpc.store.ledger import read_ledger
from grhpc.store.recorded import archive_batches
from grhpc.store.shard import read_shard
from grhpc.why import command, lines, why


def put_verdicts(small, group: int, *changes: dict) -> None:
    """Verdicts of an admitted group, one a dictionary of changes, into the queue."""
    [like] = read_shard(small.run.batch_path(1, 1), Trained, run_id=small.run.run_id)[:1]
    fields = {f.name: getattr(like, f.name) for f in dataclasses.fields(Verdict)} | {"group": group}
    rows = [Verdict(**(fields | {"sample": k} | change)) for k, change in enumerate(changes)]
    small.run.queue("verdicts").put(train_name(group, 1), rows)


def test_a_trained_sample_from_its_text_to_its_advantage(small, capsys):
    assert command(argparse.Namespace(run=str(small.run.root), sample="3.1", json=False)) == 0
    out = capsys.readouterr().out
    row = small.rows[3]
    for wanted in (
        f"question: {row['question']}",
        f"reference: {row['answer']}",
        f"extracted: {row['answer']}",
        "decided: yes by generative",
        "lengths: 2 tokens, the reference 2",
        "reward: 1 - 0.05 x min(10, |2 - 2|) = 1.00",
        "rewards of the group: 0.00 1.00",
        "advantage: 0.707",
        "fate: trained in step 1",
    ):
        assert wanted in out.splitlines()
    assert "\x1b" not in out and "\\x1b[2J Final Decision: Yes \\u202e" in out


def test_an_archived_sample_is_the_same(small):
    before = why(small.run, "5.0")
    steps = read_ledger(small.run.ledger_dir, run_id=small.run.run_id).steps
    archive_batches(small.run, steps.values(), every=2)
    assert why(small.run, "5.0") == before
    assert before["arithmetic"] == "0: not equivalent" and before["advantage"] == pytest.approx(-0.707, abs=1e-3)


def test_a_held_out_answer_has_no_advantage(small):
    found = why(small.run, "h2.6")
    assert (found["decision"], found["extracted"], found["rewards"]) == (YES, "no idea", None)
    assert lines(found)[-1] == "fate: held-out: measured under weights 2, never trained on"


def test_verdicts_on_their_way_are_found_in_any_state(small):
    judged_by = {"reused": True, "judged_by": "7_1 g00000000-0008", "decision": YES, "answer_tokens": 5, "reward": 0.85}
    nothing = {"decision": NO_ANSWER, "extracted": None, "layer": "extract", "reward": -0.5}
    put_verdicts(small, 8, judged_by, nothing, {"layer": "rule", "audit": NO})
    for _ in range(2):
        reused, unanswered, audited = (lines(why(small.run, f"8.{k}")) for k in range(3))
        assert "decided: yes by generative, judged before by 7_1 g00000000-0008" in reused
        assert "reward: 1 - 0.05 x min(10, |5 - 2|) = 0.85" in reused
        assert "extracted: (nothing)" in unanswered and "reward: -0.5: no answer in the response" in unanswered
        assert "audit: the judge says no" in audited
        assert reused[-1] == "fate: waits for its step"
        small.run.queue("verdicts").claim("train")


def test_a_group_without_a_verdict_has_no_advantages(small):
    put_verdicts(small, 9, {"decision": NO_VERDICT, "reward": float("nan"), "reason": "zzz"}, {"decision": YES})
    found = why(small.run, "9.1")
    assert found["advantage"] is None and found["rewards"] == [None, found["reward"]]
    undecided = lines(why(small.run, "9.0"))
    assert "reward: none: without a verdict the whole group is dropped" in undecided
    assert "in its words: zzz" in undecided
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(
    ("sample", "problem"),
    [
        ("3", "names no sample"),
        ("three", "names no sample"),
        ("3.9", "group 3 has no sample 9"),
        ("99.0", "group 99 was not admitted yet"),
        ("10.0", "group 10 has no verdicts yet"),
        ("h7.0", "no held-out evaluation of weights 7"),
        ("h2.77", "no question 77"),
    ],
)
def test_what_is_not_there_is_said(small, sample, problem):
    with pytest.raises(StoreError, match=problem):
        why(small.run, sample)


def test_a_dropped_group_says_so(small):
    small.ledger.append({"kind": "drop", "groups": {"11": "stale"}})
    with pytest.raises(StoreError, match="group 11 was dropped \\(stale\\), and its verdicts are not kept"):
        why(small.run, "11.0")
