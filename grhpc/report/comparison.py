"""The verb `compare`: two evaluations, question by question, as a table.

Does not know: how a difference is tested. Invariant: reads only; names of models and groups are shown printable.
"""

import argparse
from typing import Any

from grhpc.evaluate.answered import read_evaluation
from grhpc.evaluate.compare import compare
from grhpc.evaluate.table import aligned, cell, p_value, points, signed
from grhpc.report.find import find_evaluation
from grhpc.report.text import one_line
from grhpc.store.atomic import to_json

CLEAR = 0.05
FEW = 10  # questions under which Student's test leans on what nobody knows
SHOWN = 12  # differing settings


def command(args: argparse.Namespace) -> int:
    """The verb."""
    found = compare(*(read_evaluation(find_evaluation(name), name) for name in (args.first, args.second)))
    print(to_json(found, indent=1) if args.json else as_text(found))
    return 0


def as_text(found: dict[str, Any]) -> str:
    """The comparison for a terminal."""
    lines = [f"{letter}: {_who(found[side])}" for letter, side in (("A", "first"), ("B", "second"))]
    lines += ["", *aligned([_HEAD, *_rows(found)]), ""]
    lines += _notes(found)
    return "\n".join(lines)


_HEAD = ("", "n", "A", "B", "B - A (95 %)", "only A right", "only B right", "test", "p", "p, Holm", "")


def _who(side: dict[str, Any]) -> str:
    digest = str(side["weight_digest"] or "")[:12]
    return f"{one_line(side['name'], 60)}: {one_line(str(side['model'] or 'unknown model'), 60)} {digest}".rstrip()


def _rows(found: dict[str, Any]) -> list[tuple[str, ...]]:
    rows = []
    for name, part in found["benchmarks"].items():
        values = (points(part["first"]), points(part["second"]), _difference(part["difference"]))
        wins = tuple(str(part[key]) if key in part else "–" for key in ("first_only_right", "second_only_right"))
        test = (part["test"] or "none", p_value(part["p"]), p_value(part["p_holm"]))
        rows.append((one_line(name, 30), str(part["questions"]), *values, *wins, *test, _verdict(part)))
        if metric := part.get("metric"):
            values = (points(metric["first"]), points(metric["second"]), _difference(metric["difference"]))
            rows.append((f"  {one_line(metric['name'], 28)}", "", *values, "", "", "", "", "", ""))
    average = found["average"]
    if len(found["benchmarks"]) > 1:
        blank = ("", "", _difference(average), "", "", "", p_value(average["p"]), "", "")
        rows.append((f"mean of {average['benchmarks']}", "", *blank))
    return rows


def _difference(figure: dict[str, Any]) -> str:
    return cell(figure, signed)


def _verdict(part: dict[str, Any]) -> str:
    if part["p_holm"] is None:
        return "too few questions"
    if part["p_holm"] >= CLEAR:
        return "no clear difference"
    return "B is better" if part["difference"]["value"] > 0 else "A is better"


def _notes(found: dict[str, Any]) -> list[str]:
    lines = [
        "Differences are in points, over the questions that both have; Holm's p allows for the number of benchmarks."
    ]
    if found["same"]:
        lines.insert(0, "A and B are the same evaluation, or one that came out alike: equal weights, equal samples.")
    for letter, side in (("A", "first"), ("B", "second")):
        if names := found[side]["benchmarks_alone"]:
            lines.append(f"only {letter} has: {one_line(', '.join(names), 160)}")
    for name, part in found["benchmarks"].items():
        for letter, side in (("A", "first_alone"), ("B", "second_alone")):
            if part[side]:
                lines.append(f"{one_line(name, 30)}: {part[side]} questions left out, which only {letter} has")
        if part["undecided"]:
            lines.append(f"{one_line(name, 30)}: {part['undecided']} questions without a verdict, counted as wrong")
        if part["test"] == "paired t" and part["questions"] < FEW:
            lines.append(f"{one_line(name, 30)}: {part['questions']} questions are too few to lean on the test")
    settings = found["settings"]
    judge_first = sorted(settings.items(), key=lambda item: not item[0].startswith("judge"))
    for setting, (first, second) in judge_first[:SHOWN]:
        lines.append(one_line(f"not the same: {setting}: {first!r} and {second!r}", 160))
    if len(settings) > SHOWN:
        lines.append(f"and {len(settings) - SHOWN} more settings; see --json")
    return lines
