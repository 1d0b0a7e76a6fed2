"""The result of a run of fine-tuning: losses by step as one table and one picture; also report/report.{json,txt,png}.

Does not know: how the run is going now. Invariant: every figure comes from the run's events; what was not measured is
missing, not zero, and a step that was done again after a resume counts once.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from grhpc.evaluate.table import aligned
from grhpc.report import files, tuning
from grhpc.report.history import Event, last_steps, thinned
from grhpc.report.picture import Bars, Curve, as_characters, write_png
from grhpc.report.text import duration, number, percent
from grhpc.sft_config import SftConfig
from grhpc.store.atomic import to_json
from grhpc.store.events import read_events
from grhpc.store.rundir import RunDir

Result = dict[str, Any]
_WANTED = ("loss", "grad_norm", "lr", "examples", "tokens", "completion_tokens", "padding", "tokens_per_s", "train_s")
_HEAD = ("step", "loss", "held-out loss", "gradient", "lr", "examples", "tokens", "tokens/s", "padding")


def make(run: RunDir) -> Result:
    """Gather the result and write its files; of a run that still goes, so far."""
    result = gather(run)
    panels, title = _panels(result["rows"]), f"{run.root.name}: step {result['step']} of {result['steps']}"
    return files.write(run, result, lambda png: write_png(png, panels, title), as_text)


def gather(run: RunDir) -> Result:
    """Every figure as plain JSON values; rows are by step, and the held-out loss after step n stands at n."""
    config = run.settings()
    assert isinstance(config, SftConfig)
    events = read_events(run.events_dir, "sft")
    steps = last_steps(events)
    heldout = {int(event["step"]): event for event in events if event["event"] == "heldout"}
    result = {
        "run": run.root.name,
        "step": max(steps, default=0),
        "steps": config.train.steps,
        "from": config.model.model,
        "rows": [_row(step, steps.get(step, {}), heldout.get(step)) for step in sorted({*steps, *heldout})],
        "heldout_examples": max((event.get("examples") or 0 for event in heldout.values()), default=0),
        "examples": _sum(steps, "examples"),
        "tokens": _sum(steps, "tokens"),
        "completion_tokens": _sum(steps, "completion_tokens"),
        "refused": sum(bool(event.get("refused")) for event in steps.values()),
        "train_s": _sum(steps, "train_s"),
        "wall_s": events[-1]["t"] - events[0]["t"] if events else 0.0,
        "model": tuning.facts(run)["model"],
    }
    plain: Result = json.loads(to_json(result))
    return plain


def as_text(result: Result) -> str:
    """The table, the picture and what to know, for a terminal."""
    rows = result["rows"]
    lines = [f"{result['run']}: step {result['step']} of {result['steps']}, from {result['from']}", ""]
    shown = thinned(rows, lambda row: row["heldout_loss"] is not None)
    lines += [*aligned([_HEAD, *map(_cells, shown)]), "", *as_characters(_losses(rows)), "", *_summary(result)]
    return "\n".join(lines)


def _row(step: int, event: Event, heldout: Event | None) -> dict[str, Any]:
    row: dict[str, Any] = {"step": step} | {name: event.get(name) for name in _WANTED}
    return row | {"refused": bool(event.get("refused")), "heldout_loss": heldout["loss"] if heldout else None}


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        str(row["step"]),
        number(row["loss"]),
        number(row["heldout_loss"]),
        "REFUSED" if row["refused"] else number(row["grad_norm"]),
        "–" if row["lr"] is None else f"{row['lr']:.2e}",
        *(number(row[name], 0) for name in ("examples", "tokens", "tokens_per_s")),
        percent(row["padding"]),
    )


def _summary(result: Result) -> list[str]:
    lines = []
    measured = [row for row in result["rows"] if row["heldout_loss"] is not None]
    if measured:
        first, last = measured[0], measured[-1]
        lines.append(
            f"held-out loss, {result['heldout_examples']} examples, step {first['step']} to {last['step']}: "
            f"{number(first['heldout_loss'])} to {number(last['heldout_loss'])}"
        )
    if result["refused"]:
        lines.append(f"steps refused, since their gradient was not finite: {result['refused']}")
    completion = f"{result['completion_tokens']:,} of them of completions, which alone are learnt"
    lines.append(f"trained on {result['examples']:,} examples, {result['tokens']:,} tokens, {completion}")
    speed = f", {result['tokens'] / result['train_s']:.0f} tokens a second" if result["train_s"] else ""
    lines.append(f"time in steps: {duration(result['train_s'])}{speed}; wall clock: {duration(result['wall_s'])}")
    if result.get("picture"):
        lines.append(f"picture: {result['picture']}")
    if result["model"]:
        lines.append(f"the model: {result['model']}")
    return lines


def _losses(rows: Sequence[Mapping[str, Any]]) -> list[Curve]:
    return [_curve(rows, "loss", "loss"), _curve(rows, "held-out loss", "heldout_loss")]


def _panels(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Curve] | Bars]]:
    seconds = {"train": {row["step"]: row["train_s"] for row in rows if row["train_s"] is not None}}
    return [
        ("loss a completion token", _losses(rows)),
        ("gradient norm", [_curve(rows, "", "grad_norm")]),
        ("learning rate", [_curve(rows, "", "lr")]),
        ("tokens a second", [_curve(rows, "", "tokens_per_s")]),
        ("share of padding", [_curve(rows, "", "padding")]),
        ("seconds a step", Bars("seconds", seconds)),
    ]


def _curve(rows: Sequence[Mapping[str, Any]], name: str, key: str) -> Curve:
    return Curve(name, {row["step"]: row[key] for row in rows})


def _sum(steps: Mapping[int, Event], name: str) -> Any:
    return sum(event.get(name) or 0 for event in steps.values())
