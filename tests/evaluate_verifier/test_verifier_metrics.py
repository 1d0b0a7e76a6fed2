"""Figures of a judge, against values worked out by hand or by another formula."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grhpc.evaluate_verifier.metrics import Counts, Share, calibrate, count, wilson


def test_wilson_against_the_literature():
    """Newcombe 1998, table I: 81 of 263, and 0 of 20."""
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


@given(st.integers(0, 500), st.integers(1, 500))
def test_an_interval_holds_its_share_and_stays_within_bounds(k, n):
    k = min(k, n)
    low, high = wilson(k, n)
    assert 0.0 <= low <= k / n + 1e-12 and k / n - 1e-12 <= high <= 1.0


def test_counts_tell_the_four_cells_apart():
    counts = count(
        [(True, True)] * 4 + [(True, False)] * 1 + [(False, True)] * 2 + [(False, False)] * 3 + [(None, True)]
    )
    assert counts == Counts(true_yes=4, false_yes=1, false_no=2, true_no=3, no_verdict=1)
    assert counts.precision == Share(4, 5)
    assert counts.recall == Share(4, 6)
    assert counts.agreement == Share(7, 10)
    assert counts.undecided == Share(1, 11)
    assert counts.f1 == pytest.approx(2 * 0.8 * (4 / 6) / (0.8 + 4 / 6))
    low, high = counts.f1_interval
    assert low < counts.f1 < high


def test_kappa_is_agreement_beyond_chance():
    """Cohen's own kind of example: 45, 15, 25, 15 of 100 is 0.1304."""
    assert Counts(45, 15, 25, 15).kappa == pytest.approx(0.1304, abs=5e-5)
    assert Counts(50, 0, 0, 50).kappa == pytest.approx(1.0)
    assert Counts(10, 10, 10, 10).kappa == pytest.approx(0.0)


def test_what_cannot_be_computed_is_missing():
    empty = Counts(no_verdict=3)
    assert (empty.precision.value, empty.recall.interval, empty.f1, empty.f1_interval, empty.kappa) == (None,) * 5
    assert Counts(true_no=5).precision.value is None
    assert Counts(true_yes=5).kappa is None
    assert calibrate([], []) is None


def test_a_calibrated_judge_has_no_calibration_error():
    found = calibrate([0.75] * 4 + [0.25] * 4, [True] * 3 + [False] + [True] + [False] * 3)
    assert found.ece == pytest.approx(0.0)
    assert found.brier == pytest.approx(0.1875)
    assert [(b.num, b.mean, b.labelled_yes) for b in found.bins] == [(4, 0.25, 0.25), (4, 0.75, 0.75)]


def test_an_overconfident_judge_has_one():
    found = calibrate([1.0, 1.0, 1.0, 1.0], [True, True, True, False])
    assert found.ece == pytest.approx(0.25)
    assert found.brier == pytest.approx(0.25)
