"""When failures are a question's fault, and when chance."""

import random

import pytest

from grhpc.engine.doubt import CHANCE, SMALL, Doubt


def failures_needed(missed_each: int) -> int:
    """Of a question that always fails alone, where after each failure so many of the small ones fail too."""
    doubt = Doubt()
    while not doubt.is_settled:
        doubt.failed += 1
        assert doubt.is_open and not doubt.is_settled, "the small ones come first"
        doubt.missed += missed_each
        doubt.passed += SMALL - missed_each
        assert not doubt.is_open
    return doubt.failed


def test_five_failures_settle_it_where_all_small_ones_pass_and_more_where_some_fail():
    assert [failures_needed(missed) for missed in (0, 1, 4, 6)] == [5, 8, 22, 52]


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.8])
def test_failures_at_random_are_hardly_ever_taken_for_a_fault(share):
    """The chance that a question which fails as often as any is blamed before it is answered: the mean, over what the
    small ones meet, of `share` to the power of the failures that it would take."""
    coin, chances = random.Random(3), []
    for _ in range(500):
        doubt, chance = Doubt(), 1.0
        while not doubt.is_settled and chance > CHANCE**2:
            missed = sum(coin.random() < share for _ in range(SMALL))
            doubt.failed, doubt.missed, doubt.passed = (
                doubt.failed + 1,
                doubt.missed + missed,
                doubt.passed + SMALL - missed,
            )
            chance *= share
        chances.append(chance)
    assert sum(chances) / len(chances) < 2 * CHANCE


def test_a_server_that_breaks_under_many_puts_none_apart_at_first():
    assert [Doubt(broke=times).is_apart for times in range(3)] == [False, False, True]
    assert Doubt(failed=1).is_apart
