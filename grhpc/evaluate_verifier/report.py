"""What was found about a verifier: a table for the terminal, JSON for programs, the disagreements for reading.

Does not know: judges, how a picture is drawn. Invariant: text of a model or of a data set is shown printable; a figure
that could not be computed is missing, not zero.
"""

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grhpc.evaluate_verifier.attack_run import AttackResult
from grhpc.evaluate_verifier.judging import BARE, Judged
from grhpc.evaluate_verifier.metrics import Counts, Share, calibrate, count, share_of
from grhpc.records import NO
from grhpc.report.text import number, one_line
from grhpc.store.atomic import to_json, write_bytes

CELLS = ("true_yes", "false_yes", "false_no", "true_no", "no_verdict")
INTERVALS = (
    "% with 95 % intervals (Wilson, by the variance between questions: answers to one question are not independent)"
)
MOST_GROUPS = 12  # of one kind, in the table; all are in the JSON
GROUPINGS: dict[str, Callable[[Judged], str]] = {
    "source": lambda j: j.pair.source,
    "answer type": lambda j: j.pair.answer_type,
    "category": lambda j: j.pair.category,
}


@dataclass(frozen=True)
class ModeResult:
    """One mode's decisions, the seconds they took, and, where it was attacked, how that went."""

    mode: str
    judged: list[Judged]
    seconds: float
    usage: dict[str, float]
    attacks: AttackResult | None = None


def as_json(result: ModeResult) -> dict[str, Any]:
    """Every figure of one mode as plain JSON values."""
    judged = result.judged
    found: dict[str, Any] = {
        "mode": result.mode,
        "seconds": round(result.seconds, 2),
        "all": figures(counts_of(judged)),
        "usage": result.usage,
        "layers": dict(Counter(j.decision.layer for j in judged)),
        "right_answers_refused_by_a_guard": share(guard_losses(judged)),
        "calibration": calibration_of(judged),
    }
    for name, key in GROUPINGS.items():
        found[f"by {name}"] = {group: figures(counts_of(of)) for group, of in grouped(judged, key)}
    if result.attacks is not None:
        attacks = result.attacks
        found["attacks"] = {
            "all": share(attacks.all),
            "no_verdict": attacks.no_verdict,
            "stopped_by": attacks.stopped_by,
            "by family": {family: share(s) for family, s in attacks.success.items()},
            "accepted": [
                {"family": b.attack.family, "question": b.attack.victim.question, "answer": b.answer}
                | {"reference": b.attack.victim.reference, "layer": b.decision.layer, "reason": b.decision.reason}
                for b in attacks.broken
            ],
        }
    return found


def counts_of(judged: Sequence[Judged]) -> Counts:
    return count((j.pair.question, j.accepted, j.pair.label) for j in judged)


def figures(counts: Counts) -> dict[str, Any]:
    """One row of the table."""
    return {
        "pairs": counts.decided + counts.no_verdict,
        "questions": len(counts.questions),
        **{name: getattr(counts, name) for name in CELLS},
        "precision": share(counts.precision),
        "recall": share(counts.recall),
        "agreement": share(counts.agreement),
        "no_verdict_share": share(counts.undecided),
        "f1": {"value": counts.f1, "interval": counts.f1_interval},
        "kappa": counts.kappa,
    }


def share(found: Share) -> dict[str, Any]:
    """`effective`: of how many independent answers the interval is, where several answer one question."""
    effective = found.n if math.isnan(found.effective) else round(found.effective, 1)
    return {"k": found.k, "n": found.n, "value": found.value, "interval": found.interval, "effective": effective}


def guard_losses(judged: Sequence[Judged]) -> Share:
    """Right answers that a guard settled as wrong, of all right answers: what the guards cost in recall."""
    right = [j for j in judged if j.pair.label]
    return share_of((j.pair.question, j.decision.layer == "guard" and j.decision.decision == NO) for j in right)


def calibration_of(judged: Sequence[Judged]) -> dict[str, Any] | None:
    known = [(p, j.pair.label) for j in judged if (p := j.probability_of_yes) is not None]
    found = calibrate([p for p, _ in known], [label for _, label in known])
    return None if found is None else dataclasses.asdict(found)


