"""Means over questions, each with its standard error and 95 % interval. docs/evaluation.md says how they are made.

A figure is {"value", "se", "interval"}: shares from 0 to 1, None where there is nothing to compute it from. Questions
are the independent units: a question's samples are averaged first, so 32 samples of 30 questions are 30 observations.
Does not know: files, engines, scorers. Invariant: pure; the same questions, the same figures; no NaN.
"""

import math
import random
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grhpc.intervals import Interval, Z, combined, student_quantile, wilson

Figure = dict[str, Any]
Groups = Mapping[str, Sequence["Asked"]]
DRAWS, SEED = 2000, 20250226
DIGITS = 9  # of a figure: libraries that add in another order differ in the sixteenth


@dataclass(frozen=True)
class Asked:
    """One question's samples: `scores` are from 0 to 1, one each. `groups` is its group of every kind."""

    item: str
    scores: tuple[float, ...]
    groups: Mapping[str, str]

    @property
    def mean(self) -> float:
        return math.fsum(self.scores) / len(self.scores)


def figure(value: float | None, se: float | None = None, interval: Interval | None = None) -> Figure:
    """The parts of a figure, rounded."""
    return {
        "value": None if value is None else round(value, DIGITS),
        "se": None if se is None else round(se, DIGITS),
        "interval": None if interval is None else [round(bound, DIGITS) for bound in interval],
    }


def micro(asked: Sequence[Asked]) -> Figure:
    """The mean over questions: mean@k where a question has k samples. See `share`."""
    return share([question.mean for question in asked], most_samples(asked))


def share(values: Sequence[float], samples: int = 1) -> Figure:
    """The mean of independent values from 0 to 1, each of at most `samples` samples, with Wilson's interval.

    Of values that are all 0 or 1, n is their number. Of others it is the number of throws of a coin that would have
    the same standard error, at most that of all samples, and Student's quantile takes the normal one's place.
    """
    n = len(values)
    if not n:
        return figure(None)
    mean, se = math.fsum(values) / n, error(values)
    if se is None or binary(values):
        return figure(mean, se, wilson(mean * n, n))
    number = _throws(mean, se, n, n * samples)
    return figure(mean, se, wilson(mean * number, number, student_quantile(n - 1)))


def macro(groups: Groups) -> Figure:
    """The plain mean of the groups' means."""
    if not groups:
        return figure(None)
    means, samples = [[q.mean for q in of] for of in groups.values()], max(map(most_samples, groups.values()))
    value, se, df = stratified(means)
    if se is None:
        return share([of[0] for of in means], samples)
    num = len(means) ** 2 / math.fsum(1 / len(of) for of in means)  # questions of equal weight (Kish)
    number = _throws(value, se, num, num * samples)
    return figure(value, se, wilson(value * number, number, Z if all(map(binary, means)) else student_quantile(df)))


def stratified(groups: Sequence[Sequence[float]]) -> tuple[float, float | None, int]:
    """The plain mean of the groups' means, its standard error, and the degrees of freedom of that: None and 0 where
    no group has two values. A group of one takes the variance of the others, pooled."""
    centres = [math.fsum(of) / len(of) for of in groups]
    squares = [math.fsum((v - centre) ** 2 for v in of) for of, centre in zip(groups, centres, strict=True)]
    value, df = math.fsum(centres) / len(centres), sum(len(of) - 1 for of in groups)
    if not df:
        return value, None, 0
    pooled = math.fsum(squares) / df
    parts = [s / (len(of) - 1) / len(of) if len(of) > 1 else pooled for of, s in zip(groups, squares, strict=True)]
    return value, math.sqrt(math.fsum(parts)) / len(parts), df


def harmonic_mean(shares: Iterable[float]) -> float:
    """BBEH's adjusted harmonic mean: of the percentages, each raised by one so that a task of 0 % does not make all 0.

    As its paper has it (arXiv 2502.19187) the one is not taken away again: nothing right at all is 1 %. At most 1.
    """
    raised = [100 * share + 1 for share in shares]
    return min(1.0, len(raised) / math.fsum(1 / r for r in raised) / 100)


