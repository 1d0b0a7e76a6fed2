"""Responses to scores: first what can be told without a model, then the decider for the rest.

Does not know: shards, queues, engines, means. Invariant: every sample gets one score; one that nobody could decide is
NaN, never 0.
"""

import math
from collections.abc import Callable, Mapping, Sequence

from grhpc.evaluate.scoring import Graded, grade
from grhpc.judge.decide import Decided, Decider, Decision, Pair
from grhpc.records import NO, YES, Sample, Score

SCORE = {YES: 1.0, NO: 0.0}


def grade_samples(
    samples: Sequence[Sample],
    scorers: Mapping[str, str],
    decider: Decider,
    should_stop: Callable[[], bool],
    shard: str = "",
) -> tuple[list[Score], Decided] | None:
    """Scores in the samples' order, and what the decider had to do; None where `should_stop` said so.

    `scorers` names each benchmark's. Raises what the decider raises.
    """
    graded = []
    for sample in samples:
        if should_stop():
            return None
        graded.append(grade(scorers[sample.benchmark], sample))
    pairs = [_pair(sample, told) for sample, told in zip(samples, graded, strict=True)]
    distinct = list(dict.fromkeys(pair for pair in pairs if pair is not None))
    decided = decider.decide(distinct, should_stop, shard)
    if decided is None:
        return None
    scores = [
        _score(sample, told, None if pair is None else decided.decisions[pair])
        for sample, told, pair in zip(samples, graded, pairs, strict=True)
    ]
    return scores, decided


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
