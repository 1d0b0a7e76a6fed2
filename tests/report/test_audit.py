"""Audit: every admitted group in exactly one place, and what is not is named."""

from grhpc.records import Trained
from grhpc.report.audit import audit, group_places, groups_of, lines
from grhpc.store.shard import read_shard, write_shard


def test_a_run_in_order(small):
    result = audit(small.run)
    assert result["in_order"]
    assert (result["admitted"], result["fates"], result["in_flight"]) == (12, {"trained": 8}, {"prompts/ready": 4})
    assert lines(result)[-1] == "every admitted group is in exactly one place"


def test_drops_are_fates_with_their_reasons(small):
    small.ledger.append({"kind": "drop", "groups": {"8": "stale", "9": "no_verdict"}, "step": 2})
    result = audit(small.run)
    assert result["fates"] == {"dropped:no_verdict": 1, "dropped:stale": 1, "trained": 8}
    assert result["fated_but_queued"] == [8, 9] and result["in_order"]


def test_a_lost_group_is_named(small):
    small.ledger.append({"kind": "admit", "first": 12, "count": 2, "version": 2})
    result = audit(small.run)
    assert result["lost"] == [12, 13] and not result["in_order"]
    assert any("lost" in line and "12, 13" in line for line in lines(result)) and lines(result)[-1] == "NOT in order"


def test_a_group_delivered_twice_is_noted_and_counted_once(small):
    small.rollouts(8, 4)
    result = audit(small.run)
    assert result["twice_in_queues"] == [8, 9, 10, 11]
    assert result["in_flight"] == {"rollouts/ready": 4} and result["in_order"]


def test_a_batch_without_the_ledgers_groups_is_named(small):
    path = small.run.batch_path(2, 1)
    rows = read_shard(path, Trained, run_id=small.run.run_id)
    write_shard(path, rows[2:], run_id=small.run.run_id)
    result = audit(small.run)
    assert result["steps_without_right_groups"] == [2] and not result["in_order"]


def test_heldout_shards_hold_no_training_groups(small):
    assert list(groups_of("h000010-00000032-0008")) == [] and list(groups_of("g00000032-0003")) == [32, 33, 34]
    assert set(group_places(small.run)) == {8, 9, 10, 11}
