"""Advantages against worked examples and their laws."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grhpc.grpo.advantage import group_advantages, is_zero_variance

rewards = st.lists(st.sampled_from([-0.5, 0.0, 0.5, 0.75, 0.95, 1.0]), min_size=2, max_size=16)


def test_worked_example():
    """Mean 0.25; squared deviations 0.0625 x 2 + 0.5625 + 0.5625 = 1.25 over 3: deviation sqrt(5/12)."""
    found = group_advantages([0.0, 1.0, 0.5, -0.5])
    deviation = math.sqrt(1.25 / 3) + 1e-6
    np.testing.assert_allclose(found, [-0.25 / deviation, 0.75 / deviation, 0.25 / deviation, -0.75 / deviation])


def test_one_right_of_two():
    """The unbiased deviation of (0, 1) is sqrt(1/2), not 1/2."""
    np.testing.assert_allclose(group_advantages([0.0, 1.0]), [-math.sqrt(0.5), math.sqrt(0.5)], rtol=1e-5)


@given(rewards)
def test_sum_is_zero_and_order_is_kept(values):
    found = group_advantages(values)
    assert abs(found.sum()) < 1e-6
    for i, j in zip(np.argsort(values, kind="stable"), np.argsort(found, kind="stable"), strict=True):
        assert values[i] == values[j]


@given(st.floats(-1, 1), st.integers(2, 9))
def test_equal_rewards_teach_exactly_nothing(value, size):
    assert is_zero_variance([value] * size)
    assert group_advantages([value] * size).tolist() == [0.0] * size


@pytest.mark.parametrize("values", [[], [1.0], [0.0, math.nan], [math.inf, 0.0]])
def test_group_without_all_its_verdicts_has_no_advantages(values):
    with pytest.raises(ValueError, match="reward"):
        group_advantages(values)
