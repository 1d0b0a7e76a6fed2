"""What `report` shows of a run of fine-tuning: finished, half-way, resumed, and before its first step."""

import json

import pytest

from grhpc.cli import main
from grhpc.config import ModelConfig, RunConfig
from grhpc.report.report import of_any_kind
from grhpc.sft_config import SftConfig, SftDataConfig, SftTrainConfig
from grhpc.store.rundir import RunDir


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = SftDataConfig("lessons.jsonl", "prepared")
    config = SftConfig(RunConfig("tuned"), ModelConfig("base-model"), data, SftTrainConfig(steps=120))
    return RunDir.create(tmp_path / "runs" / "tuned", config)


def step(log, number, loss, **changes):
    figures = {"grad_norm": 1.5, "lr": 1e-3, "refused": 0.0, "examples": 4, "tokens": 100, "completion_tokens": 40}
    rest = {"padding": 0.25, "tokens_per_s": 50.0, "train_s": 2.0}
    log.emit("step", step=number, loss=loss, **figures | rest | changes)


def test_losses_by_step_and_what_it_cost(run, capsys):
    log = run.events("sft", "local-1")
    log.emit("start")
    log.emit("heldout", step=0, loss=10.0, examples=12)
    for number in range(1, 121):
        step(log, number, 8.0 / number)
        if number == 77:
            log.emit("heldout", step=77, loss=0.125, examples=12)
    run.model_dir.mkdir()
    assert main(["report", "tuned"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "tuned: step 120 of 120, from base-model"
    head = next(i for i, line in enumerate(out) if line.startswith("step  "))
    table = [line.split() for line in out[head + 1 :]]
    assert ["0", "–", "10.000", *"––––––"] in table and ["120", "0.067", "–"] in [cells[:3] for cells in table]
    assert ["77", "0.104", "0.125", "1.500", "1.00e-03", "4", "100", "50", "25", "%"] in table, (
        "what was measured stays"
    )
    assert "held-out loss, 12 examples, step 0 to 77: 10.000 to 0.125" in out
    assert "trained on 480 examples, 12,000 tokens, 4,800 of them of completions, which alone are learnt" in out
    assert any(line.startswith("time in steps: 4 min 0 s, 50 tokens a second") for line in out)
    assert any("● loss   ○ held-out loss" in line for line in out)
    assert out[-1] == f"the model: {run.model_dir}"
    assert (run.report_dir / "report.txt").read_text().splitlines() == out
    assert (run.report_dir / "report.png").read_bytes().startswith(b"\x89PNG")
    assert main(["report", "tuned", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((run.report_dir / "report.json").read_text())
    assert len(found["rows"]) == 121 and found["rows"][77]["heldout_loss"] == 0.125


def test_a_step_done_again_counts_once_and_a_refused_one_says_so(run):
    first, second = run.events("sft", "1-0"), run.events("sft", "1-1")
    step(first, 1, 4.0)
    step(first, 2, 3.0)
    step(second, 2, float("nan"), grad_norm=float("inf"), refused=1.0)
    result, text = of_any_kind(run)
    assert (result["step"], result["examples"], result["refused"], result["model"]) == (2, 8, 1, None)
    assert [row["loss"] for row in result["rows"]] == [4.0, None]
    assert "REFUSED" in text and "steps refused, since their gradient was not finite: 1" in text
    assert "held-out loss, " not in text and "the model" not in text


def test_before_its_first_step_there_is_nothing_to_draw(run):
    _, text = of_any_kind(run)
    assert text.startswith("tuned: step 0 of 120") and "nothing to draw yet" in text
