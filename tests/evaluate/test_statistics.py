"""Every figure against arithmetic by hand, brute force, or a simulation whose truth is known."""

import itertools
import json
import math
import random

import pytest

from grhpc.evaluate import figures
from grhpc.evaluate.figures import Asked
from grhpc.evaluate.statistics import average, summarise
from grhpc.intervals import wilson
from tests.evaluated import NAN, entry, score, scores


def asked(*means, samples=1):
    return [Asked(str(i), (m,) * samples, {}) for i, m in enumerate(means)]


def test_one_sample_each_is_wilsons_interval_of_the_share():
    found = summarise(scores([1, 1, 1, 0, 0, 1, 0, 0, 0, 0]), entry())
    assert found["value"] == 0.4 and (found["questions"], found["samples"]) == (10, 10)
    assert found["interval"] == pytest.approx(wilson(4, 10))
    assert found["se"] == pytest.approx(math.sqrt(0.4 * 0.6 / 9))
    assert found["mean_at_k"] is None and found["samples_per_question"] == 1


def test_a_questions_samples_are_one_observation():
    rows = [score(item, right, k) for item in range(10) for k, right in enumerate([item < 5] * 8)]
    found = summarise(rows, entry())
    assert found["value"] == 0.5 and found["samples_per_question"] == 8
    assert found["interval"] == pytest.approx(wilson(5, 10)), "80 samples tell no more than 10 here"
    mixed = [score(item, (item + k) % 2, k) for item in range(10) for k in range(8)]
    low, high = summarise(mixed, entry())["interval"]
    assert high - low < 0.5 * (found["interval"][1] - found["interval"][0]), "questions that are alike tell more"
    assert summarise(mixed, entry())["mean_at_k"]["value"] == 0.5


def test_the_order_of_the_scores_does_not_matter():
    rows = [score(i, (i * k) % 3 == 0, k, groups={"g": "ab"[i % 2]}) for i in range(7) for k in range(3)]
    shuffled = random.Random(1).sample(rows, len(rows))
    of = entry("macro:g", ["g"], [1, 2])
    assert json.dumps(summarise(rows, of)) == json.dumps(summarise(shuffled, of))


def test_means_over_groups():
    rows = scores([1, 1, 1, 1, 1, 0, 1, 0], groups={"g": "large"}) + [
        score("x", 0, groups={"g": "small"}),
        score("y", 1, groups={"g": "small"}),
        score("z", 0),
    ]
    found = summarise(rows, entry("macro:g", ["g"]))
    assert found["value"] == pytest.approx((0.75 + 0.5 + 0) / 3) == found["macro"]["g"]["value"]
    assert found["micro"]["value"] == pytest.approx(7 / 11)
    assert {name: of["n"] for name, of in found["groups"]["g"].items()} == {"large": 8, "small": 2, "unnamed": 1}
    assert found["groups"]["g"]["large"]["interval"] == pytest.approx(wilson(6, 8))
    pooled = (8 * 0.75 * 0.25 + 2 * 0.25) / 8
    by_hand = math.sqrt(0.75 * 0.25 / 7 + 0.5 / 2 + pooled) / 3
    assert found["se"] == pytest.approx(by_hand), "a group of one takes the variance of the others"


def test_groups_of_one_question_each_are_plain_questions():
    rows = [score(i, i % 2, groups={"g": str(i)}) for i in range(6)]
    found = summarise(rows, entry("macro:g", ["g"]))
    assert found["macro"]["g"] == found["micro"]


def test_harmonic_mean_is_of_percentages_raised_by_one():
    assert figures.harmonic_mean([0.0, 0.0]) == pytest.approx(0.01), "nothing right is one percent"
    assert figures.harmonic_mean([0.5, 0.5]) == pytest.approx(0.51)
    assert figures.harmonic_mean([0.0, 0.99]) == pytest.approx(2 / (1 / 1 + 1 / 100) / 100)
    assert figures.harmonic_mean([1.0, 1.0]) == 1.0


def test_the_harmonic_means_interval_holds_the_truth():
    """The bootstrap holds it in two of three trials here, as tasks of which nothing was right never vary in it."""
    truths = [0.3, 0.2, 0.03, 0.45, 0.04, 0.0, 0.06, 0.12, 0.25, 0.01]
    truth, generator, held = figures.harmonic_mean(truths), random.Random(7), 0
    for _ in range(60):
        groups = {
            str(g): [Asked(str(i), (float(generator.random() < p),), {}) for i in range(100)]
            for g, p in enumerate(truths)
        }
        low, high = figures.harmonic(groups)["interval"]
        held += low <= truth <= high
    assert held >= 53


@pytest.mark.parametrize(("alpha", "beta", "num", "samples"), [(0.3, 0.9, 30, 32), (0.2, 0.2, 40, 8), (5, 0.3, 30, 32)])
def test_the_interval_of_several_samples_holds_the_truth(alpha, beta, num, samples):
    """Questions of known difficulty; 95 % is meant, 500 trials: three standard errors below are 92 %."""
    generator, held, truth = random.Random(3), 0, alpha / (alpha + beta)
    for _ in range(500):
        chances = [generator.betavariate(alpha, beta) for _ in range(num)]
        values = [sum(generator.random() < p for _ in range(samples)) / samples for p in chances]
        low, high = figures.share(values, samples)["interval"]
        held += low <= truth <= high
    assert held >= 0.92 * 500


