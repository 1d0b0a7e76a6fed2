"""A run's result: one table and one picture, in the terminal and as report/report.{json,txt,png}.

Reward and the verifier's accept rate stand beside the *true* held-out accuracy of a strict oracle (where the data has
one), by step, so that a verifier that is being fooled shows as two lines that part.
Does not know: how a run is going now. Invariant: every figure comes from the run directory; what was not measured is
missing, not zero.
"""

import argparse
import json
from collections import Counter
from typing import Any

from grhpc.records import DECISIONS
from grhpc.report import evaluation, files, tuned, versions
from grhpc.report.find import find_run
from grhpc.report.history import History, Judged, last_judged_batch, read_history, thinned
from grhpc.report.judging import judging_line
from grhpc.report.picture import Bars, Curve, as_characters, write_png
from grhpc.report.text import duration, number, one_line, percent
from grhpc.store.atomic import to_json
from grhpc.store.ledger import read_ledger
from grhpc.store.rundir import RunDir

Result = dict[str, Any]


def command(args: argparse.Namespace) -> int:
    """The verb."""
    result, text = of_any_kind(find_run(args.run))
    print(json.dumps(result, indent=1) if args.json else text)
    return 0


def of_any_kind(run: RunDir) -> tuple[Result, str]:
    """The result of a run of any kind, its files written, and its text for a terminal."""
    if run.kind == "eval":
        result = evaluation.make(run)
        return result, evaluation.as_text(result)
    result = tuned.make(run) if run.kind == "sft" else make(run)
    return result, tuned.as_text(result) if run.kind == "sft" else as_text(result)


def make(run: RunDir) -> Result:
    """Gather the result and write report.json, report.txt and report.png; on a run that still goes, so far."""
    history, evaluations = read_history(run), versions.read_versions(run)
    result = gather(run, history)
    result["evaluations"] = json.loads(to_json({name: vars(of) for name, of in evaluations.items()}))
    heldout = _curves_of_rows(_rows(history))[1:]
    panels = _panels(history)
    panels += [(one_line(f"evaluation {name}", 60), of.curves() + heldout) for name, of in evaluations.items()]
    title = f"{run.root.name}: step {result['step']} of {result['steps']}"
    return files.write(run, result, lambda png: write_png(png, panels, title), as_text)


def gather(run: RunDir, history: History) -> Result:
    """Every figure as plain JSON values; rows are by step."""
    config, ledger = run.config(), read_ledger(run.ledger_dir, run_id=run.run_id)
    fates = Counter(fate.split(":")[0] if fate.startswith("trained") else fate for fate in ledger.fates.values())
    wall_s = (history.ended_s or 0.0) - (history.began_s or 0.0)
    result = {
        "run": run.root.name,
        "step": max(history.steps, default=0),
        "steps": config.train.steps,
        "verifier": config.verify.mode,
        "rows": _rows(history),
        "groups": {"admitted": ledger.next_group, **fates},
        "decisions": {d: sum((e.get("decisions") or {}).get(d, 0) for e in history.steps.values()) for d in DECISIONS},
        "heldout": {str(v): vars(judged) for v, judged in history.heldout.items()},
        "last_batch": vars(batch) if (batch := last_judged_batch(run, ledger)) else None,
        "judging": history.judging,
        "seconds": history.seconds,
        "wall_s": wall_s,
        "tokens": history.tokens["rollout"],
        "tokens_per_s": history.tokens["rollout"] / wall_s if wall_s > 0 else None,
    }
    plain: Result = json.loads(to_json(result))
    return plain


def as_text(result: Result) -> str:
    """The table, the picture and what to know, for a terminal."""
    rows = result["rows"]
    lines = [f"{result['run']}: step {result['step']} of {result['steps']}, verifier: {result['verifier']}", ""]
    lines += _table(thinned(rows, lambda row: row["heldout_true"] is not None))
    evaluations = result.get("evaluations", {})
    lines += ["", *as_characters(_curves_of_rows(rows) + versions.main_curves(evaluations)), ""]
    lines += _summary(result)
    lines += versions.lines(evaluations)
    return "\n".join(lines)


def _rows(history: History) -> list[dict[str, Any]]:
    """One row a step; the held-out figures of weight version v stand at step v."""
    wanted = ("reward_mean", "accept_rate", "response_tokens_mean", "staleness_mean", "staleness_max", "loss", "kl")
    rows = []
    for step in sorted({*history.steps, *history.heldout}):
        event, heldout = history.steps.get(step, {}), history.heldout.get(step)
        row: dict[str, Any] = {"step": step} | {name: event.get(name) for name in wanted}
        row |= {"decisions": event.get("decisions") or {}, "dropped": event.get("dropped") or {}}
        row["heldout_true"] = heldout.true if heldout else None
        row["heldout_accepted"] = heldout.accepted if heldout else None
        rows.append(row)
    return rows