def harmonic(groups: Groups) -> Figure:
    """The adjusted harmonic mean over groups; see `harmonic_mean`.

    Error and interval by simulation: every group's share is drawn from Jeffreys' posterior, Beta(right + 1/2, wrong +
    1/2). The bootstrap is of no use here: a group with nothing right never varies in it, and these weigh most.
    """
    if not groups:
        return figure(None)
    value = harmonic_mean(math.fsum(q.mean for q in of) / len(of) for of in groups.values())
    posteriors, generator = [_posterior(of) for of in groups.values()], random.Random(SEED)
    drawn = [harmonic_mean(generator.betavariate(*of) for of in posteriors) for _ in range(DRAWS)]
    low, high = middle(drawn)
    return figure(value, statistics.stdev(drawn), (min(low, value), max(high, value)))


def pass_at(asked: Sequence[Asked], k: int) -> Figure:
    """The mean over questions of the unbiased estimate that one of k samples is right (arXiv 2107.03374); no value
    where a question has fewer. A sample is right where its score is 1."""
    if any(len(q.scores) < k for q in asked):
        return figure(None)
    chances = [chance(len(q.scores), sum(s == 1.0 for s in q.scores), k) for q in asked]
    return share(chances, most_samples(asked) // k)


def chance(n: int, right: int, k: int) -> float:
    """How likely k of n samples, drawn without replacement, hold one of the `right` ones."""
    return 1 - math.comb(n - right, k) / math.comb(n, k)


def length(values: Sequence[float]) -> Figure:
    """The mean of lengths, with Student's interval."""
    se = error(values)
    if se is None:
        return figure(values[0] if values else None)
    mean, half = math.fsum(values) / len(values), student_quantile(len(values) - 1) * se
    return figure(mean, se, (max(0.0, mean - half), mean + half))


def average(parts: Iterable[Mapping[str, Any]]) -> Figure:
    """The plain mean of benchmarks' values, which are independent: squares of the errors are added."""
    known = [part for part in parts if part["value"] is not None]
    if not known:
        return {"benchmarks": 0, **figure(None)}
    values, errors = [part["value"] for part in known], [part["se"] for part in known]
    se = None if None in errors else math.sqrt(math.fsum(e * e for e in errors)) / len(known)
    intervals = [(part["interval"][0], part["interval"][1]) for part in known if part["interval"]]
    interval = combined(values, intervals) if len(intervals) == len(known) else None
    return {"benchmarks": len(known), **figure(math.fsum(values) / len(known), se, interval)}


def error(values: Sequence[float]) -> float | None:
    """The standard error of the mean; None of fewer than two values."""
    n = len(values)
    if n < 2:
        return None
    mean = math.fsum(values) / n
    return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1) / n)


def binary(values: Iterable[float]) -> bool:
    return all(v in (0.0, 1.0) for v in values)


def middle(drawn: Sequence[float]) -> Interval:
    """The bounds of the middle 95 % of the draws."""
    cuts = statistics.quantiles(drawn, n=40, method="inclusive")
    return cuts[0], cuts[-1]


def most_samples(asked: Sequence[Asked]) -> int:
    return max((len(q.scores) for q in asked), default=1)


def _posterior(asked: Sequence[Asked]) -> tuple[float, float]:
    """The two numbers of Jeffreys' Beta for a group's share."""
    means, n = [q.mean for q in asked], len(asked)
    mean = math.fsum(means) / n
    number = n if binary(means) else _throws(mean, error(means) or 0.0, n, n * most_samples(asked))
    return mean * number + 0.5, (1 - mean) * number + 0.5


def _throws(mean: float, se: float, num: float, most: float) -> float:
    """How many throws of a coin would have this standard error; `num` where all are alike, never above `most`."""
    spread = mean * (1 - mean)
    if spread <= 0:
        return num
    return most if se * se * most <= spread else spread / (se * se)
