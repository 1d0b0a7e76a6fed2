"""An evaluation's result: one table beside the published figures, and one picture; also report/report.{json,txt,png}.

Does not know: how a figure is made. Invariant: reads what the evaluation wrote, whoever made it: what is missing or is
no number is a dash, and every name is shown printable.
"""

import json
from collections.abc import Mapping
from typing import Any

from grhpc.errors import GrhpcError, StoreError
from grhpc.evaluate.answered import read_summary
from grhpc.evaluate.benchmarks import load_averages, load_benchmarks
from grhpc.evaluate.figures import average, figure
from grhpc.evaluate.table import NONE, aligned, cell, points, with_error
from grhpc.report import files
from grhpc.report.evaluation_picture import as_characters, write_png
from grhpc.report.text import number, one_line
from grhpc.store.atomic import to_json
from grhpc.store.rundir import RunDir

Result = dict[str, Any]
RATES = ("truncated", "missing", "undecided", "too_long", "refused")
_HEAD = ("", "questions", "score ± SE", "95 %", "tokens", "truncated", "missing", "undecided", "too long", "refused")


def make(run: RunDir) -> Result:
    """Gather the result and write its files. Raises StoreError while the evaluation is not finished."""
    result = gather(run)

    def whole(result: Result) -> str:
        return "\n".join([as_text(result), "", *by_group(result)])

    return files.write(run, result, lambda png: write_png(png, result), whole)


def gather(run: RunDir) -> Result:
    """The summary, and beside each benchmark what was published."""
    summary = read_summary(run.root)
    if summary is None:
        left = {name: sum(counts.values()) for name in ("questions", "samples") if (counts := run.queue(name).counts())}
        shards = ", ".join(f"{num} shards of {name} to do" for name, num in left.items())
        raise StoreError(f"{run.name} is not finished: {shards}", f"see: python submit.py status {run.name}")
    entries = _entries(run)
    parts = {name: _part(_mapping(part), entries.get(name)) for name, part in summary["benchmarks"].items()}
    result = {
        "evaluation": run.name,
        "model": summary.get("model"),
        "weight_digest": summary.get("weight_digest"),
        "limit": _mapping(summary.get("config")).get("limit"),
        "benchmarks": parts,
        "average": average(parts.values()),
        "averages": _averages(parts),
    }
    plain: Result = json.loads(to_json(result))
    return plain


def _part(part: Mapping[str, Any], entry: Any) -> Result:
    """A benchmark's part as it should be, whatever it is."""
    rates = {key: {"num": _mapping(part.get(key)).get("num"), **_figure(part.get(key))} for key in RATES}
    published = {"title": entry.title if entry else "", "published": dict(entry.published) if entry else {}}
    return {**part, **_figure(part), **rates, "tokens_mean": _figure(part.get("tokens_mean")), **published}


def _entries(run: RunDir) -> Mapping[str, Any]:
    """The entries as they are now; none where the configuration is of other times."""
    try:
        return load_benchmarks(run.evaluation())
    except GrhpcError:
        return {}


