"""Text for terminals: what a model or a job wrote is shown, never obeyed.

Does not know: runs. Invariant: `printable` returns no control character but newline and tab, so no escape sequence of a
model's can move a cursor, change a title or hide a line.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

HIDDEN = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")


def printable(text: str) -> str:
    """The text with control, formatting and bidirectional characters spelled as escapes."""
    return "".join(c if c in "\n\t" or unicodedata.category(c) not in HIDDEN else _escape(c) for c in text)


def one_line(text: str, width: int = 100) -> str:
    """The text's start on one line of at most `width` characters."""
    flat = " ".join(printable(text).split())
    return flat if len(flat) <= width else flat[: width - 1] + "…"


def duration(seconds: float) -> str:
    """`42 s`, `3 min 5 s`, `2 h 10 min`, `1 d 3 h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def change_lines(changes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each setting that was changed in a run's life, as run.json has it: what, from what, by whom, when."""
    return [
        one_line(
            f"changed: {setting} {old!r} -> {new!r}, by {change['by']}, "
            f"{datetime.fromtimestamp(change['t'], UTC):%Y-%m-%d %H:%M} UTC",
            200,
        )
        for change in changes
        for setting, (old, new) in change["settings"].items()
    ]


def percent(share: float | None) -> str:
    return "–" if share is None or share != share else f"{100 * share:.0f} %"


def number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None or value != value else f"{value:.{digits}f}"


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
