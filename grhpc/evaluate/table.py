"""Figures as cells and cells as a table, in points of a hundred.

Does not know: where figures come from. Invariant: a figure that was not computed is a dash, never a zero.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

NONE = "–"


def points(share: float | None, digits: int = 1) -> str:
    """A share as points of a hundred."""
    return NONE if share is None else f"{100 * share:.{digits}f}"


def signed(share: float | None) -> str:
    """A difference of shares as points, with its sign."""
    return NONE if share is None else f"{round(100 * share, 1) + 0.0:+.1f}"


def cell(figure: Mapping[str, Any], form: Callable[[float | None], str] = points) -> str:
    """A figure with its 95 % interval: `62.8 (61.9 to 63.6)`."""
    interval = figure.get("interval")
    return form(figure["value"]) + (f" ({form(interval[0])} to {form(interval[1])})" if interval else "")


def with_error(figure: Mapping[str, Any]) -> str:
    """A figure with its standard error: `62.8 ± 0.4`."""
    return points(figure["value"]) + ("" if figure.get("se") is None else f" ± {points(figure['se'])}")


def p_value(p: float | None) -> str:
    return NONE if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns under each other: the first flush left, numbers right, and so the last, which may be words."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
