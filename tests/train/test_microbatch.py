"""Every sequence is in exactly one micro-batch, every replica has equally many, and padding counts for nothing."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from grhpc.train.microbatch import pad, plan


@given(
    lengths=st.lists(st.integers(2, 50), max_size=40),
    micro_batch_size=st.integers(1, 9),
    num_replicas=st.integers(1, 5),
)
def test_plan_holds_every_sequence_once(lengths, micro_batch_size, num_replicas):
    shares = plan(lengths, micro_batch_size, num_replicas)
    assert len(shares) == num_replicas
    assert len({len(share) for share in shares}) == 1
    assert len(shares[0]) >= 1
    rows = [i for share in shares for micro_batch in share for i in micro_batch]
    assert sorted(rows) == list(range(len(lengths)))
    assert all(len(micro_batch) <= micro_batch_size for share in shares for micro_batch in share)
    assert plan(lengths, micro_batch_size, num_replicas) == shares


def test_plan_puts_like_lengths_together():
    [share] = plan([3, 50, 4, 49, 5, 48], micro_batch_size=3, num_replicas=1)
    assert [sorted(rows) for rows in share] == [[1, 3, 5], [0, 2, 4]]


def test_pad_aligns_inputs_targets_and_columns():
    tokens = [np.asarray([1, 2, 3, 4]), np.asarray([5, 6, 7, 8, 9, 10])]
    columns = {"score": [np.asarray([0.3, 0.4], dtype="f4"), np.asarray([0.9, 1.0], dtype="f4")]}
    batch = pad([1, 0], tokens, [2, 4], columns, multiple=4, device=torch.device("cpu"))
    assert batch.inputs.tolist() == [[5, 6, 7, 8, 9, 0, 0, 0], [1, 2, 3, 0, 0, 0, 0, 0]]
    assert batch.targets.tolist() == [[6, 7, 8, 9, 10, 0, 0, 0], [2, 3, 4, 0, 0, 0, 0, 0]]
    assert batch.mask.tolist() == [[0, 0, 0, 1, 1, 0, 0, 0], [0, 1, 1, 0, 0, 0, 0, 0]]
    np.testing.assert_allclose(batch.columns["score"][:, 1:5], [[0, 0, 0.9, 1.0], [0.3, 0.4, 0, 0]], rtol=1e-6)
    assert int(batch.num_tokens) == 4


def test_pad_makes_an_empty_row_where_there_is_nothing():
    batch = pad([], [], [], {"score": []}, multiple=2, device=torch.device("cpu"))
    assert batch.inputs.shape == (1, 2)
    assert int(batch.num_tokens) == 0
