"""One sample of an evaluation, and how it came by its score.

    tiny.17         the response to question 17 of the benchmark `tiny`, counted from 0
    aime24.3.31     one of several responses to a question

It is read from the shard of scores, so a sample can be shown as soon as it is graded.
Does not know: benchmarks' rules. Invariant: reads only; a model's text is shown printable.
"""

import json
import math
from typing import Any

from grhpc.errors import StoreError
from grhpc.evaluate.statistics import REFUSED, TOO_LONG
from grhpc.records import Score
from grhpc.report.text import number, printable
from grhpc.store.atomic import to_json
from grhpc.store.folders import FAILED, LEASED
from grhpc.store.questions import Extent, QuestionShard
from grhpc.store.rundir import RunDir

_UNASKED = {TOO_LONG: "not asked: it is too long", REFUSED: "not answered: the server refused it"}
_STAGES = {"samples": "sampled, and not graded yet", "questions": "not sampled yet"}


def graded(run: RunDir, sample: str) -> dict[str, Any]:
    """Everything about one sample, as plain JSON. Raises StoreError where there is none, or none yet."""
    extent = Extent.of(run.about)
    benchmark, index, wanted = _named(extent, sample)
    each = extent.samples[benchmark]
    _check(f"{benchmark} has no question {index}", index, extent.questions[benchmark])
    if wanted is None and each > 1:
        raise StoreError(f"{sample} has {each} samples", f"name one: {sample}.0 to {sample}.{each - 1}")
    wanted = wanted or 0
    _check(f"{benchmark}.{index} has no sample {wanted}", wanted, each)
    shard = next(s for s in extent.shards() if s.benchmark == benchmark and s.first <= index < s.first + s.count)
    rows = _scores(run, shard)
    row = next((row for row in rows if (row.index, row.sample) == (index, wanted)), None)
    if row is None:
        raise StoreError(f"{shard.name} lacks sample {wanted} of question {index}", f"see: submit.py status {run.name}")
    plain: dict[str, Any] = json.loads(to_json(vars(row)))
    return plain


def lines(found: dict[str, Any]) -> list[str]:
    """The same for people."""
    sample = f"{found['benchmark']}.{found['index']}.{found['sample']}"
    ended = f"response, {_tokens(found)}, ended by {printable(found['finish_reason'])}:"
    response = [ended, *_indented(found["response"])]
    if found["finish_reason"] in _UNASKED:
        response = [f"response: none, {_UNASKED[found['finish_reason']]}"]
    return [
        f"sample {printable(sample)}, item {printable(found['item'])}, seed {found['seed']}, "
        f"weights {found['weight_digest'][:12]}",
        f"groups: {printable(found['groups'])}",
        f"question: {printable(found['question'])}",
        "prompt:",
        *_indented(found["prompt"]),
        *response,
        f"extracted: {'(nothing)' if found['extracted'] is None else printable(found['extracted'])}",
        f"gold: {printable(found['gold'])}" + (f" ({printable(found['gold_type'])})" if found["gold_type"] else ""),
        f"decided by {printable(found['layer'])}",
        f"in its words: {printable(found['reason'])}",
        f"score: {_score(found['score'])}",
    ]


def _named(extent: Extent, sample: str) -> tuple[str, int, int | None]:
    """Benchmark, question and, where it was named, sample. A benchmark may have dots in its name."""
    for benchmark in sorted(extent.questions, key=len, reverse=True):
        places = sample.removeprefix(f"{benchmark}.").split(".") if sample.startswith(f"{benchmark}.") else []
        if len(places) in (1, 2) and all(place.isascii() and place.isdigit() for place in places):
            return benchmark, int(places[0]), int(places[1]) if places[1:] else None
    known = ", ".join(f"{name} ({num} questions)" for name, num in extent.questions.items())
    raise StoreError(f"{sample!r} names no sample", f"give BENCHMARK.QUESTION or BENCHMARK.QUESTION.SAMPLE of: {known}")


def _check(problem: str, place: int, num: int) -> None:
    if place >= num:
        raise StoreError(problem, f"it has 0 to {num - 1}" if num > 1 else "it has one, 0")


def _scores(run: RunDir, shard: QuestionShard) -> list[Score]:
    """The shard's scores. Raises StoreError, which says how far it is, where there are none yet."""
    queue = run.queue("scores")
    path = queue.ready_paths().get(shard.name)
    if path is not None:
        scores: list[Score] = queue.read(path)
        return scores
    status = f"see: python submit.py status {run.name}"
    for name in _STAGES:
        for state, names in run.queue(name).names().items():
            if shard.name in names:
                raise StoreError(f"it is {_STAGES[name]}: shard {shard.name} {_how(run, name, state, shard)}", status)
    raise StoreError(f"shard {shard.name} is on its way from one task to another", f"try again, or {status}")


def _how(run: RunDir, queue: str, state: str, shard: QuestionShard) -> str:
    if state == FAILED:
        return "failed: " + next((f.reason for f in run.queue(queue).failed() if f.name == shard.name), "no reason")
    return "is in a task's hands" if state == LEASED else "waits for a task"


def _indented(text: str) -> list[str]:
    return [f"  | {line}" for line in printable(text).split("\n")]


def _tokens(found: dict[str, Any]) -> str:
    return "tokens unknown" if found["num_tokens"] is None else f"{found['num_tokens']} tokens"


def _score(score: float | None) -> str:
    undecided = score is None or math.isnan(score)
    return "none: the judge gave no verdict, so it counts as wrong" if undecided else number(score, 2)
