"""What docs/evaluation.md tells to write, works."""

import json
import re
from pathlib import Path

import yaml

from grhpc.config import RunConfig
from grhpc.config_file import load_as
from grhpc.eval_config import EvalConfig, EvalDataConfig
from grhpc.evaluate.benchmarks import load_benchmarks
from grhpc.evaluate.prepare import load_questions, prepare
from tests.evaluated import scores, write_evaluation

PAGE = Path(__file__).parents[2] / "docs" / "evaluation.md"


def test_the_thirteenth_benchmark(tmp_path, monkeypatch):
    """Into a copy of configs/eval-tiny.yaml, with the file that it names, and nothing from the Hub."""
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    whole = yaml.safe_load((PAGE.parents[1] / "configs" / "eval-tiny.yaml").read_text()) | yaml.safe_load(block)
    Path("mine.yaml").write_text(yaml.safe_dump(whole))
    Path("data").mkdir()
    row = {"id": "c1", "problem": "2 + 3 mol?", "solution": {"final": "5"}, "branch": "sums"}
    Path("data/chemistry.jsonl").write_text(json.dumps(row) + "\n")
    config = load_as(EvalConfig, "mine.yaml", [])
    assert prepare(config)["benchmarks"]["chemistry"]["samples"] == 4
    (question,) = load_questions(Path(config.data.prepared), "chemistry")
    assert (question.gold, question.groups) == ("5", '{"branch": "sums"}')
    assert question.prompt == "2 + 3 mol?\nGive the result in \\boxed{}."


def test_the_snippet_for_pandas_shows_what_was_answered(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    wrong = scores([0, 1, 0], gold="7 mol of salt, as was to be shown here", extracted="5", groups={"category": "sums"})
    write_evaluation(tmp_path / "runs" / "eval-tiny", wrong)
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    exec(block, {})
    shown = capsys.readouterr().out
    assert "..." not in shown and len(re.findall("7 mol of salt, as was to be shown here +5 +exact\\n", shown)) == 2


def test_the_change_to_a_shipped_entry():
    assert "entries: {bbeh: {metric: harmonic:task}}" in PAGE.read_text()
    entries = {"bbeh": {"metric": "harmonic:task"}}
    config = EvalConfig(
        run=RunConfig(name="x"), data=EvalDataConfig(prepared="p"), benchmarks=["bbeh"], entries=entries
    )
    assert load_benchmarks(config)["bbeh"].metric == "harmonic:task"