def grouped(judged: Sequence[Judged], key: Callable[[Judged], str]) -> list[tuple[str, list[Judged]]]:
    """The groups that a key makes, the largest first; without a name they are no group."""
    of: dict[str, list[Judged]] = {}
    for j in judged:
        of.setdefault(key(j), []).append(j)
    of.pop("", None)
    return sorted(of.items(), key=lambda item: (-len(item[1]), item[0]))


def write_disagreements(path: Path, results: Sequence[ModeResult]) -> int:
    """Every pair that a mode got wrong or did not decide, one JSON object a line; how many."""
    lines = []
    for result in results:
        for j in result.judged:
            if j.accepted == j.pair.label:
                continue
            decision = {name: getattr(j.decision, name) for name in ("decision", "layer", "reason", "confidence")}
            lines.append(to_json({"mode": result.mode, **dataclasses.asdict(j.pair), **decision}))
    write_bytes(path, "".join(line + "\n" for line in lines).encode("utf-8", "backslashreplace"))
    return len(lines)


def as_text(summary: dict[str, Any]) -> str:
    """The tables, for a terminal."""
    lines = [INTERVALS, ""]
    for mode in summary["modes"]:
        lines += [*_mode_lines(mode), ""]
    attacked = [mode for mode in summary["modes"] if "attacks" in mode]
    if attacked:
        lines += [*_attack_lines(attacked), ""]
    return "\n".join(lines)


def _mode_lines(mode: dict[str, Any]) -> list[str]:
    rows = [
        ("", "pairs", "questions", "precision", "recall", "F1", "agreement", "kappa", "no verdict"),
        _row("all", mode["all"]),
    ]
    for name in GROUPINGS:
        groups = mode[f"by {name}"]
        if len(groups) > 1:
            shown = list(groups.items())[:MOST_GROUPS]
            rows += [_row(f"{name}: {one_line(group, 24)}", row) for group, row in shown]
    layers = ", ".join(f"{layer} {num}" for layer, num in mode["layers"].items())
    name = (
        f"{BARE} (the judge alone, no extraction, no guards: to compare with)" if mode["mode"] == BARE else mode["mode"]
    )
    lines = [f"mode {name}: decided by {layers} in {mode['seconds']:.0f} s", *_aligned(rows)]
    lost = mode["right_answers_refused_by_a_guard"]
    if lost["k"]:
        lines.append(f"right answers refused by a guard: {lost['k']} of {lost['n']}")
    if calibration := mode["calibration"]:
        of = f"over {calibration['num']} decisions of the judge"
        lines.append(f"calibration {of}: ECE {calibration['ece']:.3f}, Brier {calibration['brier']:.3f}")
    return lines


def _attack_lines(modes: Sequence[dict[str, Any]]) -> list[str]:
    families = list(dict.fromkeys(family for mode in modes for family in mode["attacks"]["by family"]))
    rows = [("attacks accepted", *(mode["mode"] for mode in modes))]
    for family in families:
        rows.append((family, *(_rate(mode["attacks"]["by family"].get(family)) for mode in modes)))
    rows.append(("all", *(_rate(mode["attacks"]["all"]) for mode in modes)))
    rows.append(("no verdict", *(str(mode["attacks"]["no_verdict"]) for mode in modes)))
    return _aligned(rows)


def _row(name: str, row: dict[str, Any]) -> tuple[str, ...]:
    cells = (_percent(row["precision"]), _percent(row["recall"]), _percent(row["f1"]), _percent(row["agreement"]))
    return (
        name,
        str(row["pairs"]),
        str(row["questions"]),
        *cells,
        number(row["kappa"], 2),
        _percent(row["no_verdict_share"]),
    )


def _percent(found: dict[str, Any], digits: int = 0) -> str:
    if found["value"] is None:
        return "–"
    low, high = found["interval"]
    return f"{100 * found['value']:.1f} ({100 * low:.{digits}f}-{100 * high:.{digits}f})"


def _rate(found: dict[str, Any] | None) -> str:
    return "–" if not found or found["value"] is None else f"{found['k']}/{found['n']} = {_percent(found, 1)}"


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def plain(summary: Any) -> Any:
    """The summary as it comes back from its JSON file: tuples are lists, NaN is null."""
    return json.loads(to_json(summary))
