"""Audit: every admitted group in exactly one place, and what is not is named."""

from grhpc.records import Trained
from grhpc.report.audit import audit, group_places, lines
from grhpc.store.ledger import read_ledger
from grhpc.store.recorded import archive_batches
from grhpc.store.shard import read_shard, write_shard

EXACTLY = "every admitted group is in exactly one place, and every recorded batch is as it was trained"


def test_a_run_in_order(small):
    result = audit(small.run)
    assert result["in_order"]
    assert (result["admitted"], result["fates"], result["in_flight"]) == (12, {"trained": 8}, {"prompts/ready": 4})
    assert result["once_each"] and lines(result)[-1] == EXACTLY


def test_drops_are_fates_with_their_reasons(small):
    small.ledger.append({"kind": "drop", "groups": {"8": "stale", "9": "no_verdict"}, "step": 2})
    result = audit(small.run)
    assert result["fates"] == {"dropped:no_verdict": 1, "dropped:stale": 1, "trained": 8}
    assert result["fated_but_queued"] == [8, 9] and result["in_order"] and not result["once_each"]
    assert lines(result)[-1].startswith(
        "in order: no group is lost and none counts twice, but 2 stand in a second place"
    )
    assert any("removes such a shard" in line and line.endswith(": 8, 9") for line in lines(result))


def test_a_failed_shard_is_evidence_and_not_taken_for_work(small):
    for _ in range(small.run.config().store.max_attempts):
        small.run.queue("prompts").claim("test").fail("too hard")
    small.ledger.append({"kind": "drop", "groups": {str(g): "failed" for g in range(8, 12)}, "step": 2})
    result = audit(small.run)
    assert result["fated_in_failed"] == [8, 9, 10, 11] and result["fated_but_queued"] == [] and result["in_order"]
    assert any("stays as evidence" in line for line in lines(result))


def test_what_a_finished_run_left_in_its_queues_is_said_to_stay(small):
    small.ledger.append({"kind": "drop", "groups": {str(g): "run_ended" for g in range(8, 12)}})
    small.ledger.append({"kind": "finish"})
    result = audit(small.run)
    assert result["left_behind"] == [8, 9, 10, 11] and result["fated_but_queued"] == [] and result["in_order"]


def test_a_finished_run_with_an_open_group_is_not_in_order(small):
    small.ledger.append({"kind": "finish"})
    result = audit(small.run)
    assert result["left_at_the_end"] == [8, 9, 10, 11] and not result["in_order"]


def test_a_lost_group_is_named(small):
    small.ledger.append({"kind": "admit", "first": 12, "count": 2, "version": 2})
    result = audit(small.run)
    assert result["lost"] == [12, 13] and not result["in_order"]
    assert any("lost" in line and "12, 13" in line for line in lines(result)) and lines(result)[-1] == "NOT in order"


def test_a_group_delivered_twice_is_noted_and_counted_once(small):
    small.rollouts(8, 4)
    result = audit(small.run)
    assert result["twice_in_queues"] == [8, 9, 10, 11] and not result["once_each"]
    assert result["in_flight"] == {"rollouts/ready": 4} and result["in_order"]
    assert EXACTLY not in lines(result)


def test_a_batch_without_the_ledgers_groups_is_named(small):
    path = small.run.batch_path(2, 1)
    rows = read_shard(path, Trained, run_id=small.run.run_id)
    write_shard(path, rows[2:], run_id=small.run.run_id)
    result = audit(small.run)
    assert result["damaged_batches"] == [2] and not result["in_order"]
    assert any(path.name in line for line in lines(result)) and lines(result)[-1] == "NOT in order"


def test_an_archived_batch_is_read_and_held_against_the_ledger(small):
    steps = read_ledger(small.run.ledger_dir, run_id=small.run.run_id).steps
    whole = small.run.batch_path(2, 1).read_bytes()
    archive_batches(small.run, steps.values(), every=2)
    assert audit(small.run)["once_each"]
    path = small.run.archive_path(1, 2)
    other = bytes([whole[200] ^ 1])
    path.write_bytes(path.read_bytes().replace(whole, whole[:200] + other + whole[201:]))
    result = audit(small.run)
    assert result["damaged_batches"] == [2] and path.name in result["problems"][0] and not result["in_order"]


def test_a_batch_that_is_nowhere_is_named(small):
    small.run.batch_path(1, 1).unlink()
    assert audit(small.run)["damaged_batches"] == [1]


def test_heldout_shards_hold_no_training_groups(small):
    small.ask_heldout(10)
    assert small.run.queue("prompts").counts()["ready"] == 2
    assert set(group_places(small.run)) == {8, 9, 10, 11}


def test_who_changed_which_setting_when_is_said(small):
    settings = {"store.lease_s": [600.0, 60.0], "cluster.train.account": ["", "physics\x1b[2J"]}
    small.run.amend(small.run.config(), changes=[{"t": 1.8e9, "by": "ada", "settings": settings}])
    found = audit(small.run)
    assert [line for line in lines(found) if line.startswith("changed: ")] == [
        "changed: store.lease_s 600.0 -> 60.0, by ada, 2027-01-15 08:00 UTC",
        "changed: cluster.train.account '' -> 'physics\\x1b[2J', by ada, 2027-01-15 08:00 UTC",
    ]
    assert found["changes"][0]["settings"] == settings
