"""An evaluation as a picture: every benchmark's score with its interval, beside the published ones.

Does not know: how a figure is made. Invariant: what is missing is left out, never drawn as zero.
"""

from pathlib import Path
from typing import Any

from grhpc.report.text import one_line

RATES = {"truncated": "truncated", "missing": "no answer", "undecided": "no verdict"}
RATES |= {"too_long": "too long to ask", "refused": "refused by the server"}


def as_characters(result: dict[str, Any], width: int = 60) -> list[str]:
    """One line a benchmark, from 0 to 100: the score, its interval, and where the published ones lie."""
    shown = _shown(result)
    if not shown:
        return ["nothing to draw"]
    space = max(len(title) for title, _ in shown)
    lines = []
    for title, part in shown:
        cells = [" "] * width
        if part["interval"]:
            low, high = (_place(bound, width) for bound in part["interval"])
            cells[low : high + 1] = "─" * (high + 1 - low)
        for percent in part["published"].values():
            cells[_place(percent / 100, width)] = "○"
        cells[_place(part["value"], width)] = "●"
        lines.append(f"{title.rjust(space)} │{''.join(cells)}│")
    lines.append(" " * space + " └" + "─" * width + "┘")
    lines.append(" " * space + "  0" + "100".rjust(width - 1))
    legend = "● this model, ─ 95 %"
    if any(part["published"] for _, part in shown):
        legend += ", ○ published"
    return [*lines, " " * space + "  " + legend]


def write_png(path: Path, result: dict[str, Any]) -> None:
    """Scores beside what was published, and shares of samples that went wrong in other ways than by a wrong answer."""
    from matplotlib.figure import Figure

    shown = _shown(result)
    figure = Figure(figsize=(12, 2 + 0.42 * len(shown)), layout="constrained")
    model = one_line(str(result["model"] or ""), 80)
    figure.suptitle(_plain(f"{one_line(result['evaluation'], 80)}: {model}"))
    scores, rates = figure.subplots(1, 2, width_ratios=[2, 1], sharey=True)
    _draw_scores(scores, shown)
    _draw_rates(rates, shown)
    figure.savefig(path, dpi=120)


def _draw_scores(axes: Any, shown: list[tuple[str, dict[str, Any]]]) -> None:
    places = range(len(shown))
    for place, (_, part) in zip(places, shown, strict=True):
        if part["interval"]:
            low, high = part["interval"]
            axes.plot([100 * low, 100 * high], [place, place], color="black", linewidth=1.5)
    axes.plot([100 * part["value"] for _, part in shown], places, "o", color="black", label="this model, 95 %")
    models = list(dict.fromkeys(model for _, part in shown for model in part["published"]))
    for model in models:
        points = [(part["published"][model], y) for y, (_, part) in enumerate(shown) if model in part["published"]]
        axes.plot(*zip(*points, strict=True), "d", alpha=0.7, markersize=5, label=_plain(model))
    axes.set_yticks(places, [_plain(title) for title, _ in shown])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("points")
    axes.grid(alpha=0.3)
    _legend(axes)


def _draw_rates(axes: Any, shown: list[tuple[str, dict[str, Any]]]) -> None:
    for mark, (key, name) in zip("oxs^v", RATES.items(), strict=True):
        points = [(100 * part[key]["value"], y) for y, (_, part) in enumerate(shown) if part[key]["value"] is not None]
        axes.plot([x for x, _ in points], [y for _, y in points], mark, markersize=5, alpha=0.7, label=name)
    axes.set_xlabel("% of the samples")
    axes.set_xlim(-0.5, max(1.0, axes.get_xlim()[1]))
    axes.grid(alpha=0.3)
    _legend(axes)


def _legend(axes: Any) -> None:
    axes.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)


def _shown(result: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Titles and benchmarks that have a value."""
    parts = result["benchmarks"].items()
    return [(one_line(str(part.get("title") or name), 24), part) for name, part in parts if part["value"] is not None]


def _place(share: float, width: int) -> int:
    return round(min(1.0, max(0.0, share)) * (width - 1))


def _plain(text: str) -> str:
    return text.replace("$", r"\$")
