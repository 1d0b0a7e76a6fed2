"""How far an evaluation is: shards and samples of all, the pace, what the judge was asked.

Does not know: scores, figures, how it is launched. Invariant: what is done is counted from the queues' listings, which
are the truth; events tell the pace alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from grhpc.report.judging import judging, judging_line
from grhpc.report.text import duration, number, one_line
from grhpc.store.atomic import list_names
from grhpc.store.questions import Extent, QuestionShard
from grhpc.store.rundir import QUEUES, RunDir

RECENT_S = 600.0  # of the events that tell the pace
STAGES = {"sample": "asked", "grade": "graded"}
NOT_SUBMITTED = "not submitted yet"
Event = dict[str, Any]


def facts(run: RunDir, events: Sequence[Event], now_s: float) -> dict[str, Any]:
    """Shards and samples in all, and those that have passed each stage; `left_s` is None where no pace is known."""
    names = {name: run.queue(name).names() for name in QUEUES[run.kind]}
    shards = list(Extent.of(run.about).shards())
    scored, sampled = (set().union(*names[name].values()) for name in ("scores", "samples"))
    passed = {"sample": sampled | scored, "grade": scored}
    num_samples = {stage: _samples(shards, done) for stage, done in passed.items()}
    total = sum(shard.num_samples for shard in shards)
    pace = {stage: None if run.finished() else _pace(events, stage, now_s) for stage in STAGES}
    return {
        "model": run.about["model"],
        "shards": len(shards),
        "samples": total,
        "shards_done": {stage: sum(shard.name in done for shard in shards) for stage, done in passed.items()},
        "samples_done": num_samples,
        "samples_per_s": pace,
        "left_s": _left_s({stage: total - done for stage, done in num_samples.items()}, pace),
        "queues": {name: {state: len(found) for state, found in of.items()} for name, of in names.items()},
        "judging": judging(events),
    }


def of_run(run: RunDir) -> dict[str, str]:
    """The evaluations of a run of training, by their names on the command line: what has become of them."""
    found = {}
    for name, version in run.evaluations():
        evaluation = RunDir.open(run.evaluation_dir(name, version))
        submitted = any(file.endswith(".json") for file in list_names(evaluation.jobs_dir))
        state = "finished" if evaluation.finished() else "started" if submitted else NOT_SUBMITTED
        found[evaluation.name] = state
    return found


def head(found: Mapping[str, Any]) -> str:
    """The progress in a few words."""
    return f"{found['shards_done']['grade']} of {found['shards']} shards done"


def lines(found: Mapping[str, Any]) -> list[str]:
    """The facts for people."""
    text = [f"model: {one_line(str(found['model']), 160)}"]
    for stage, word in STAGES.items():
        done, pace = found["samples_done"][stage], found["samples_per_s"][stage]
        fast = "" if pace is None else f", {number(pace, 1)} a second"
        text.append(
            f"{word}: {done} of {found['samples']} samples in {found['shards_done'][stage]} of {found['shards']} shards"
            + fast
        )
    if found["left_s"] and found["state"] == "running":
        text.append(f"about {duration(found['left_s'])} to go")
    if held := sum(counts["leased"] for counts in found["queues"].values()):
        text.append(f"shards that tasks hold: {held} (one whose task has died comes back after store.lease_s)")
    failed = {name: counts["failed"] for name, counts in found["queues"].items() if counts["failed"]}
    text += [f"failed shards of {name}: {num}" for name, num in failed.items()]
    return text + ([judging_line(found["judging"])] if found["judging"] else [])


def _samples(shards: Sequence[QuestionShard], names: set[str]) -> int:
    return sum(shard.num_samples for shard in shards if shard.name in names)


def _pace(events: Sequence[Event], stage: str, now_s: float) -> float | None:
    """Samples a second of all tasks together, over what they worked of the last minutes: a stop in between is none."""
    recent = [e for e in events if e["event"] == "shard" and e.get("stage") == stage and now_s - e["t"] <= RECENT_S]
    if not recent:
        return None
    worked_s = until_s = 0.0
    for began_s, ended_s in sorted((e["t"] - (e.get("seconds") or 0.0), e["t"]) for e in recent):
        worked_s += max(ended_s - max(began_s, until_s), 0.0)
        until_s = max(until_s, ended_s)
    return float(sum(e.get("samples") or 0 for e in recent) / max(worked_s, 1e-3))


def _left_s(left: Mapping[str, int], pace: Mapping[str, float | None]) -> float | None:
    """Both stages one after the other; a stage that has not begun is left out."""
    known = [left[stage] / rate for stage, rate in pace.items() if rate and left[stage]]
    return sum(known) if known else None
