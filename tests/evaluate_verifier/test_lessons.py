"""Sampled solutions to a verifier's training data, with judges that answer as told and with the shipped one."""

import hashlib
import json
import random
from collections import Counter

import pyarrow.parquet as pq
import pytest

from grhpc.answer.judge import GENERAL_VERIFIER, read_decision, settle
from grhpc.cli import main
from grhpc.data.tiny import draw_task, oracle, rows
from grhpc.data.tiny_lessons import DOMAINS, solution
from grhpc.evaluate_verifier.lessons import (
    ATTACK,
    EQUAL,
    SAMPLED,
    Lesson,
    Recipe,
    answers_of,
    balanced,
    hardened,
    label,
    split,
    tally,
)
from grhpc.judge.decide import Decision, Pair
from grhpc.records import NO, NO_VERDICT, YES


def strict(pairs):
    """A judge that accepts the same text only."""
    return {p: told(YES if p.answer == p.reference else NO) for p in pairs}


def told(decision):
    return Decision(decision, "generative", f" I compared them. Final Decision: {decision.capitalize()}")


def lessons(questions=40, right=2, wrong=6):
    return [
        Lesson(Pair(f"q{q}", "5", "5" if k < right else f"{k}9"), "Final Decision", YES if k < right else NO, SAMPLED)
        for q in range(questions)
        for k in range(right + wrong)
    ]


def test_answers_are_extracted_and_each_asked_about_once():
    counts = Counter()
    responses = ["so \\boxed{5}", "\\boxed{ 5 }", "\\boxed{6}", "no idea"]
    assert answers_of([("q", "5", r) for r in responses], counts) == [Pair("q", "5", "5"), Pair("q", "5", "6")]
    assert counts == {"responses": 4, "without an answer": 1, "repeated": 1}


def test_only_what_the_judge_decides_is_a_lesson():
    def ask(pairs):
        assert all(p.answer != "..." for p in pairs)  # a guard settles that one
        words = {"5": told(YES), "6": told(NO), "7": Decision(NO_VERDICT, "generative", "hm")}
        return {p: words[p.answer] for p in pairs}

    counts = Counter()
    made = label(ask, GENERAL_VERIFIER, [Pair("q", "5", a) for a in ("5", "6", "7", "...")], counts)
    assert [(x.pair.answer, x.decision) for x in made] == [("5", YES), ("6", NO)]
    assert made[0].verification == "I compared them. Final Decision: Yes"
    assert counts == {"settled by a guard": 1, "without a verdict": 1, "labelled": 2}


def test_balancing():
    uneven = lessons(10) + lessons(1, right=0, wrong=8)
    overall = balanced(uneven, "overall", 0)
    assert Counter(x.decision for x in overall) == {YES: 20, NO: 20}
    by_question = balanced(lessons(10), "question", 0)
    assert Counter((x.pair.question, x.decision) for x in by_question) == {
        (f"q{q}", side): 2 for q in range(10) for side in (YES, NO)
    }
    assert balanced(uneven, "none", 0) == uneven
    assert balanced(lessons(10), "question", 0) == by_question != balanced(lessons(10), "question", 1)


@pytest.mark.parametrize("fooled", [False, True])
def test_attacks_are_wrong_and_references_right_whatever_the_judge_says(fooled):
    def ask(pairs):
        return {p: told(YES if (p.answer == p.reference) != fooled else NO) for p in pairs}

    counts, recipe = Counter(), Recipe(attacks=0.2, equal=0.1)
    made = hardened(ask, GENERAL_VERIFIER, lessons(), recipe, counts)
    attacks = [x for x in made if x.origin.startswith(ATTACK)]
    equals = [x for x in made if x.origin == EQUAL]
    assert len(attacks) == round(320 / 0.7 * 0.2) and len(equals) == 40 < 320 / 0.7 * 0.1  # as many as questions
    assert {x.decision for x in attacks} == {NO} and {x.decision for x in equals} == {YES}
    assert all(x.pair.answer == x.pair.reference for x in equals)
    assert len({x.origin for x in attacks}) > 10
    assert all(settle(GENERAL_VERIFIER, x.pair.question, x.pair.reference, x.pair.answer) is None for x in made)
    assert all(read_decision(x.verification) == x.decision for x in made)
    assert all(("I compared" in x.verification) != fooled for x in made)
    assert counts["attacks that the judge accepted"] == (len(attacks) if fooled else 0)
    assert counts["references that the judge refused"] == (len(equals) if fooled else 0)


