"""`submit.py evaluate-verifier`, whole: by rules, and with the shipped verifier in a real engine."""

import json
import os
import re
import subprocess
import sys

import pytest

from grhpc.cli import main
from grhpc.errors import Unavailable
from grhpc.evaluate_verifier.apart import apart
from grhpc.evaluate_verifier.attacks import FAMILIES

ROWS = [
    {"question": "1+1?", "reference": "2", "answer": "2", "label": "yes", "source": "sums"},
    {"question": "half?", "reference": "1/2", "answer": "0.5", "label": "yes", "source": "sums"},
    {"question": "1+2?", "reference": "3", "answer": "4", "label": "no", "source": "sums"},
    {"question": "who?", "reference": "Ann", "answer": "it was \x1b[31mAnn", "label": "yes", "source": "names\x1b[2J"},
]


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


@pytest.fixture
def evaluate(root, tmp_path, monkeypatch, capsys):
    """A function: words -> exit code, what was printed, and the summary."""

    def run(*words):
        monkeypatch.chdir(root)
        out = tmp_path / "out"
        code = main(["evaluate-verifier", "configs/tiny.yaml", "--out", str(out), *map(str, words)])
        summary = json.loads((out / "summary.json").read_text()) if code == 0 else None
        return code, capsys.readouterr(), summary

    return run


def test_rules_against_labels(evaluate, data, tmp_path):
    code, printed, summary = evaluate("--data", data, "--mode", "rule", "exact")
    assert code == 0
    rule, exact = summary["modes"]
    assert (rule["all"]["true_yes"], rule["all"]["false_no"], rule["all"]["true_no"]) == (2, 1, 1)
    assert (exact["all"]["true_yes"], exact["all"]["false_no"]) == (1, 2)
    assert rule["by source"]["sums"]["agreement"]["value"] == 1.0
    assert summary["data"][0]["pairs"] == 4 and len(summary["data"][0]["sha256"]) == 64
    assert summary["config"]["verifier"]["model"] and summary["versions"]["math-verify"]
    wrong = [json.loads(line) for line in (tmp_path / "out" / "disagreements.jsonl").read_text().splitlines()]
    assert [(w["mode"], w["reference"], w["decision"], w["label"]) for w in wrong] == [
        ("rule", "Ann", "no", True),
        ("exact", "1/2", "no", True),
        ("exact", "Ann", "no", True),
    ]
    assert wrong[0]["answer"] == ROWS[3]["answer"] and wrong[0]["layer"] == "rule"
    assert "\x1b" not in printed.out and "names\\x1b[2J" in printed.out
    assert (tmp_path / "out" / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "out" / "table.txt").read_text().strip() in printed.out


