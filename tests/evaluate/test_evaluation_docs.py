"""What docs/evaluation.md tells to write, works."""

import re
from pathlib import Path

import yaml

from grhpc.config import RunConfig
from grhpc.eval_config import EvalConfig, EvalDataConfig
from grhpc.evaluate.benchmarks import load_benchmarks

PAGE = Path(__file__).parents[2] / "docs" / "evaluation.md"


def test_the_thirteenth_benchmark():
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    tree = yaml.safe_load(block)
    config = EvalConfig(run=RunConfig(name="x"), data=EvalDataConfig(prepared="p"), **tree)
    added = load_benchmarks(config)["chemistry"]
    assert added.metric == "macro:branch" and added.samples == 4


def test_the_change_to_a_shipped_entry():
    assert "entries: {bbeh: {metric: harmonic:task}}" in PAGE.read_text()
    entries = {"bbeh": {"metric": "harmonic:task"}}
    config = EvalConfig(
        run=RunConfig(name="x"), data=EvalDataConfig(prepared="p"), benchmarks=["bbeh"], entries=entries
    )
    assert load_benchmarks(config)["bbeh"].metric == "harmonic:task"
