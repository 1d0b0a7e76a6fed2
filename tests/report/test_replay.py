"""Replay shows a recorded step as it was, from its own file or an archive, and a model's text stays text."""

import argparse
import json

import pytest

from grhpc.errors import CorruptFile, GrhpcError
from grhpc.replay import command, replay
from grhpc.store.ledger import read_ledger
from grhpc.store.recorded import archive_batches


def arguments(run, step, group=None, as_json=False):
    return argparse.Namespace(run=str(run.root), step=step, group=group, json=as_json)


def test_a_steps_groups_and_rewards(small, capsys):
    assert command(arguments(small.run, 2)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("step 2 at weights 1, s000002-g0001.parquet")
    assert sum(line.startswith("group ") and ": 0.00 1.00 " in line for line in lines) == 4


def test_a_group_whole_is_printable(small, capsys):
    assert command(arguments(small.run, 1, group=3)) == 0
    out = capsys.readouterr().out
    assert small.rows[3]["question"] in out and "reward 1.00, yes by generative" in out
    assert "\x1b" not in out and "\\x1b[2J Final Decision: Yes \\u202e" in out


def test_json_is_whole(small, capsys):
    command(arguments(small.run, 1, as_json=True))
    step = json.loads(capsys.readouterr().out)
    assert step["groups"] == [0, 1, 2, 3] and len(step["rollouts"]) == 8


def test_an_archived_step_is_the_same(small):
    before = replay(small.run, 2)
    steps = read_ledger(small.run.ledger_dir, run_id=small.run.run_id).steps
    assert archive_batches(small.run, steps.values(), every=2) == [] and not list(small.run.batches_dir.iterdir())
    assert replay(small.run, 2) == before


def test_what_is_not_there_is_said(small):
    with pytest.raises(GrhpcError, match="step 9 is not recorded"):
        command(arguments(small.run, 9))
    with pytest.raises(GrhpcError, match="step 1 has no group 77"):
        command(arguments(small.run, 1, group=77))


def test_a_changed_batch_is_refused(small):
    path = small.run.batch_path(1, 1)
    path.write_bytes(small.run.batch_path(2, 1).read_bytes())
    with pytest.raises(CorruptFile):
        replay(small.run, 1)