def _table(rows: list[dict[str, Any]]) -> list[str]:
    head = (
        "step",
        "reward",
        "accepted",
        "held-out true",
        "held-out accepted",
        *DECISIONS,
        "tokens",
        "stale",
        "dropped",
    )
    body = [
        (
            str(row["step"]),
            number(row["reward_mean"]),
            percent(row["accept_rate"]),
            percent(row["heldout_true"]),
            percent(row["heldout_accepted"]),
            *(str(row["decisions"].get(d, 0)) if row["decisions"] else "–" for d in DECISIONS),
            number(row["response_tokens_mean"], 1),
            number(row["staleness_mean"], 2),
            str(sum(row["dropped"].values())) if row["decisions"] else "–",
        )
        for row in rows
    ]
    widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]
    return ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in [head, *body]]


def _curves_of_rows(rows: list[dict[str, Any]]) -> list[Curve]:
    names = {"reward": "reward_mean", "held-out accepted": "heldout_accepted", "held-out true": "heldout_true"}
    return [Curve(name, {row["step"]: row[key] for row in rows}) for name, key in names.items()]


def _summary(result: Result) -> list[str]:
    lines = []
    versions = sorted(result["heldout"], key=int)
    if versions:
        first, last = result["heldout"][versions[0]], result["heldout"][versions[-1]]
        gain = f"held-out, greedy, {last['num']} questions, version {versions[0]} to {versions[-1]}: "
        lines.append(gain + f"accepted {percent(first['accepted'])} to {percent(last['accepted'])}")
        if last["true"] is not None:
            lines[-1] += f", true {percent(first['true'])} to {percent(last['true'])}"
            lines.append(_against_truth("held-out at the end", last))
            before = {category: true for category, (_, _, true) in first["by_category"].items()}
            lines += [
                f"  {category}: true {percent(before.get(category))} to {percent(true)}"
                for category, (_, _, true) in last["by_category"].items()
            ]
    if result["last_batch"] and result["last_batch"]["true"] is not None:
        lines.append(_against_truth("samples of the last step", result["last_batch"]))
    lines.append("verdicts: " + ", ".join(f"{name} {num}" for name, num in result["decisions"].items()))
    lines.append("groups: " + ", ".join(f"{name} {num}" for name, num in result["groups"].items()))
    if result["judging"]:
        lines.append(judging_line(result["judging"]))
    for role, parts in result["seconds"].items():
        lines.append(
            f"time of {role}: " + (", ".join(f"{part} {duration(s)}" for part, s in parts.items()) or "none yet")
        )
    speed = f", {result['tokens_per_s']:.0f} sampled tokens a second" if result["tokens_per_s"] else ""
    lines.append(f"wall clock: {duration(result['wall_s'])}{speed}")
    if result.get("picture"):
        lines.append(f"picture: {result['picture']}")
    return lines


def _against_truth(what: str, judged: dict[str, Any]) -> str:
    return f"verifier on {what}: precision {percent(judged['precision'])}, recall {percent(judged['recall'])}"


def _panels(history: History) -> list[tuple[str, list[Curve] | Bars]]:
    rows = _rows(history)
    decisions = {d: {s: (e.get("decisions") or {}).get(d) for s, e in history.steps.items()} for d in DECISIONS}
    return [
        ("reward and held-out accuracy", _curves_of_rows(rows)),
        ("verdicts", Bars("rollouts", decisions)),
        ("verifier on held-out", _verifier_curves(history.heldout)),
        ("response tokens", [Curve("mean", {row["step"]: row["response_tokens_mean"] for row in rows})]),
        ("staleness", [Curve(k, {row["step"]: row[f"staleness_{k}"] for row in rows}) for k in ("mean", "max")]),
        ("trainer's seconds a step", Bars("seconds", _step_seconds(history))),
    ]


def _verifier_curves(heldout: dict[int, Judged]) -> list[Curve]:
    return [
        Curve("precision", {v: judged.precision for v, judged in heldout.items()}),
        Curve("recall", {v: judged.recall for v, judged in heldout.items()}),
    ]


def _step_seconds(history: History) -> dict[str, dict[int, float | None]]:
    parts = ("wait_s", "train_s", "publish_s", "checkpoint_s")
    return {part.removesuffix("_s"): {s: e.get(part) for s, e in history.steps.items()} for part in parts}
