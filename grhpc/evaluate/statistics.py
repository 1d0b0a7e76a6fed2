"""One benchmark's scores to its part of summary.json. docs/evaluation.md says what every figure means.

Does not know: files, engines, scorers. Invariant: pure; same scores, same figures, in whatever order they come; no NaN.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from grhpc.evaluate import figures
from grhpc.evaluate.figures import Asked
from grhpc.records import Score

TOO_LONG, REFUSED = UNANSWERED = "prompt_too_long", "refused"  # finish reasons without a response
UNNAMED = "unnamed"  # the group of a question that names none
MOST_GROUPS = 30  # of a kind whose harmonic mean is computed unasked: SuperGPQA's 285 subfields would take seconds


class Measured(Protocol):
    """What of a benchmark's entry says how it is measured."""

    @property
    def metric(self) -> str: ...
    @property
    def groups(self) -> Mapping[str, object]: ...
    @property
    def pass_at(self) -> Sequence[int]: ...


def summarise(scores: Sequence[Score], benchmark: Measured) -> dict[str, Any]:
    """One benchmark's figures. A sample without a verdict counts as wrong, and in `undecided`."""
    asked = by_question(scores)
    of_kind = {kind: grouped(asked, kind) for kind in benchmark.groups}
    name, _, kind = benchmark.metric.partition(":")
    few = {k: groups for k, groups in of_kind.items() if len(groups) <= MOST_GROUPS or (name, kind) == ("harmonic", k)}
    means: dict[str, Any] = {
        "micro": figures.micro(asked),
        "macro": {kind: figures.macro(groups) for kind, groups in of_kind.items()},
        "harmonic": {kind: figures.harmonic(groups) for kind, groups in few.items()},
    }
    counts = sorted({len(question.scores) for question in asked})
    return {
        "questions": len(asked),
        "samples": len(scores),
        "samples_per_question": counts[0] if len(counts) == 1 else counts,
        "metric": benchmark.metric,
        **(means[name][kind] if kind else means["micro"]),
        **means,
        "groups": {
            kind: {g: {"n": len(of), **figures.micro(of)} for g, of in groups.items()}
            for kind, groups in of_kind.items()
        },
        "mean_at_k": means["micro"] if counts and counts[-1] > 1 else None,
        "pass_at": {str(k): figures.pass_at(asked, k) for k in benchmark.pass_at},
        **_lengths(scores),
        **_rates(scores),
        "layers": dict(sorted(Counter(s.layer for s in scores).items())),
    }


def average(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The plain mean over benchmarks, of the parts that `summarise` made."""
    return figures.average(parts)


def by_question(scores: Iterable[Score]) -> list[Asked]:
    """The questions in the order of their names, each with all its samples."""
    of: dict[str, list[Score]] = {}
    for score in scores:
        of.setdefault(score.item, []).append(score)
    return [
        Asked(item, tuple(known(s.score) for s in sorted(found, key=lambda s: s.sample)), read_groups(found[0].groups))
        for item, found in sorted(of.items())
    ]


def grouped(asked: Iterable[Asked], kind: str) -> dict[str, list[Asked]]:
    """The questions by their group of that kind, in the order of the groups' names."""
    of: dict[str, list[Asked]] = {}
    for question in asked:
        of.setdefault(question.groups.get(kind) or UNNAMED, []).append(question)
    return dict(sorted(of.items()))


def known(score: float) -> float:
    """A score for the means: without a verdict it is 0."""
    return 0.0 if math.isnan(score) else min(1.0, max(0.0, score))


def read_groups(text: str) -> dict[str, str]:
    """A question's `groups`; none where they cannot be read."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return {str(k): str(v) for k, v in found.items() if v not in (None, "")} if isinstance(found, dict) else {}


def _lengths(scores: Sequence[Score]) -> dict[str, Any]:
    """Response length in tokens, of what was answered: a question's samples are averaged first. Unknown where that of
    a response is."""
    answered = [s for s in scores if s.finish_reason not in UNANSWERED]
    known_lengths = [(s.item, s.num_tokens) for s in answered if s.num_tokens is not None]
    means = _per_question(known_lengths if len(known_lengths) == len(answered) else [])
    return {"tokens_mean": figures.length([math.fsum(of) / len(of) for of in means])}


def _rates(scores: Sequence[Score]) -> dict[str, Any]:
    """Shares of all samples."""
    flags = {
        "truncated": [s.finish_reason == "length" for s in scores],
        "missing": [s.extracted is None and s.finish_reason not in UNANSWERED for s in scores],
        "undecided": [math.isnan(s.score) for s in scores],
        "too_long": [s.finish_reason == TOO_LONG for s in scores],
        "refused": [s.finish_reason == REFUSED for s in scores],
    }
    found = {}
    for name, of in flags.items():
        marks = _per_question((s.item, flag) for s, flag in zip(scores, of, strict=True))
        shares = [math.fsum(m) / len(m) for m in marks]
        found[name] = {"num": sum(of), **figures.share(shares, max(map(len, marks), default=1))}
    return found


def _per_question(pairs: Iterable[tuple[str, float]]) -> list[list[float]]:
    of: dict[str, list[float]] = {}
    for item, value in pairs:
        of.setdefault(item, []).append(value)
    return [of[item] for item in sorted(of)]
