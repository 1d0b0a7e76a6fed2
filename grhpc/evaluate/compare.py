"""Two evaluations of the same questions: is one model better? docs/evaluation.md says how each figure is made.

Every difference is second minus first, question by question. Does not know: files, how it is shown.
Invariant: pure; a question counts only where both were asked the very same; no NaN.
"""

import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from grhpc.errors import DataError
from grhpc.evaluate import figures
from grhpc.evaluate.answered import Answered, Evaluation
from grhpc.evaluate.figures import DRAWS, SEED, Asked, Figure, figure
from grhpc.evaluate.statistics import grouped
from grhpc.intervals import Z, binomial_p, holm, student_p, student_quantile

Pairs = Sequence[tuple[Asked, Asked]]


def compare(first: Evaluation, second: Evaluation) -> dict[str, Any]:
    """Every benchmark that both have, their average, and what is not the same in the two.

    Raises DataError where a question that both have was put differently, or has another right answer.
    """
    both = [name for name in first.summary["benchmarks"] if name in first.questions and name in second.questions]
    if not both:
        raise DataError(f"{first.name} and {second.name} have no benchmark in common", "compare others")
    parts = {}
    for name in both:
        metrics = [e.summary["benchmarks"].get(name, {}).get("metric", "micro") for e in (first, second)]
        parts[name] = _benchmark(name, first.questions[name], second.questions[name], metrics[0])
    adjusted = holm([1.0 if part["p"] is None else part["p"] for part in parts.values()])
    for part, p in zip(parts.values(), adjusted, strict=True):
        part["p_holm"] = None if part["p"] is None else p
    return {
        "first": _who(first, set(first.questions) - set(both)),
        "second": _who(second, set(second.questions) - set(both)),
        "same": _same(first.summary, second.summary),
        "benchmarks": parts,
        "average": _average(list(parts.values())),
        "settings": _differing(first.summary.get("config"), second.summary.get("config")),
    }