def _averages(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The means of several benchmarks that are published as such, where all of these were asked."""
    found = {}
    for name, mean in load_averages().items():
        if all(of in parts for of in mean.of):
            figures = average([parts[of] for of in mean.of])
            found[name] = {**figures, "title": mean.title, "of": mean.of, "published": dict(mean.published)}
    return found


def as_text(result: Result) -> str:
    """The tables, the picture and what to know, for a terminal."""
    digest = str(result["weight_digest"] or "")[:12]
    lines = [f"{one_line(result['evaluation'], 80)}: {one_line(str(result['model'] or 'unknown model'), 80)} {digest}"]
    lines += ["", *aligned(_scores(result))]
    if (published := _published(result)) is not None:
        lines += ["", "beside what was published:", *aligned(published)]
    lines += ["", *as_characters(result), "", *_more(result)]
    if result.get("picture"):
        lines.append(f"picture: {result['picture']}; every group: report.txt beside it")
    return "\n".join(lines)


def _scores(result: Result) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [_HEAD]
    for name, part in result["benchmarks"].items():
        rates = tuple(_rate(part[rate]) for rate in RATES)
        length = number(part["tokens_mean"]["value"], 0)
        rows.append((_title(name, part), _asked(part), with_error(part), _interval(part), length, *rates))
    for name, part in [*result["averages"].items(), ("all", result["average"])]:
        if part["benchmarks"] > 1:
            title = f"{_title(name, part)}, mean of {part['benchmarks']}"
            rows.append((title, "", with_error(part), _interval(part), *("",) * (1 + len(RATES))))
    return rows


def _published(result: Result) -> list[tuple[str, ...]] | None:
    """Ours beside theirs; None where nothing is published of what was asked."""
    all_parts = {**result["benchmarks"], **result["averages"]}
    parts = {name: part for name, part in all_parts.items() if part["published"]}
    models = list(dict.fromkeys(model for part in parts.values() for model in part["published"]))
    if not models:
        return None
    rows = [("", "this", *(one_line(model, 20) for model in models))]
    for name, part in parts.items():
        theirs = (f"{part['published'][model]:.1f}" if model in part["published"] else NONE for model in models)
        rows.append((_title(name, part), cell(part), *theirs))
    return rows


def _more(result: Result) -> list[str]:
    """Chances with several samples, means over groups, and what a figure hides."""
    lines = []
    for name, part in result["benchmarks"].items():
        known = [(k, _figure(f)) for k, f in _mapping(part.get("pass_at")).items()]
        if chances := ", ".join(f"pass@{one_line(k, 6)} {cell(f)}" for k, f in known if f["value"] is not None):
            lines.append(f"{_title(name, part)}: {chances}")
        for mean in ("macro", "harmonic"):
            over = [(kind, _figure(f)) for kind, f in _mapping(part.get(mean)).items()]
            wanted = [(kind, f) for kind, f in over if mean == "macro" or str(part.get("metric")) == f"harmonic:{kind}"]
            if shown := ", ".join(f"{one_line(kind, 20)} {cell(f)}" for kind, f in wanted if f["value"] is not None):
                lines.append(f"{_title(name, part)}: {mean} over {shown}")
    if any(part["undecided"]["value"] for part in result["benchmarks"].values()):
        lines.append("* some samples have no verdict: they count as wrong; `undecided` is their share")
    for name, part in result["benchmarks"].items():
        if part["too_long"]["value"] == 1:
            what = "nothing was asked: every prompt is longer than data.max_prompt_tokens"
            lines.append(f"{_title(name, part)}: {what}")
    if result["limit"] is not None:
        lines.append(f"only the first {one_line(str(result['limit']), 12)} questions of each benchmark: data.limit")
    return lines


def by_group(result: Result) -> list[str]:
    """Every group of every benchmark, with the number of its questions."""
    lines = []
    for name, part in result["benchmarks"].items():
        for kind, groups in _mapping(part.get("groups")).items():
            rows = [(f"{_title(name, part)} by {one_line(kind, 30)}", "questions", "score (95 %)")]
            for group, of in _mapping(groups).items():
                asked = str(_mapping(of).get("n", NONE))
                rows.append((f"  {one_line(group, 60)}", asked, cell(_figure(of))))
            lines += [*aligned(rows), ""]
    return lines


def _figure(found: Any) -> dict[str, Any]:
    """A figure as it should be, whatever stands in its place."""
    found = _mapping(found)
    value, se, interval = found.get("value"), found.get("se"), found.get("interval")
    if not _is_number(value):
        return figure(None)
    known = isinstance(interval, list) and len(interval) == 2 and all(map(_is_number, interval))
    return {"value": value, "se": se if _is_number(se) else None, "interval": interval if known else None}


def _title(name: str, part: Mapping[str, Any]) -> str:
    undecided = _mapping(part.get("undecided")).get("value")
    return one_line(str(part.get("title") or name), 30) + "*" * bool(undecided)


def _asked(part: Mapping[str, Any]) -> str:
    questions, each = part.get("questions"), part.get("samples_per_question")
    count = str(questions) if _is_number(questions) else NONE
    metric = str(part.get("metric") or "micro")
    times = f" x {each}" if _is_number(each) and each != 1 else ""
    return f"{count}{times}" + ("" if metric == "micro" else f", {one_line(metric, 24)}")


def _interval(part: Mapping[str, Any]) -> str:
    interval = part["interval"]
    return f"{points(interval[0])} to {points(interval[1])}" if interval else NONE


def _rate(found: Mapping[str, Any]) -> str:
    return NONE if found["value"] is None else f"{points(found['value'])} %"


def _mapping(found: Any) -> Mapping[str, Any]:
    return found if isinstance(found, dict) else {}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
