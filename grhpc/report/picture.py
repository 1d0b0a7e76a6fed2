"""Curves as a picture: characters for a terminal, PNG for a file.

Does not know: runs, only numbers by step. Invariant: a missing or non-finite value is a gap, never a zero.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKS, TOGETHER = "●○·×+□△", "◆"
Points = Mapping[int, float | None]


@dataclass(frozen=True)
class Curve:
    """One named line: step -> value, and where it is known the interval around it."""

    name: str
    points: Points
    intervals: Mapping[int, tuple[float, float]] = field(default_factory=dict)

    def finite(self) -> dict[int, float]:
        return {x: y for x, y in self.points.items() if y is not None and math.isfinite(y)}


@dataclass(frozen=True)
class Bars:
    """Counts by step, stacked: name -> step -> count."""

    title: str
    series: Mapping[str, Points]


def as_characters(curves: Sequence[Curve], *, width: int = 64, height: int = 14) -> list[str]:
    """The curves in one frame, each with its own mark; where two meet stands the mark of meeting."""
    shown = [(curve, curve.finite()) for curve in curves]
    xs = [x for _, points in shown for x in points]
    if not xs:
        return ["nothing to draw yet"]
    ys = [y for _, points in shown for y in points.values()]
    low, high = min(0.0, *ys), max(0.2, math.ceil(max(ys) * 10) / 10)
    first, last = min(xs), max(xs)
    grid = [[" "] * width for _ in range(height)]
    for mark, (_, points) in zip(MARKS, shown, strict=False):
        for x, y in points.items():
            column = round((x - first) / max(1, last - first) * (width - 1))
            row = round((high - y) / (high - low) * (height - 1))
            grid[row][column] = mark if grid[row][column] in (" ", mark) else TOGETHER
    lines = []
    for row, cells in enumerate(grid):
        value = high - (high - low) * row / (height - 1)
        label = f"{value:5.2f}" if row % 3 == 0 or row == height - 1 else "     "
        lines.append(f"{label} │{''.join(cells).rstrip()}")
    lines.append("      └" + "─" * width)
    lines.append(f"       step {first}" + (f"{last}".rjust(width - len(f"step {first}")) if last > first else ""))
    legend = [f"{m} {curve.name}" for m, (curve, _) in zip(MARKS, shown, strict=False)]
    met = any(TOGETHER in cells for cells in grid)
    lines.append("       " + "   ".join(legend + [f"{TOGETHER} together"] * met))
    return lines


def write_png(path: Path, panels: Sequence[tuple[str, Sequence[Curve] | Bars]], title: str) -> None:
    """`draw` as a file."""
    draw(panels, title).savefig(path, dpi=120)


def draw(panels: Sequence[tuple[str, Sequence[Curve] | Bars]], title: str) -> "Figure":
    """Panels of curves or stacked bars over steps, two a row; a step is whole, and so is every mark on its axis."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    rows = (len(panels) + 1) // 2
    figure = Figure(figsize=(12, 3.6 * rows), layout="constrained")
    figure.suptitle(title.replace("$", r"\$"))
    for place, (name, content) in enumerate(panels, start=1):
        axes = figure.add_subplot(rows, 2, place)
        axes.set_title(name, fontsize=10)
        if isinstance(content, Bars):
            _draw_bars(axes, content)
        else:
            for curve in content:
                points = curve.finite()
                (line,) = axes.plot(list(points), list(points.values()), marker="o", markersize=3, label=curve.name)
                for x, interval in curve.intervals.items():
                    axes.plot([x, x], interval, color=line.get_color(), linewidth=1, alpha=0.6)
            low, high = axes.get_ylim()
            axes.set_ylim(min(0.0, low), high)
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8)
    return figure


def _draw_bars(axes: object, bars: Bars) -> None:
    steps = sorted({step for points in bars.series.values() for step in points})
    floor = [0.0] * len(steps)
    for name, points in bars.series.items():
        heights = [points.get(step) or 0.0 for step in steps]
        axes.bar(steps, heights, bottom=floor, label=name, width=0.9)  # type: ignore[attr-defined]
        floor = [a + b for a, b in zip(floor, heights, strict=True)]
    axes.set_ylabel(bars.title)  # type: ignore[attr-defined]
