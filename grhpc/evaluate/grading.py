"""Responses to scores: first what can be told without a model, then the decider for the rest.

Does not know: queues, engines, means. Invariant: every sample gets one score; one that nobody could decide is NaN,
never 0.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from grhpc.evaluate.scoring import Graded, grade
from grhpc.judge.decide import Decision, Pair
from grhpc.records import NO, YES, Sample, Score

SCORE = {YES: 1.0, NO: 0.0}


@dataclass(frozen=True)
class Looked:
    """Samples, what the benchmarks' own rules say of each, and what the decider is to be asked where they leave it
    open."""

    samples: Sequence[Sample]
    graded: Sequence[Graded]
    pairs: Sequence[Pair | None]


def look(samples: Sequence[Sample], scorers: Mapping[str, str], should_stop: Callable[[], bool]) -> Looked | None:
    """What the rules say of every sample; None where `should_stop` said so. `scorers` names each benchmark's."""
    graded = []
    for sample in samples:
        if should_stop():
            return None
        graded.append(grade(scorers[sample.benchmark], sample))
    return Looked(samples, graded, [_pair(sample, told) for sample, told in zip(samples, graded, strict=True)])


def left_open(looked: Iterable[Looked]) -> list[Pair]:
    """What the decider is to be asked, each question once, in the samples' order."""
    return list(dict.fromkeys(pair for shard in looked for pair in shard.pairs if pair is not None))


def scores(looked: Looked, decisions: Mapping[Pair, Decision]) -> list[Score]:
    """Scores in the samples' order, where `decisions` has all that was left open."""
    return [
        _score(sample, told, None if pair is None else decisions[pair])
        for sample, told, pair in zip(looked.samples, looked.graded, looked.pairs, strict=True)
    ]


def _pair(sample: Sample, told: Graded) -> Pair | None:
    """What the decider is asked: nothing where the benchmark's own rules have decided."""
    if told.score is not None or told.extracted is None:
        return None
    return Pair(sample.question, sample.gold, told.extracted)


def _score(sample: Sample, told: Graded, decision: Decision | None) -> Score:
    if decision is None:
        score, layer, reason = told.score if told.score is not None else 0.0, told.layer, told.reason
    else:
        score, layer, reason = SCORE.get(decision.decision, math.nan), decision.layer, decision.reason
    return Score(**vars(sample), extracted=told.extracted, score=score, layer=layer, reason=reason)
