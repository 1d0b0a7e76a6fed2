"""What `report` shows of an evaluation, beside what was published, and over a run's versions."""

import json

import pytest

from grhpc.cli import main
from grhpc.errors import StoreError
from grhpc.report import evaluation
from grhpc.report.report import as_text, make
from tests.evaluated import NAN, entry, make_run, score, scores, write_evaluation

HOSTILE = "\x1b]0;owned\x07 $x^{ \u202e"
MATHS = ("math500", "olympiadbench", "minerva", "gsm8k", "amc23", "aime24", "aime25")


def shown(result):
    return evaluation.as_text(result) + "\n".join(evaluation.by_group(result))


def test_the_table_beside_what_was_published(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = make_run(tmp_path / "runs" / "mine", ["mmlu-pro", "aime24"])
    rows = scores([1, 1, 1, 0], benchmark="mmlu-pro", groups={"category": "law"})
    rows += [score(i, k < 8, k, benchmark="aime24") for i in range(3) for k in range(32)]
    entries = {"mmlu-pro": entry(groups=["category"]), "aime24": entry(pass_at=[1, 32])}
    write_evaluation(run.root, rows, entries=entries)
    assert main(["report", "mine"]) == 0
    lines = capsys.readouterr().out.splitlines()
    table = next(line for line in lines if line.startswith("MMLU-Pro"))
    assert "75.0 ± 25.0" in table and "30.1 to 95.4" in table
    assert any(line.startswith("AIME24") and "3 x 32" in line and "25.0" in line for line in lines)
    beside = [line for line in lines if line.startswith("MMLU-Pro")][1]
    assert "62.8" in beside and "47.7" in beside, "GR-4B and its base, as published"
    assert any("pass@32 100.0" in line for line in lines)
    assert any(line.lstrip().startswith("MMLU-Pro │") and "●" in line and "○" in line for line in lines)
    assert "law" in (run.report_dir / "report.txt").read_text()
    assert (run.report_dir / "report.png").read_bytes().startswith(b"\x89PNG")
    assert main(["report", "mine", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["benchmarks"]["mmlu-pro"]["published"]["GR-7B"] == 58.9


def test_a_mean_that_is_published_as_such(tmp_path):
    run = make_run(tmp_path / "runs" / "maths", MATHS)
    rows = [row for name in MATHS for row in scores([1, 0, 0, 1], benchmark=name)]
    write_evaluation(run.root, rows)
    found = evaluation.gather(run)
    assert found["averages"]["maths"]["value"] == 0.5 and found["averages"]["maths"]["published"]["GR-4B"] == 53.4
    assert "Mathematics, mean of 7" in shown(found) and "53.4" in shown(found)
    write_evaluation(run.root, rows[4:])
    assert evaluation.gather(run)["averages"] == {}, "of six it is another mean"


def test_without_a_verdict_is_marked(tmp_path):
    run = make_run(tmp_path / "runs" / "open")
    write_evaluation(run.root, scores([1, NAN, 1, 0]))
    text = shown(evaluation.gather(run))
    assert "tiny*" in text and "25.0 %" in text and "count as wrong" in text


def test_an_unfinished_evaluation_says_so(tmp_path):
    run = make_run(tmp_path / "runs" / "begun")
    with pytest.raises(StoreError, match="begun is not finished"):
        evaluation.make(run)


def test_names_are_shown_not_obeyed(tmp_path):
    run = make_run(tmp_path / "runs" / "evil")
    rows = [score(i, i % 2, groups={"g": HOSTILE}) for i in range(4)]
    write_evaluation(run.root, rows, entries={"tiny": entry("macro:g", ["g"])}, model=HOSTILE)
    text = shown(evaluation.make(run))
    assert not {"\x1b", "\x07", "\u202e"} & set(text) and r"\x1b" in text


FIGURE = {"value": 0.5, "se": 0.1, "interval": [0.3, 0.7]}


@pytest.mark.parametrize(
    "part",
    [
        {},
        None,
        [1, 2],
        "half",
        {"value": "0.5", "interval": "0 to 1"},
        {"value": True},
        {**FIGURE, "interval": [0.3]},
        {**FIGURE, "interval": [None, 0.7], "se": None},
        {**FIGURE, "groups": {"g": [1]}, "macro": 7, "pass_at": {"1": None, "x": FIGURE}, "tokens_mean": 12.5},
        {**FIGURE, "groups": ["g"], "harmonic": {"g": FIGURE}, "metric": ["harmonic"], "undecided": 0.5},
        {**FIGURE, "questions": "many", "samples_per_question": [1, 4], "truncated": {"value": 0.5}},
        {"value": 7.5, "se": -1, "interval": [-3, 99]},
    ],
)
def test_a_summary_of_other_provenance_does_no_harm(tmp_path, part):
    run = make_run(tmp_path / "runs" / "odd")
    (run.root / "summary.json").write_text(json.dumps({"benchmarks": {"tiny": part, "elsewhere": FIGURE}}))
    text = shown(evaluation.make(run))
    assert "elsewhere" in text and "50.0 ± 10.0" in text


@pytest.mark.parametrize("text", ["[]", "{", '{"benchmarks": 3}', ""])
def test_what_is_no_summary_is_an_error_of_two_lines(tmp_path, monkeypatch, capsys, text):
    monkeypatch.chdir(tmp_path)
    run = make_run(tmp_path / "runs" / "bad")
    (run.root / "summary.json").write_text(text)
    assert main(["report", "bad"]) == 2
    assert "summary.json" in capsys.readouterr().err


def test_the_curve_over_a_runs_versions(small):
    for version, right in ((0, 1), (2, 3)):
        run = make_run(small.run.evaluation_dir("bench", version))
        rows = scores([i < right for i in range(4)]) + scores([1, 0], benchmark="gsm8k")
        write_evaluation(run.root, rows)
    make_run(small.run.evaluation_dir("bench", 4))
    result = make(small.run)
    figures = result["evaluations"]["bench"]["figures"]
    assert [figures[version]["tiny"]["value"] for version in ("0", "2")] == [0.25, 0.75]
    assert figures["2"]["mean"]["value"] == 0.625
    text = as_text(result)
    assert "evaluation bench, score ± SE:" in text and "75.0 ± 25.0" in text and "× bench" in text
    assert "version 4: bench/v000004 is not finished" in text.replace(f"{small.run.root.name}/eval/", "")
    assert (small.run.report_dir / "report.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_without_evaluations_is_as_it_was(small):
    result = make(small.run)
    assert result["evaluations"] == {} and "evaluation " not in as_text(result)
