"""`resume --set` of a run that evaluates its versions: what becomes of how they are evaluated."""

from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pytest
from eval_inputs import SOURCES
from test_online import publish, training

from grhpc import preflight, start
from grhpc.cluster import launch
from grhpc.config_file import dump, load_as
from grhpc.errors import DataError
from grhpc.eval_config import EvalConfig
from grhpc.evaluate import online
from grhpc.evaluate.prepare import prepare
from grhpc.store.rundir import RunDir


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run that evaluates every second version, and whose file of evaluation and benchmark have changed since."""
    config, source, file = training(tmp_path), tmp_path / "math500.jsonl", tmp_path / "eval.yaml"
    source.write_text(Path(SOURCES["math500"]).read_text())
    asked = load_as(EvalConfig, file)
    asked = replace(asked, benchmarks=["math500"], data=replace(asked.data, sources={"math500": str(source)}))
    file.write_text(dump(asked))
    evaluated = online.load(config)
    prepare(evaluated)
    run = RunDir.create(tmp_path / "r", config, lambda new: new.online_path.write_text(dump(evaluated)))
    publish(run, 0)
    monkeypatch.setattr(preflight, "check", lambda config: None)
    monkeypatch.setattr(launch, "submit", lambda run, config, *more: [])
    source.write_text(source.read_text() + "\n")
    file.write_text(dump(replace(asked, sample=replace(asked.sample, max_response_tokens=5))))
    return run


def resume(run: RunDir, *overrides: str) -> int:
    return start.resume(
        Namespace(run=str(run.root), overrides=list(overrides), code=False, no_launch=False, watch=False)
    )


@pytest.mark.parametrize("override", ["cluster.rollout.tasks=3", "store.lease_s=60", "evaluate.every=3"])
def test_what_has_nothing_to_do_with_it_leaves_it_as_it_was(run, override):
    """Neither refused for a benchmark's data that changed, nor silently evaluated otherwise from now on."""
    before = run.online_path.read_bytes()
    assert resume(run, override) == 0
    assert run.online_path.read_bytes() == before
    assert [list(entry["settings"]) for entry in RunDir.open(run.root).about["changes"]] == [[override.split("=")[0]]]


def test_another_file_of_evaluation_is_read_and_its_data_held_to_what_is_prepared(run, tmp_path, capfd):
    (tmp_path / "eval.yaml").rename(tmp_path / "other.yaml")
    with pytest.raises((SystemExit, DataError)) as caught:
        resume(run, f"evaluate.config={tmp_path / 'other.yaml'}")
    said = capfd.readouterr().err + getattr(caught.value, "problem", "")
    assert "was prepared of other data than" in said
    assert "changes" not in RunDir.open(run.root).about
    now = load_as(EvalConfig, tmp_path / "other.yaml")
    prepared = replace(now.data, prepared=str(tmp_path / "prepared-again"))
    (tmp_path / "other.yaml").write_text(dump(replace(now, data=prepared)))
    assert resume(run, f"evaluate.config={tmp_path / 'other.yaml'}") == 0
    assert load_as(EvalConfig, run.online_path).data.prepared == prepared.prepared
