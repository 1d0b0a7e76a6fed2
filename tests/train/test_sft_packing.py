"""Packing: every example once an epoch, no row over its room, the same rows for everybody, little room unused."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sft_cases import make_examples

from grhpc.train.microbatch import pack_row
from grhpc.train.packing import RowStream, digest, num_steps, pack

CPU = torch.device("cpu")


@given(st.lists(st.integers(1, 50), max_size=300), st.integers(50, 200))
def test_every_example_is_in_one_row_and_no_row_is_over_full(lengths, room):
    rows = pack(lengths, range(len(lengths)), room)
    assert sorted(example for row in rows for example in row) == list(range(len(lengths)))
    assert all(0 < sum(lengths[i] for i in row) <= room for row in rows)


def test_rows_are_nearly_full():
    lengths = np.random.default_rng(0).lognormal(5.7, 0.5, 5000).astype(np.int64).clip(50, 4096)
    rows = pack(lengths, np.random.default_rng(1).permutation(5000).tolist(), 4096)
    assert lengths.sum() / (4096 * len(rows)) > 0.97


def test_stream_holds_every_example_once_an_epoch_in_an_order_of_its_own():
    lengths = np.random.default_rng(0).integers(5, 60, 200)
    stream = RowStream(lengths, 100, seed=3)
    first, second = stream.num_rows(1), stream.num_rows(2)
    epochs = [stream.rows(0, first), stream.rows(first, second - first)]
    for rows in epochs:
        assert sorted(example for row in rows for example in row) == list(range(200))
    assert epochs[0] != epochs[1]
    assert stream.rows(0, first) != RowStream(lengths, 100, seed=4).rows(0, first)
    assert first < stream.num_rows(1.5) < second


@pytest.mark.parametrize("first", [0, 3, 57, 140])
def test_rows_do_not_depend_on_what_was_asked_before(first):
    """A resumed process begins anywhere in the stream, also far into a later epoch."""
    lengths = np.random.default_rng(0).integers(5, 60, 100)
    stream = RowStream(lengths, 100, seed=3)
    all_of_it = [row for step in range(30) for row in stream.rows(5 * step, 5)]
    assert RowStream(lengths, 100, seed=3).rows(first, 8) == all_of_it[first : first + 8]
    assert stream.rows(first, 8) == all_of_it[first : first + 8]


def test_steps_cover_the_epochs():
    lengths = np.full(100, 30, dtype=np.int64)  # three a row of 100: 34 rows an epoch
    assert num_steps(lengths, 100, 0, 8, 1) == 5
    assert num_steps(lengths, 100, 0, 8, 2.5) == 11  # 85 rows
    assert num_steps(lengths, 100, 0, 1000, 1) == 1


def test_digest_names_data_and_rows():
    names = {digest("a", [(1, 2)]), digest("b", [(1, 2)]), digest("a", [(2, 1)]), digest("a", [(1,), (2,)])}
    assert len(names) == 4 and digest("a", [(1, 2)]) in names


def test_a_packed_row_keeps_each_examples_own_targets_and_counts_completions_only():
    examples = make_examples([[1, 2, 3, 4], [5, 6], [7, 8, 9]], [2, 1, 1])
    row = pack_row([2, 0, 1], {i: examples[i] for i in range(3)}, examples.prompt_lengths, multiple=4, device=CPU)
    assert row.inputs.tolist() == [[7, 8, 1, 2, 3, 5, 0, 0]]
    assert row.targets.tolist() == [[8, 9, 2, 3, 4, 6, 0, 0]]
    assert row.mask.tolist() == [[1, 1, 0, 1, 1, 1, 0, 0]]
    assert row.bounds == [0, 2, 5, 6, 8] and row.rows == [2, 0, 1]


def test_an_empty_row_counts_nothing():
    row = pack_row([], {}, [], multiple=2, device=CPU)
    assert row.bounds == [0, 2] and int(row.num_tokens) == 0
