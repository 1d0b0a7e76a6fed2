"""Counts of a judge's decisions against labels, and what follows from them.

Answers to one question are not independent: a question that a judge misreads it misreads each time. So an interval is
Wilson's for the number of independent answers that would be as sure as these are, by the variance between questions.

Does not know: judges, files. Invariant: a figure whose denominator is zero is None, never 0 or 1; a pair without a
verdict is in no figure but the share of those without; where every question has one answer, intervals are Wilson's own.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from grhpc.intervals import Interval, Z, student_quantile, wilson

NUM_BINS = 10


@dataclass(frozen=True)
class Share:
    """`k` of `n`, with its 95 % interval. `effective` is how many independent answers are as sure as these `n`, and
    `quantile` Student's where that had to be estimated."""

    k: int
    n: int
    effective: float = field(default=math.nan, compare=False)
    quantile: float = field(default=Z, compare=False)

    @property
    def value(self) -> float | None:
        return self.k / self.n if self.n else None

    @property
    def interval(self) -> Interval | None:
        if not self.n:
            return None
        effective = self.n if math.isnan(self.effective) else self.effective
        return wilson(self.k / self.n * effective, effective, self.quantile)


def share_over(questions: Iterable[tuple[int, int]]) -> Share:
    """The share of all answers, from (k, n) of every question, by the linearised variance between questions.

    Where all answers are alike there is no variance to go by: then a question counts as one answer.
    """
    parts = [(k, n) for k, n in questions if n]
    k, n = sum(k for k, _ in parts), sum(n for _, n in parts)
    if n == len(parts):
        return Share(k, n)
    if k in (0, n):
        return Share(k, n, len(parts))
    p, num = k / n, len(parts)
    variance = math.fsum((ki - p * ni) ** 2 for ki, ni in parts) * num / max(1, num - 1) / n**2
    effective = min(n, p * (1 - p) / variance) if variance else n
    return Share(k, n, effective if num > 1 else 1, student_quantile(num - 1) if num > 1 else Z)


def share_of(outcomes: Iterable[tuple[str, bool]]) -> Share:
    """The share of True among (question, outcome)."""
    of: dict[str, list[bool]] = {}
    for question, outcome in outcomes:
        of.setdefault(question, []).append(outcome)
    return share_over((sum(found), len(found)) for found in of.values())


@dataclass(frozen=True)
class Counts:
    """Decisions of one judge on labelled pairs: accepted or not, right or not, and those without a verdict.

    `questions` are the counts of each question apart, for the intervals; without them answers count as independent.
    """

    true_yes: int = 0
    false_yes: int = 0
    false_no: int = 0
    true_no: int = 0
    no_verdict: int = 0
    questions: tuple["Counts", ...] = field(default=(), compare=False, repr=False)

    @property
    def decided(self) -> int:
        return self.true_yes + self.false_yes + self.false_no + self.true_no

    @property
    def precision(self) -> Share:
        return self._share(lambda c: (c.true_yes, c.true_yes + c.false_yes))

    @property
    def recall(self) -> Share:
        return self._share(lambda c: (c.true_yes, c.true_yes + c.false_no))

    @property
    def agreement(self) -> Share:
        return self._share(lambda c: (c.true_yes + c.true_no, c.decided))

    @property
    def undecided(self) -> Share:
        return self._share(lambda c: (c.no_verdict, c.decided + c.no_verdict))

    @property
    def f1(self) -> float | None:
        wrong = self.false_yes + self.false_no
        return 2 * self.true_yes / (2 * self.true_yes + wrong) if self.true_yes + wrong else None

    @property
    def f1_interval(self) -> Interval | None:
        """F1 is 2 J / (1 + J) of the Jaccard share J = true_yes / (true_yes + wrong), and rises with it."""
        jaccard = self._share(lambda c: (c.true_yes, c.true_yes + c.false_yes + c.false_no)).interval
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

    def _share(self, of: "Callable[[Counts], tuple[int, int]]") -> Share:
        return share_over(map(of, self.questions)) if self.questions else Share(*of(self))


def count(decisions: Iterable[tuple[str, bool | None, bool]]) -> Counts:
    """Counts of (question, accepted, label); accepted is None where there is no verdict."""
    of: dict[str, Counter[tuple[bool | None, bool]]] = {}
    for question, accepted, label in decisions:
        of.setdefault(question, Counter())[accepted, label] += 1
    return _counts(sum(of.values(), Counter()), tuple(_counts(found) for found in of.values()))


def _counts(of: Counter[tuple[bool | None, bool]], questions: tuple[Counts, ...] = ()) -> Counts:
    no_verdict = of[None, True] + of[None, False]
    return Counts(of[True, True], of[True, False], of[False, True], of[False, False], no_verdict, questions)


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
