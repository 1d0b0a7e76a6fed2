"""Against SciPy 1.17 and statsmodels 0.15, whose answers stand here as numbers: the project needs neither."""

import math

import pytest

from grhpc.intervals import binomial_p, combined, holm, student_p, student_quantile, wilson


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [
        (0, 1, 0.0, 0.7934507),
        (3, 10, 0.1077913, 0.6032219),
        (10, 10, 0.7224672, 1.0),
        (50, 100, 0.4038315, 0.5961685),
        (827, 1319, 0.6005581, 0.6526846),
    ],
)
def test_wilson(k, n, low, high):
    assert wilson(k, n) == pytest.approx((low, high), abs=1e-6)


@pytest.mark.parametrize(
    ("df", "quantile"),
    [(1, 12.706205), (2, 4.302653), (4, 2.776445), (7.5, 2.33304), (29, 2.04523), (1318, 1.961766), (1e6, 1.959966)],
)
def test_quantile_of_student(df, quantile):
    assert student_quantile(df) == pytest.approx(quantile, rel=1e-6)


@pytest.mark.parametrize(
    ("t", "df", "p"),
    [
        (0.5, 3, 0.65144796),
        (-2.1, 29, 0.044541958),
        (4.5, 9, 0.0014889494),
        (12.0, 5, 7.0894925e-05),
        (1.2, 500, 0.23070761),
        (0.0, 4, 1.0),
    ],
)
def test_p_of_student(t, df, p):
    assert student_p(t, df) == pytest.approx(p, rel=1e-6)


@pytest.mark.parametrize(
    ("first", "second", "p"),
    [
        (0, 0, 1.0),
        (0, 5, 0.0625),
        (3, 10, 0.09228515625),
        (7, 7, 1.0),
        (40, 61, 0.04604406693),
        (1, 16, 2.746582031e-4),
    ],
)
def test_exact_p_of_a_fair_coin_is_that_of_mcnemar(first, second, p):
    assert binomial_p(first, first + second) == pytest.approx(p, rel=1e-8)
    assert binomial_p(second, first + second) == binomial_p(first, first + second)


def test_a_fair_coin_thrown_thousands_of_times():
    assert binomial_p(3000, 6000) == 1.0
    assert 0 < binomial_p(2000, 6000) < 1e-100


def test_holm():
    assert holm([0.01, 0.04, 0.03, 0.005, 0.2]) == pytest.approx([0.04, 0.09, 0.09, 0.025, 0.2])
    assert holm([]) == []


def test_combined_intervals_of_normal_ones_add_squares_and_stay_in_range():
    low, high = combined([0.5, 0.7], [(0.4, 0.6), (0.5, 0.9)])
    assert (low, high) == pytest.approx((0.6 - math.hypot(0.1, 0.2) / 2, 0.6 + math.hypot(0.1, 0.2) / 2))
    assert combined([1.0, 1.0, 1.0], [(0.9, 1.0)] * 3)[1] == 1.0
    assert combined([0.0, 0.0], [(0.0, 0.3)] * 2)[0] == 0.0
