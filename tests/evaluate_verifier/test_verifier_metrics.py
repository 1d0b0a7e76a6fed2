"""Figures of a judge, against values worked out by hand or by another formula."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grhpc.evaluate_verifier.metrics import Counts, Share, calibrate, count, share_of, share_over
from grhpc.intervals import student_quantile, wilson

parts = st.lists(st.integers(1, 9).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), min_size=1, max_size=60)


@given(parts)
def test_an_interval_holds_its_share_and_stays_within_bounds(questions):
    share = share_over(questions)
    low, high = share.interval
    assert (share.k, share.n) == (sum(k for k, _ in questions), sum(n for _, n in questions))
    assert 0.0 <= low <= share.value + 1e-12 and share.value - 1e-12 <= high <= 1.0


@given(st.lists(st.booleans(), min_size=1, max_size=300))
def test_one_answer_a_question_has_wilsons_own_interval(outcomes):
    share = share_of((str(number), outcome) for number, outcome in enumerate(outcomes))
    assert share.interval == wilson(sum(outcomes), len(outcomes))


def test_answers_that_only_repeat_their_question_count_once():
    """Five systems that always agree know no more than one: (n - 1) / n times its questions, by the sample variance."""
    alike = share_over([(5, 5)] * 30 + [(0, 5)] * 70)
    assert alike.effective == pytest.approx(99)
    assert alike.interval == wilson(0.3 * alike.effective, alike.effective, student_quantile(99))
    assert share_over([(5, 5)] * 40).interval == wilson(40, 40)
    assert share_over([(0, 5)] * 40).interval == wilson(0, 40)
    assert share_over([(3, 16)]).interval == wilson(3 / 16, 1)


def test_an_interval_covers_the_truth_as_often_as_it_says():
    """Questions that are easy or hard, six answers each: 95 %, where the interval that ignores questions has 70 %."""
    rng = random.Random(0)
    covered, naive = 0, 0
    for _ in range(400):
        easy = [rng.betavariate(0.6, 0.6) for _ in range(60)]
        share = share_over([(sum(rng.random() < p for _ in range(6)), 6) for p in easy])
        covered += share.interval[0] <= 0.5 <= share.interval[1]
        low, high = wilson(share.k, share.n)
        naive += low <= 0.5 <= high
    assert 0.92 * 400 <= covered <= 0.98 * 400
    assert naive < 0.8 * 400


def test_all_figures_go_by_question():
    """The same answers, each five times over, are as sure as they were once, not more."""
    once = [(str(n), n % 3 > 0, n % 4 > 0) for n in range(60)]
    counts, five = count(once), count(once * 5)
    assert five == Counts(*(5 * cell for cell in (counts.true_yes, counts.false_yes, counts.false_no, counts.true_no)))
    for name in ("precision", "recall", "agreement"):
        one, many = getattr(counts, name), getattr(five, name)
        assert many.value == one.value
        assert many.interval == pytest.approx(one.interval, abs=0.01)
    assert five.f1_interval == pytest.approx(counts.f1_interval, abs=0.02)


def test_counts_tell_the_four_cells_apart():
    told = [(True, True)] * 4 + [(True, False)] * 1 + [(False, True)] * 2 + [(False, False)] * 3 + [(None, True)]
    counts = count((str(number), *pair) for number, pair in enumerate(told))
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