def _same(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether both measured equal weights and have equal samples, to the byte."""
    return all(first.get(key) == second.get(key) is not None for key in ("weight_digest", "samples_sha256"))


def _who(evaluation: Evaluation, alone: set[str]) -> dict[str, Any]:
    about = {key: evaluation.summary.get(key) for key in ("model", "weight_digest")}
    return {"name": evaluation.name, **about, "benchmarks_alone": sorted(alone)}


def _benchmark(name: str, first: Mapping[str, Answered], second: Mapping[str, Answered], metric: str) -> dict[str, Any]:
    common = sorted(first.keys() & second.keys())
    if differing := [item for item in common if first[item].put != second[item].put]:
        raise DataError(
            f"{name}: {len(differing)} of {len(common)} common questions were put differently, or have other right "
            f"answers ({differing[0]})",
            "evaluate both with the same data, entry and sample.few_shot",
        )
    pairs = [(a := first[item].asked, replace(second[item].asked, groups=a.groups)) for item in common]
    found: dict[str, Any] = {
        "questions": len(common),
        "first_alone": len(first) - len(common),
        "second_alone": len(second) - len(common),
        "undecided": sum(first[item].undecided or second[item].undecided for item in common),
        "first": figures.micro([a for a, _ in pairs])["value"],
        "second": figures.micro([b for _, b in pairs])["value"],
        **paired(pairs),
    }
    if metric != "micro":
        found["metric"] = {"name": metric, **by_metric(pairs, metric)}
    return found


def paired(pairs: Pairs) -> dict[str, Any]:
    """The mean difference, its p-value, and by which test: McNemar's exact one where every question was answered once
    and is right or wrong, else Student's of the questions' mean differences."""
    changes = [b.mean - a.mean for a, b in pairs]
    if not changes:
        return {"difference": figure(None), "p": None, "test": None}
    if all(len(q.scores) == 1 and figures.binary(q.scores) for pair in pairs for q in pair):
        return mcnemar(changes.count(-1.0), changes.count(1.0), len(changes))
    se = figures.error(changes)
    if se is None:
        return {"difference": figure(changes[0]), "p": None, "test": None}
    mean, df = statistics.fmean(changes), len(changes) - 1
    if se == 0:  # all the same: as unlikely as so many equal signs
        p = binomial_p(0, len(changes)) if mean else 1.0
        return {"difference": figure(mean, se, (mean, mean) if mean == 0 else None), "p": p, "test": "sign"}
    half = student_quantile(df) * se
    interval = (max(-1.0, mean - half), min(1.0, mean + half))
    return {"difference": figure(mean, se, interval), "p": student_p(mean / se, df), "test": "paired t"}


def mcnemar(first_only: int, second_only: int, n: int) -> dict[str, Any]:
    """McNemar's exact test of n questions of which so many were answered right by one alone, and the interval of the
    difference by Bonett and Price (2012): one such question more on either side."""
    mean = (second_only - first_only) / n
    se = ((first_only + second_only - n * mean * mean) / n / (n - 1)) ** 0.5 if n > 1 else None
    less, more = (first_only + 1) / (n + 2), (second_only + 1) / (n + 2)
    half = Z * ((less + more - (more - less) ** 2) / (n + 2)) ** 0.5
    interval = (max(-1.0, more - less - half), min(1.0, more - less + half))
    p = binomial_p(second_only, first_only + second_only)
    counts = {"first_only_right": first_only, "second_only_right": second_only}
    return {"difference": figure(mean, se, interval), "p": p, "test": "McNemar", **counts}


def by_metric(pairs: Pairs, metric: str) -> dict[str, Any]:
    """The difference in a mean over groups. An harmonic mean's interval is by simulation, with Jeffreys' prior on
    the four outcomes of a question; it has none where a question has several samples."""
    name, _, kind = metric.partition(":")
    groups = [grouped((pair[i] for pair in pairs), kind) for i in (0, 1)]
    mean = figures.harmonic if name == "harmonic" else figures.macro
    values = [mean(of)["value"] for of in groups]
    found: dict[str, Any] = {"first": values[0], "second": values[1]}
    if not pairs:
        return found | {"difference": figure(None)}
    changes = [[b.mean - a.mean for a, b in zip(*of, strict=True)] for of in _beside(groups)]
    if name == "macro":
        value, se, df = figures.stratified(changes)
        half = None if se is None else student_quantile(df) * se
        return found | {"difference": figure(value, se, None if half is None else (value - half, value + half))}
    value = values[1] - values[0]
    if not all(len(q.scores) == 1 and figures.binary(q.scores) for pair in pairs for q in pair):
        return found | {"difference": figure(value)}
    drawn = _drawn_harmonic([list(zip(*of, strict=True)) for of in _beside(groups)])
    low, high = figures.middle(drawn)
    return found | {"difference": figure(value, statistics.stdev(drawn), (min(low, value), max(high, value)))}


def _beside(groups: Sequence[Mapping[str, Sequence[Asked]]]) -> list[tuple[Sequence[Asked], Sequence[Asked]]]:
    return [(groups[0][name], groups[1][name]) for name in groups[0]]


def _drawn_harmonic(groups: Sequence[Pairs]) -> list[float]:
    """Draws of the difference of the harmonic means. Half a right and half a wrong answer of each model are added to a
    group, as where it is alone, a quarter question in each of the four outcomes."""
    cells = []
    for pairs in groups:
        outcomes = [(a.mean, b.mean) for a, b in pairs]
        cells.append([outcomes.count(cell) + 0.25 for cell in ((1.0, 1.0), (1.0, 0.0), (0.0, 1.0), (0.0, 0.0))])
    generator, drawn = random.Random(SEED), []
    for _ in range(DRAWS):
        firsts, seconds = [], []
        for of in cells:
            both, first, second, neither = (generator.gammavariate(cell, 1.0) for cell in of)
            total = both + first + second + neither
            firsts.append((both + first) / total)
            seconds.append((both + second) / total)
        drawn.append(figures.harmonic_mean(seconds) - figures.harmonic_mean(firsts))
    return drawn


def _average(parts: Sequence[Mapping[str, Any]]) -> Figure:
    """The plain mean of the benchmarks' differences, each in its own metric as in a report, which are independent;
    Student's, with Welch's degrees of freedom. None of it where a benchmark has no standard error."""
    own = [(part, part.get("metric", part)["difference"]) for part in parts]
    known = [part for part, difference in own if difference["value"] is not None]
    values, errors = ([d[key] for _, d in own if d["value"] is not None] for key in ("value", "se"))
    found = {"benchmarks": len(known), **figure(statistics.fmean(values) if known else None), "p": None}
    if not known or None in errors or not any(errors):
        return found
    variances = [e * e for e in errors]
    df = sum(variances) ** 2 / sum(v * v / (p["questions"] - 1) for v, p in zip(variances, known, strict=True))
    mean, se = statistics.fmean(values), sum(variances) ** 0.5 / len(known)
    half = student_quantile(df) * se
    return found | figure(mean, se, (mean - half, mean + half)) | {"p": student_p(mean / se, df)}


def _differing(first: Any, second: Any, path: str = "") -> dict[str, list[Any]]:
    """The settings, by dotted name, that are not the same in two trees."""
    if first == second:
        return {}
    if not (isinstance(first, dict) and isinstance(second, dict)):
        return {path or "config": [first, second]}
    found: dict[str, list[Any]] = {}
    for key in sorted(first.keys() | second.keys()):
        found |= _differing(first.get(key), second.get(key), f"{path}.{key}" if path else str(key))
    return found