def test_the_interval_of_a_mean_over_uneven_groups_holds_the_truth():
    sizes, truths = [3, 5, 10, 40, 200, 1], [0.9, 0.2, 0.5, 0.6, 0.3, 0.5]
    truth, generator, held = sum(truths) / 6, random.Random(5), 0
    for _ in range(400):
        groups = {
            str(g): asked(*(float(generator.random() < p) for _ in range(n)))
            for g, (n, p) in enumerate(zip(sizes, truths, strict=True))
        }
        low, high = figures.macro(groups)["interval"]
        held += low <= truth <= high
    assert held >= 0.92 * 400


@pytest.mark.parametrize(("n", "right"), [(5, 0), (5, 1), (6, 3), (7, 7)])
def test_pass_at_k_counts_the_subsets_that_hold_a_right_one(n, right):
    marks = [True] * right + [False] * (n - right)
    for k in range(1, n + 1):
        subsets = list(itertools.combinations(marks, k))
        assert figures.chance(n, right, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_pass_at_k_is_the_mean_over_questions():
    rows = [score(i, k < i, k) for i in range(4) for k in range(4)]  # 0, 1, 2, 3 of 4 right
    found = summarise(rows, entry(pass_at=[1, 2, 4, 8]))["pass_at"]
    assert found["1"]["value"] == pytest.approx(6 / 16)
    assert found["2"]["value"] == pytest.approx((0 + 1 / 2 + 5 / 6 + 1) / 4)
    assert found["4"]["value"] == 0.75 and found["4"]["interval"] == pytest.approx(wilson(3, 4))
    assert found["8"] == {"value": None, "se": None, "interval": None}, "of four samples, nothing is known of eight"


def test_rates_and_layers():
    rows = [
        score(0, 1, num_tokens=10),
        score(1, 0, num_tokens=30, finish_reason="length", extracted=None, layer="extract"),
        score(2, NAN, num_tokens=20, layer="generative"),
        score(3, 0, num_tokens=0, finish_reason="prompt_too_long", extracted=None, layer="extract"),
        score(4, 0, num_tokens=0, finish_reason="refused", extracted=None, layer="extract"),
    ]
    found = summarise(rows, entry())
    assert found["value"] == 0.2, "without a verdict, without an answer, and not asked are all wrong"
    for rate in ("truncated", "missing", "undecided", "too_long", "refused"):
        assert (found[rate]["num"], found[rate]["value"]) == (1, 0.2), rate
    assert found["tokens_mean"]["value"] == 20, "of what was answered"
    assert found["layers"] == {"exact": 1, "extract": 3, "generative": 1}


@pytest.mark.parametrize(
    "rows",
    [
        [],
        scores([1]),
        scores([NAN]),
        scores([1] * 5),
        scores([0] * 5, groups={"g": "a"}),
        [score(0, 1, k) for k in range(4)],
        scores([0.5] * 4),
        [score(0, 0, finish_reason="prompt_too_long", extracted=None)],
        [score(0, 1, num_tokens=None), score(1, 1)],
    ],
)
def test_nothing_is_ever_nan(rows):
    found = summarise(rows, entry("harmonic:g", ["g"], [1, 2]))
    json.dumps({"part": found, "average": average([found, found])}, allow_nan=False)
    assert (found["value"] is None) == (not rows)


def test_all_right_is_not_certain():
    found = summarise(scores([1] * 20), entry())
    assert found["se"] == 0 and found["interval"] == pytest.approx(wilson(20, 20)), "read the interval, not the error"
    alike = figures.micro(asked(*[0.5] * 10, samples=4))
    assert alike["interval"] == pytest.approx([0.5 - 0.17, 0.5 + 0.17], abs=0.02), "at most as sure as 40 throws"


def test_scores_between_wrong_and_right_are_taken_as_they_are():
    assert figures.share([0.25, 0.75, 0.5])["value"] == 0.5
    assert summarise(scores([0.25, 1, 7, -3]), entry())["value"] == pytest.approx((0.25 + 1 + 1 + 0) / 4)


def test_groups_that_cannot_be_read_are_no_groups():
    rows = scores([1, 0], groups=["x"])
    assert summarise(rows, entry("macro:g", ["g"]))["groups"]["g"]["unnamed"]["n"] == 2


def test_the_average_of_benchmarks_adds_the_squares_of_their_errors():
    first, second = figures.share([1.0, 0.0, 1.0, 1.0]), figures.share([0.0, 0.0, 1.0, 0.0, 0.0])
    found = average([first, second, figures.figure(None)])
    assert found["benchmarks"] == 2 and found["value"] == pytest.approx((0.75 + 0.2) / 2)
    assert found["se"] == pytest.approx(math.hypot(first["se"], second["se"]) / 2)
    assert found["interval"][0] < found["value"] < found["interval"][1]