def test_no_question_is_on_both_sides():
    train, heldout = split(lessons(400), 0.1)
    assert not {x.pair.question for x in train} & {x.pair.question for x in heldout}
    assert 20 < tally(heldout)["questions"] < 60
    assert tally(train)["questions"] + tally(heldout)["questions"] == 400
    assert split(lessons(400)[::-1], 0.1)[1] == heldout[::-1]


def test_questions_that_were_held_out_by_their_hash_are_split_anew():
    of = [Lesson(Pair(row["question"], "5", "5"), "Final Decision", YES, SAMPLED) for row in rows("heldout", 300)]
    assert 5 < tally(split(of, 0.05)[1])["questions"] < 30


@pytest.fixture
def make(root, tmp_path, monkeypatch, capsys):
    def run(*words):
        monkeypatch.chdir(root)
        code = main(["make-verifier-data", "configs/tiny.yaml", *map(str, words)])
        return code, capsys.readouterr()

    return run


def solutions(path, num):
    rng = random.Random(3)
    rows = []
    for number in range(num):
        task = draw_task(rng, DOMAINS[number % len(DOMAINS)], True)
        reference = rng.choice(task.domain.reference_forms(task.facts))
        rows.append(
            {"problem": task.question, "answer": reference, "responses": [solution(task, rng, 0.5) for _ in range(8)]}
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_whole_recipe_with_the_shipped_verifier(make, tmp_path):
    source, out = solutions(tmp_path / "solutions.jsonl", 40), tmp_path / "made" / "lessons.parquet"
    code, printed = make("--solutions", source, "--out", out, "--heldout", 0.2, "--name", "verification=reason")
    assert code == 0, printed.err
    train, heldout = (pq.read_table(p).to_pylist() for p in (out, out.with_stem("lessons-heldout")))
    assert list(train[0]) == ["question", "ground_truth", "student_answer", "reason", "decision", "origin"]
    rows = train + heldout
    assert all(read_decision(row["reason"]) == row["decision"] for row in rows)
    sampled = [row for row in rows if row["origin"] == SAMPLED]
    assert Counter(row["decision"] for row in sampled)[YES] == len(sampled) / 2 > 10
    right = [oracle(row["question"], row["student_answer"]) == (row["decision"] == YES) for row in rows]
    assert sum(right) / len(right) > 0.95
    manifest = json.loads((tmp_path / "made" / "lessons.manifest.json").read_text())
    assert manifest["counts"]["responses"] == 320
    for path in (out, out.with_stem("lessons-heldout")):
        assert manifest["files"][str(path)]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert manifest["files"][str(out)]["lessons"] == len(train)
    assert "verifier" in manifest["judge"]
    before = {path: path.read_bytes() for path in (out, out.with_stem("lessons-heldout"))}
    assert make("--solutions", source, "--out", out, "--heldout", 0.2, "--name", "verification=reason")[0] == 0
    assert all(path.read_bytes() == data for path, data in before.items())
    asked = [json.loads((tmp_path / "made" / "lessons.manifest.json").read_text())["usage"], manifest["usage"]]
    assert asked[0].get("requests", 0) == 0 < asked[1]["requests"]  # all was remembered


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--solutions", "gone.jsonl", "--out", "x.jsonl"], "no table of solutions at gone.jsonl"),
        (["--out", "x.json"], "no known ending"),
        (["--out", "x.jsonl", "--balance", "half"], "no way to balance"),
        (["--out", "x.jsonl", "--attacks", "0.9"], "share of attacks is 0.9"),
        (["--out", "x.jsonl", "--name", "label=x"], "'label', which is none of ours"),
        (["--out", "x.jsonl", "--name", "question=x", "--name", "origin=x"], "the same name"),
        (["--out", "x.jsonl", "--column", "responses=said"], "is the responses"),
    ],
)
def test_what_cannot_be_made_is_two_lines(make, tmp_path, words, problem):
    if "--solutions" not in words:
        words = ["--solutions", str(solutions(tmp_path / "s.jsonl", 2)), *words]
    code, printed = make(*words)
    lines = printed.err.splitlines()
    assert code == 2 and len(lines) == 2, printed.err
    assert problem in lines[0] and lines[1].startswith("  do: ")
