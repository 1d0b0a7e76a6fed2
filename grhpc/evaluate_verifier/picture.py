"""A verifier's figures as one PNG: modes beside each other, calibration, attacks.

Does not know: judges, pairs. Invariant: draws the summary and nothing else; what is missing there is left out.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

FIGURES = ("precision", "recall", "f1", "agreement")


def write_picture(path: Path, summary: dict[str, Any]) -> None:
    """Draw `summary` (as the JSON file holds it)."""
    from matplotlib.figure import Figure

    modes = summary["modes"]
    attacked = [mode for mode in modes if "attacks" in mode]
    calibrated = [mode for mode in modes if mode["calibration"]]
    panels = 1 + bool(calibrated) + bool(attacked)
    figure = Figure(figsize=(6 * panels, 5.5), layout="constrained")
    axes = iter(figure.subplots(1, panels, squeeze=False)[0])
    _modes(next(axes), modes)
    if calibrated:
        _calibration(next(axes), calibrated)
    if attacked:
        _attacks(next(axes), attacked)
    figure.savefig(path, dpi=120)


def _modes(axes: Any, modes: Sequence[dict[str, Any]]) -> None:
    width = 0.8 / len(modes)
    for number, mode in enumerate(modes):
        found = [mode["all"][name] for name in FIGURES]
        values = [f["value"] or 0.0 for f in found]
        places = [i + (number - (len(modes) - 1) / 2) * width for i in range(len(FIGURES))]
        spread = [_spread(f) for f in found]
        error = [[low for low, _ in spread], [high for _, high in spread]]
        axes.bar(places, values, width, yerr=error, capsize=2, label=mode["mode"])
    axes.set_xticks(range(len(FIGURES)), ["precision", "recall", "F1", "agreement"])
    axes.set_ylim(0, 1.02)
    axes.set_title("against the labels, 95 % intervals", fontsize=10)
    axes.grid(alpha=0.3, axis="y")
    axes.legend(fontsize=8)


def _calibration(axes: Any, modes: Sequence[dict[str, Any]]) -> None:
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    for mode in modes:
        found = mode["calibration"]
        means, shares = [b["mean"] for b in found["bins"]], [b["labelled_yes"] for b in found["bins"]]
        axes.plot(means, shares, marker="o", label=f"{mode['mode']}: ECE {found['ece']:.3f}")
    axes.set_xlabel("the judge's probability of yes")
    axes.set_ylabel("share labelled yes")
    axes.set_title("calibration", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def _attacks(axes: Any, modes: Sequence[dict[str, Any]]) -> None:
    families = list(dict.fromkeys(family for mode in modes for family in mode["attacks"]["by family"]))[::-1]
    height = 0.8 / len(modes)
    for number, mode in enumerate(modes):
        found = [mode["attacks"]["by family"].get(family) or {"value": None} for family in families]
        places = [i + ((len(modes) - 1) / 2 - number) * height for i in range(len(families))]
        total = mode["attacks"]["all"]
        label = f"{mode['mode']}: {total['k']} of {total['n']}"
        axes.barh(places, [100 * (f["value"] or 0.0) for f in found], height, label=label)
    axes.set_yticks(range(len(families)), families, fontsize=8)
    axes.set_xlabel("accepted, %")
    axes.set_title("attacks", fontsize=10)
    axes.grid(alpha=0.3, axis="x")
    axes.legend(fontsize=8)


def _spread(found: dict[str, Any]) -> tuple[float, float]:
    if found["value"] is None:
        return 0.0, 0.0
    return max(0.0, found["value"] - found["interval"][0]), max(0.0, found["interval"][1] - found["value"])
