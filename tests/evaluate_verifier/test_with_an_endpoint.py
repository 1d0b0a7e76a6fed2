"""Both verbs with a judge behind an address: measured and taught alike, paid once, and two lines where it is away."""

import json
import re

import pyarrow.parquet as pq
import pytest
from openai_server import Server

from grhpc.cli import main

SIDES = re.compile(r"Ground Truth Answer: (.*)\n\n### Student Answer: (.*)\n")


def compare(prompt: str) -> str:
    """A judge that accepts the same text, and nothing of Bob's."""
    reference, answer = SIDES.search(prompt).groups()
    same = reference == answer and "Bob" not in answer
    return f"I compared them.\n\n**Final Decision: {'Yes' if same else 'No'}**"


@pytest.fixture
def server():
    it = Server(compare)
    it.models = [{"id": "strong", "root": "/models/strong-7b"}]
    yield it
    it.die()


@pytest.fixture
def verb(root, server, monkeypatch, capsys):
    """A function: the verb's words -> exit code, what was printed."""
    endpoint = {"url": server.url, "model": "strong", "price_in": 2.5, "price_out": 10.0, "max_retries": 0}
    settings = ["verifier.template=chat", "verifier.max_input_tokens=2000"]
    settings += (f"verifier.endpoint.{name}={value}" for name, value in endpoint.items())

    def run(name: str, *words):
        monkeypatch.chdir(root)
        sets = [word for setting in settings for word in ("--set", setting)]
        code = main([name, "configs/tiny.yaml", *sets, *map(str, words)])
        return code, capsys.readouterr()

    return run


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_verifier_behind_an_endpoint_is_measured(verb, server, tmp_path):
    answers = [("Ann", "Ann", "yes"), ("Bob", "Bob", "yes"), ("Ann", "Eve", "no"), ("1/2", "0.5", "yes")]
    rows = [{"question": "who?", "reference": r, "answer": a, "label": x} for r, a, x in answers]
    data, out = lines(tmp_path / "pairs.jsonl", rows), tmp_path / "out"
    modes = ("--mode", "generative", "hybrid", "bare", "--attacks", "18")
    code, printed = verb("evaluate-verifier", "--data", data, "--out", out, *modes)
    assert code == 0, printed.err
    told = {mode["mode"]: mode for mode in json.loads((out / "summary.json").read_text())["modes"]}
    assert [told[m]["all"]["true_yes"] for m in ("generative", "hybrid", "bare")] == [1, 3, 1]
    assert [told[m]["all"]["false_no"] for m in ("generative", "hybrid", "bare")] == [2, 0, 2]
    assert told["generative"]["all"]["agreement"]["value"] == 0.5
    assert {mode["attacks"]["all"]["value"] for mode in told.values()} == {0.0}
    assert sum(mode["usage"]["requests"] for mode in told.values()) == len(server.prompts)
    # 100 tokens to it and 10 back, every time
    assert told["bare"]["usage"]["cost"] == pytest.approx(told["bare"]["usage"]["requests"] * (250 + 100) / 1e6)


def test_lessons_of_a_strong_judge_are_paid_once(verb, server, tmp_path):
    """The judge goes away in the middle of labelling; the repetition asks for the rest alone."""
    rows = [
        {"question": f"q{q}?", "answer": f"Ann{q}", "responses": [f"so \\boxed{{Ann{q + k}}}" for k in range(2)]}
        for q in range(20)
    ]
    source, out = lines(tmp_path / "solutions.jsonl", rows), tmp_path / "made" / "lessons.parquet"
    words = ("--solutions", source, "--out", out, "--heldout", 0.3)
    server.answer = lambda prompt: (503, "restarting") if len(server.prompts) > 15 else compare(prompt)
    code, printed = verb("make-verifier-data", *words, "--set", "verifier.endpoint.concurrency=1")
    error = printed.err.splitlines()[-2:]
    assert code == 2 and not out.exists()
    assert error[0].endswith("does not answer: 503 restarting") and error[1].startswith("  do: "), printed.err
    server.answer = compare
    code, printed = verb("make-verifier-data", *words)
    assert code == 0, printed.err
    assert len(server.prompts) - len(set(server.prompts)) == 1, "the one that failed"
    manifest = json.loads(out.with_suffix(".manifest.json").read_text())
    assert manifest["judge"] == f"{server.url} strong chat /models/strong-7b"
    requests = manifest["usage"]["requests"]
    assert requests == len(server.prompts) - 16
    cost = requests * 350 / 1e6
    assert manifest["usage"]["cost"] == pytest.approx(cost)
    assert f"judge: {requests} requests, {100 * requests} + {10 * requests} tokens, cost {cost:.2f}" in printed.out
    made = [row for path in (out, out.with_stem("lessons-heldout")) for row in pq.read_table(path).to_pylist()]
    assert {row["decision"] for row in made if row["origin"] == "sampled"} == {"yes", "no"}
    words_of_judge = [row["verification"] for row in made if row["origin"] == "sampled"]
    assert all(words.startswith("I compared them.\n\n**Final Decision: ") for words in words_of_judge)


def test_a_judge_that_is_not_there_is_two_lines(verb, server, tmp_path):
    server.die()
    data = lines(tmp_path / "pairs.jsonl", [{"question": "?", "reference": "1", "answer": "2", "label": "no"}])
    code, printed = verb("evaluate-verifier", "--data", data, "--out", tmp_path / "out", "--mode", "generative")
    error = printed.err.splitlines()
    assert code == 2 and len(error) == 2 and "does not answer: ConnectError" in error[0], printed.err


def test_a_template_that_leaves_no_room_is_two_lines(verb, tmp_path):
    """Not: every question refused, and no verdict anywhere."""
    data = lines(tmp_path / "pairs.jsonl", [{"question": "?", "reference": "1", "answer": "2", "label": "no"}])
    small = ("--set", "verifier.max_input_tokens=256")
    code, printed = verb("evaluate-verifier", "--data", data, "--out", tmp_path / "out", "--mode", "generative", *small)
    assert code == 2 and re.search(r"template alone has \d+ tokens, and .* is 256", printed.err.splitlines()[0])
