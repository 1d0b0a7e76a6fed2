"""Counts of a judge's decisions against labels, and what follows from them.

Does not know: judges, files. Invariant: a figure whose denominator is zero is None, never 0 or 1; a pair without a
verdict is in no figure but the share of those without.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Interval = tuple[float, float]

Z = 1.959964  # of a two-sided 95 % interval
NUM_BINS = 10


@dataclass(frozen=True)
class Share:
    """`k` of `n`, with its 95 % Wilson interval."""

    k: int
    n: int

    @property
    def value(self) -> float | None:
        return self.k / self.n if self.n else None

    @property
    def interval(self) -> Interval | None:
        return wilson(self.k, self.n) if self.n else None


@dataclass(frozen=True)
class Counts:
    """Decisions of one judge on labelled pairs: accepted or not, right or not, and those without a verdict."""

    true_yes: int = 0
    false_yes: int = 0
    false_no: int = 0
    true_no: int = 0
    no_verdict: int = 0

    @property
    def decided(self) -> int:
        return self.true_yes + self.false_yes + self.false_no + self.true_no

    @property
    def precision(self) -> Share:
        return Share(self.true_yes, self.true_yes + self.false_yes)

    @property
    def recall(self) -> Share:
        return Share(self.true_yes, self.true_yes + self.false_no)

    @property
    def agreement(self) -> Share:
        return Share(self.true_yes + self.true_no, self.decided)

    @property
    def undecided(self) -> Share:
        return Share(self.no_verdict, self.decided + self.no_verdict)

    @property
    def f1(self) -> float | None:
        wrong = self.false_yes + self.false_no
        return 2 * self.true_yes / (2 * self.true_yes + wrong) if self.true_yes + wrong else None

    @property
    def f1_interval(self) -> Interval | None:
        """F1 is 2 J / (1 + J) of the Jaccard share J = true_yes / (true_yes + wrong), and rises with it."""
        jaccard = Share(self.true_yes, self.true_yes + self.false_yes + self.false_no).interval
        return None if jaccard is None else (2 * jaccard[0] / (1 + jaccard[0]), 2 * jaccard[1] / (1 + jaccard[1]))

    @property
    def kappa(self) -> float | None:
        """Cohen's kappa: agreement beyond what the two shares of yes would give by chance."""
        n = self.decided
        if not n:
            return None
        judge, label = (self.true_yes + self.false_yes) / n, (self.true_yes + self.false_no) / n
        chance = judge * label + (1 - judge) * (1 - label)
        return round(((self.true_yes + self.true_no) / n - chance) / (1 - chance), 12) + 0.0 if chance < 1 else None


def wilson(k: int, n: int) -> Interval:
    """The 95 % Wilson score interval of k successes in n trials, n > 0."""
    p, z2 = k / n, Z * Z
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def count(decisions: Iterable[tuple[bool | None, bool]]) -> Counts:
    """Counts of (accepted, label); accepted is None where there is no verdict."""
    cells = {(True, True): 0, (True, False): 0, (False, True): 0, (False, False): 0, None: 0}
    for accepted, label in decisions:
        cells[None if accepted is None else (accepted, label)] += 1
    return Counts(
        cells[True, True], cells[True, False], cells[False, True], cells[False, False], no_verdict=cells[None]
    )


@dataclass(frozen=True)
class Bin:
    """Pairs whose probability of yes lies in [low, high): how many, their mean probability, the share labelled yes."""

    low: float
    high: float
    num: int
    mean: float
    labelled_yes: float


@dataclass(frozen=True)
class Calibration:
    """`ece` is the mean distance of probability and truth over equally wide bins; `brier` the mean squared error."""

    num: int
    ece: float
    brier: float
    bins: list[Bin]


def calibrate(probabilities: Sequence[float], labels: Sequence[bool]) -> Calibration | None:
    """How well the probability of yes tells the share of yes; None where there is no pair with one."""
    n = len(probabilities)
    if not n:
        return None
    inside: list[list[tuple[float, bool]]] = [[] for _ in range(NUM_BINS)]
    for p, label in zip(probabilities, labels, strict=True):
        inside[min(NUM_BINS - 1, int(p * NUM_BINS))].append((p, label))
    bins = [
        Bin(
            number / NUM_BINS,
            (number + 1) / NUM_BINS,
            len(found),
            sum(p for p, _ in found) / len(found),
            sum(label for _, label in found) / len(found),
        )
        for number, found in enumerate(inside)
        if found
    ]
    ece = sum(b.num * abs(b.mean - b.labelled_yes) for b in bins) / n
    brier = sum((p - label) ** 2 for p, label in zip(probabilities, labels, strict=True)) / n
    return Calibration(n, ece, brier, bins)
