"""Scores made by hand, and finished evaluations of them."""

import json
from types import SimpleNamespace

import pyarrow.parquet as pq

from grhpc.config import RunConfig
from grhpc.eval_config import EvalConfig, EvalDataConfig
from grhpc.evaluate.statistics import average, summarise
from grhpc.records import Score
from grhpc.store.atomic import write_json
from grhpc.store.rundir import RunDir
from grhpc.store.shard import as_table
from grhpc.store.transfer import describe

NAN = float("nan")


def score(item, value, sample=0, *, benchmark="tiny", **changes) -> Score:
    """One graded response to question `item`; groups are given as a dict."""
    fields = {
        "benchmark": benchmark,
        "item": str(item),
        "index": 0,
        "question": f"What is {item}?",
        "prompt": f"What is {item}? Think.",
        "options": [],
        "gold": "5",
        "gold_type": "",
        "groups": {},
        "num_samples": 1,
        "sample": sample,
        "response": "\\boxed{5}",
        "num_tokens": 10,
        "finish_reason": "stop",
        "seed": 0,
        "weight_digest": "abc",
        "extracted": "5",
        "score": float(value),
        "layer": "exact",
        "reason": "",
    }
    row = {**fields, **changes}
    return Score(**{**row, "groups": json.dumps(row["groups"])})


def scores(values, **changes) -> list[Score]:
    """Questions 0, 1, ... with one response each."""
    return [score(item, value, **changes) for item, value in enumerate(values)]


def entry(metric="micro", groups=(), pass_at=()):
    """What `summarise` asks of a benchmark's entry."""
    return SimpleNamespace(metric=metric, groups={kind: [kind] for kind in groups}, pass_at=list(pass_at))


def write_evaluation(folder, rows, *, entries=None, model="a model", **config):
    """A finished evaluation's two files. `entries` are by benchmark."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = folder / "samples.parquet"
    pq.write_table(as_table(rows), samples)
    names = list(dict.fromkeys(row.benchmark for row in rows))
    parts = {
        name: summarise([row for row in rows if row.benchmark == name], (entries or {}).get(name, entry()))
        for name in names
    }
    summary = {
        "model": model,
        "weight_digest": "abc" * 20,
        "samples_sha256": describe(samples)["sha256"],
        "benchmarks": parts,
        "average": average(parts.values()),
        "config": {"few_shot": 0, **config},
    }
    write_json(folder / "summary.json", summary)
    return folder


def make_run(root, benchmarks=("tiny",), entries=None) -> RunDir:
    """The run directory of an evaluation; `entries` as a configuration has them."""
    config = EvalConfig(
        run=RunConfig(name=root.name, dir=str(root.parent)),
        benchmarks=list(benchmarks),
        data=EvalDataConfig(prepared=str(root.parent / "prepared")),
        entries=entries or {},
    )
    return RunDir.create(root, config)