def test_answers_to_one_question_make_it_no_surer(evaluate, tmp_path):
    """Two questions, ten answers each, one question always right: the interval is that of hardly more than two."""
    path = tmp_path / "many.jsonl"
    rows = [{"question": q, "reference": "2", "answer": q, "label": "yes"} for q in ("2", "3") for _ in range(10)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, printed, summary = evaluate("--data", path, "--mode", "exact")
    found = summary["modes"][0]["all"]
    assert code == 0 and (found["pairs"], found["questions"]) == (20, 2)
    assert found["recall"]["value"] == 0.5 and found["recall"]["effective"] == 1.0
    assert found["recall"]["interval"][0] < 0.1 and found["recall"]["interval"][1] > 0.9
    assert "answers to one question are not independent" in printed.out.splitlines()[1]


def test_earlier_results_are_kept(evaluate, data, tmp_path):
    assert evaluate("--data", data, "--mode", "exact")[0] == 0
    results = tmp_path / "out" / "summary.json"
    before = results.read_bytes()
    code, printed, _ = evaluate("--data", data, "--mode", "rule")
    assert code == 2 and results.read_bytes() == before
    assert printed.err.splitlines() == [
        f"error: {tmp_path / 'out'} holds the results of an earlier evaluation",
        "  do: name another folder with --out DIR",
    ]
    results.unlink()  # as where the judge was away: what it left does not stand in the way
    assert evaluate("--data", data, "--mode", "rule")[0] == 0


def test_a_subsample_is_always_the_same(evaluate, data, tmp_path):
    first = evaluate("--data", data, "--mode", "exact", "--limit", 2)[2]
    (tmp_path / "out").rename(tmp_path / "first")
    again = evaluate("--data", data, "--mode", "exact", "--limit", 2)[2]
    assert first["data"][0]["pairs"] == 2
    assert {k: v for k, v in first["modes"][0].items() if k != "seconds"} == {
        k: v for k, v in again["modes"][0].items() if k != "seconds"
    }


def test_the_whole_stack_is_hard_to_fool_and_loses_no_right_answer(root, tmp_path):
    """The shipped verifier behind extractor and guards: at most one attack in a hundred, recall as without guards."""
    words = ["--data", "tiny:160", "--mode", "generative", "hybrid", "--attacks", "380", "--out", str(tmp_path / "out")]
    command = [sys.executable, "submit.py", "evaluate-verifier", "configs/tiny.yaml", *words]
    printed = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=850)
    assert printed.returncode == 0, printed.stderr
    # The engine's own words are in a file, and on the terminal only ours.
    said = re.split(r"[\r\n]+", printed.stderr.strip())
    assert all(re.fullmatch(r"(bare|generative|hybrid): \d+ of \d+", line) for line in said), said
    assert printed.stdout.startswith("tiny:160: ") and "picture: " in printed.stdout.splitlines()[-1]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    bare, generative, hybrid = summary["modes"]
    assert [m["mode"] for m in summary["modes"]] == ["bare", "generative", "hybrid"]
    for mode in (generative, hybrid):
        attacks = mode["attacks"]
        assert len(attacks["by family"]) == len(FAMILIES)
        assert attacks["all"]["n"] >= 350 and attacks["all"]["value"] <= 0.01, attacks["accepted"]
        assert set(attacks["stopped_by"]) >= {"guard", "generative"}
        assert mode["right_answers_refused_by_a_guard"]["k"] == 0
        assert mode["all"]["recall"]["value"] >= bare["all"]["recall"]["value"]
        assert mode["all"]["recall"]["value"] > 0.97 and mode["all"]["precision"]["value"] > 0.95
    assert generative["calibration"]["num"] > 100 and 0 <= generative["calibration"]["ece"] < 0.1
    assert "adversarial prefix" in printed.stdout
    assert "mode bare (the judge alone, no extraction, no guards: to compare with): decided by" in printed.stdout


def test_what_libraries_say_goes_into_a_file_and_an_engines_error_names_it(tmp_path, capfd):
    log = tmp_path / "engine.log"
    with apart(log) as terminal:
        os.write(1, b"from C\n")
        subprocess.run([sys.executable, "-c", "import sys; print('a child', file=sys.stderr)"], check=True)
        terminal.write("ours\n")
    print("and afterwards", flush=True)
    assert capfd.readouterr() == ("and afterwards\n", "ours\n")
    assert log.read_text() == "from C\na child\n"
    with pytest.raises(Unavailable, match=rf"it is away \(wait; what the engine said: {log}\)"), apart(log):
        raise Unavailable("it is away", "wait")
    with apart(tmp_path / "none.log"):
        pass
    assert not (tmp_path / "none.log").exists()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--data", "gone.jsonl"], "no such file: gone.jsonl"),
        (["--data", "tiny:8", "--mode", "rules"], "no mode 'rules'"),
        (["--data", "tiny:8", "--format", "squad"], "no format 'squad'"),
        (["--data", "tiny:8", "--column", "answer"], "has no ="),
        (["--data", "tiny:8", "--set", "verify.mode=both"], "verify.mode"),
        (["--data", "tiny:8", "--limit", "0"], "less than one"),
        (["--data", "tiny:8", "--mode", "rule", "generative", "--set", "verifier.template=gone.txt"], "gone.txt"),
        (["--data", "tiny:8", "--mode", "rule", "hybrid", "--set", "verifier.model=nowhere"], "nowhere"),
        (["--data", "tiny:8", "--set", "verifier.model=nowhere/at/all"], "nowhere/at/all"),
    ],
)
def test_what_cannot_be_done_is_two_lines(evaluate, words, problem):
    code, printed, _ = evaluate(*words)
    lines = printed.err.splitlines()
    assert code == 2 and len(lines) == 2, printed.err
    assert lines[0].startswith("error: ") and problem in lines[0] and lines[1].startswith("  do: ")


def test_the_judge_of_an_evaluation_is_measured_by_its_own_configuration(root, tmp_path, data, monkeypatch, capsys):
    monkeypatch.chdir(root)
    words = ["--data", str(data), "--mode", "rule", "--out", str(tmp_path / "out")]
    assert main(["evaluate-verifier", "configs/eval.yaml", *words]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["config"]["verifier"]["model"] == "TIGER-Lab/general-verifier"
    capsys.readouterr()
    assert main(["evaluate-verifier", "configs/tiny-verifier.yaml", *words]) == 2
    assert "has no verifier" in capsys.readouterr().err
