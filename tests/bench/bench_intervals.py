"""How often the evaluation's 95 % intervals hold a truth that is known, by simulation; no timing.

    python tests/bench/bench_intervals.py [--trials 3000]

`normal` and `bootstrap` stand beside for comparison: value +- 1.96 standard errors, and the percentiles of 500
resamplings of the questions within their groups. Prints one JSON object.
"""

import argparse
import json
import random
from collections.abc import Callable

import numpy as np

from grhpc.evaluate import figures
from grhpc.evaluate.compare import mcnemar
from grhpc.evaluate.figures import Asked
from grhpc.intervals import Z

GR_ON_BBEH = [0.31, 0.22, 0.035, 0.45, 0.4, 0.04, 0.22, 0.03, 0.06, 0.4, 0.02, 0.12]
GR_ON_BBEH += [0.03, 0.0, 0.25, 0.06, 0.08, 0.2, 0.0, 0.15, 0.1, 0.08, 0.12]  # 23 tasks, invented, 12 % on the mean
O3_LIKE = [0.53, 0.67, 0.59, 0.54, 0.58, 0.55, 0.52, 0.32, 0.17, 0.83, 0.73, 0.16]
O3_LIKE += [0.90, 0.56, 0.24, 0.49, 0.48, 0.27, 0.68, 0.76, 0.43, 0.77, 0.68]
Trial = Callable[[random.Random], dict[str, bool]]


def several_samples(alpha: float, beta: float, num: int, samples: int) -> Trial:
    """`num` questions whose chances are Beta(alpha, beta)."""
    truth = alpha / (alpha + beta)

    def trial(generator: random.Random) -> dict[str, bool]:
        chances = [generator.betavariate(alpha, beta) for _ in range(num)]
        found = figures.share([sum(generator.random() < p for _ in range(samples)) / samples for p in chances], samples)
        return {"ours": inside(found["interval"], truth), "normal": inside(normal(found), truth)}

    return trial


def over_groups(mean: str, truths: list[float], sizes: list[int]) -> Trial:
    """One sample of each question of groups of these sizes and chances."""
    plain = sum(truths) / len(truths)
    truth = figures.harmonic_mean(truths) if mean == "harmonic" else plain

    def trial(generator: random.Random) -> dict[str, bool]:
        rights = [sum(generator.random() < p for _ in range(n)) for p, n in zip(truths, sizes, strict=True)]
        groups = {
            str(g): [Asked(str(i), (float(i < right),), {}) for i in range(n)]
            for g, (right, n) in enumerate(zip(rights, sizes, strict=True))
        }
        found = (figures.harmonic if mean == "harmonic" else figures.macro)(groups)
        told = {"ours": inside(found["interval"], truth)}
        if mean == "harmonic":
            told["bootstrap"] = inside(bootstrap(rights, sizes, generator), truth)
        else:
            told["normal"] = inside(normal(found), truth)
        return told

    return trial


def paired(first_only: float, second_only: float, num: int) -> Trial:
    """`num` questions, these shares of which one model alone has right."""
    chances = [first_only, second_only, 1 - first_only - second_only]

    def trial(generator: random.Random) -> dict[str, bool]:
        drawn = generator.choices("abn", chances, k=num)
        found = mcnemar(drawn.count("a"), drawn.count("b"), num)
        truth = second_only - first_only
        return {"ours": inside(found["difference"]["interval"], truth), "p under 5 %": found["p"] < 0.05}

    return trial


def bootstrap(rights: list[int], sizes: list[int], generator: random.Random) -> tuple[float, float]:
    drawn = np.random.default_rng(generator.getrandbits(32))
    shares = drawn.binomial(sizes, np.divide(rights, sizes), size=(500, len(sizes))) / sizes
    return figures.middle([figures.harmonic_mean(row) for row in shares.tolist()])


def normal(found: figures.Figure) -> tuple[float, float]:
    return found["value"] - Z * found["se"], found["value"] + Z * found["se"]


def inside(interval: tuple[float, float], truth: float) -> bool:
    return interval[0] <= truth <= interval[1]


CASES: dict[str, tuple[Trial, int]] = {
    "30 questions, 32 samples, AIME-like": (several_samples(0.3, 0.9, 30, 32), 1),
    "30 questions, 32 samples, nearly all right": (several_samples(5, 0.3, 30, 32), 1),
    "30 questions, 32 samples, few with any right": (several_samples(0.1, 1, 30, 32), 1),
    "10 questions, 4 samples": (several_samples(1, 1, 10, 4), 1),
    "macro over 14 groups of 20 to 1,400": (
        over_groups("macro", [0.3 + 0.03 * g for g in range(14)], [20 + 106 * g for g in range(14)]),
        8,
    ),
    "macro over 285 groups of 1 to 12": (
        over_groups("macro", [0.1 + 0.002 * g for g in range(285)], [1 + g % 12 for g in range(285)]),
        4,
    ),
    "harmonic over 23 tasks of 200, GR-like": (over_groups("harmonic", GR_ON_BBEH, [200] * 23), 10),
    "harmonic over 23 tasks of 200, o3-like": (over_groups("harmonic", O3_LIKE, [200] * 23), 10),
    "harmonic over 23 tasks of 20, GR-like": (over_groups("harmonic", GR_ON_BBEH, [20] * 23), 10),
    "harmonic over 23 tasks of 20, o3-like": (over_groups("harmonic", O3_LIKE, [20] * 23), 10),
    "paired, 500 questions, 8 % against 12 %": (paired(0.08, 0.12, 500), 1),
    "paired, 60 questions, equal models": (paired(0.1, 0.1, 60), 1),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=3000)
    trials, found = parser.parse_args().trials, {}
    for name, (trial, cost) in CASES.items():
        generator, num = random.Random(name), max(1, trials // cost)
        told = [trial(generator) for _ in range(num)]
        found[name] = {"trials": num} | {k: round(sum(t[k] for t in told) / num, 3) for k in told[0]}
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
