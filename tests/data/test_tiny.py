"""The tiny world: its rows, its oracle, and what it teaches."""

import random

import pytest

from grhpc.data.tiny import oracle, rows
from grhpc.data.tiny_lessons import DOMAINS, Pair, honest_pair, hostile_pair, make_task, read_task, solution
from grhpc.errors import DataError

COLUMNS = {"id", "question", "answer", "answer_type", "category", "difficulty"}
ANSWERS = [
    ("What is 5 h and 120 min in h?", "7 h", True),
    ("What is 5 h and 120 min in h?", "7", True),
    ("What is 5 h and 120 min in h?", "420 minutes", True),
    ("What is 5 h and 120 min in h?", "7 min", False),
    ("What is 5 h and 120 min in h?", "125 h", False),
    ("What is 5 h and 120 min in h?", "7 h or 8 h", False),
    ("Add 1/4 and 1/4.", "1/2", True),
    ("Add 1/4 and 1/4.", "0.5", True),
    ("Add 1/4 and 1/4.", "50 %", True),
    ("Add 1/4 and 1/4.", "10/20", True),
    ("Add 1/4 and 1/4.", "2/8", False),
    ("Add 1/4 and 1/4.", "5", False),
    ("Eve has 6 coins and loses one. How many coins?", "five coins", True),
    ("Eve has 6 coins and loses one. How many coins?", "FIVE", True),
    ("Eve has 6 coins and loses one. How many coins?", "5 pens", False),
    ("Eve has 6 coins and loses one. How many coins?", "7", False),
    ("A cap costs 80 cents and is 25% off. What is the price?", "$0.60", True),
    ("A cap costs 80 cents and is 25% off. What is the price?", "0.60 dollars", True),
    ("A cap costs 80 cents and is 25% off. What is the price?", "$60", False),
    ("A cap costs 80 cents and is 25% off. What is the price?", "55 cents", False),
    ("True or false: a plum is not a kind of tool.", "It is true", True),
    ("True or false: a plum is not a kind of tool.", "yes", True),
    ("True or false: a plum is not a kind of tool.", "not true", False),
    ("True or false: a plum is not a kind of tool.", "false", False),
    ("Which is a kind of tool? A) dog B) saw C) fig D) red", "(B)", True),
    ("Which is a kind of tool? A) dog B) saw C) fig D) red", "B) saw", True),
    ("Which is a kind of tool? A) dog B) saw C) fig D) red", "a saw", True),
    ("Which is a kind of tool? A) dog B) saw C) fig D) red", "B) dog", False),
    ("Which is a kind of tool? A) dog B) saw C) fig D) red", "A B C D", False),
    ("Which are not even: 3, 8, 12, 5?", "{5, 3}", True),
    ("Which are not even: 3, 8, 12, 5?", "3 and 5", True),
    ("Which are not even: 3, 8, 12, 5?", "3", False),
    ("Which are not even: 3, 8, 12, 5?", "3, 5, 8", False),
    ("Which are not even: 3, 8, 12, 5?", "3, 3", False),
    ("Bob is older than Ann. Cal is older than Bob. Who is oldest?", "It is Cal", True),
    ("Bob is older than Ann. Cal is older than Bob. Who is oldest?", "CAL", True),
    ("Bob is older than Ann. Cal is older than Bob. Who is oldest?", "Cal is tallest", False),
    ("Bob is older than Ann. Cal is older than Bob. Who is oldest?", "not Cal", False),
    ("Who wrote Faust?", "Goethe", False),
]


@pytest.mark.parametrize(("question", "answer", "right"), ANSWERS)
def test_oracle_reads_strictly(question: str, answer: str, right: bool) -> None:
    assert oracle(question, answer) is right


def test_rows_have_the_columns_of_the_real_data_as_text() -> None:
    found = rows("train", 400)
    assert all(set(row) == COLUMNS and all(isinstance(v, str) and v for v in row.values()) for row in found)
    assert len({row["id"] for row in found}) == len({row["question"] for row in found}) == 400
    assert len({row["category"] for row in found}) >= 6
    assert len({row["answer_type"] for row in found}) >= 6


def test_every_domain_comes_equally_often() -> None:
    named = [task.domain.name for row in rows("heldout", 320) if (task := read_task(row["question"]))]
    assert {named.count(domain.name) for domain in DOMAINS} == {40}
    assert len(DOMAINS) >= 6


def test_references_are_right_and_never_in_the_usual_form() -> None:
    for row in rows("train", 400):
        task = read_task(row["question"])
        assert task and oracle(row["question"], row["answer"])
        assert row["answer"] != task.domain.forms(task.facts, task.value)[0]


def test_splits_share_no_question_whatever_the_seed() -> None:
    train = {row["question"] for seed in range(3) for row in rows("train", 1500, seed)}
    heldout = {row["question"] for seed in range(3) for row in rows("test", 300, seed)}
    assert not train & heldout


def test_rows_follow_from_the_seed() -> None:
    assert rows("train", 50, 3) == rows("train", 50, 3) != rows("train", 50, 4)


def test_unknown_split_is_refused() -> None:
    with pytest.raises(DataError, match="no split 'validation'"):
        rows("validation", 1)


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda d: d.name)
def test_careful_is_right_and_sloppy_mostly_wrong(domain) -> None:  # type: ignore[no-untyped-def]
    rng = random.Random(1)
    tasks = [make_task(rng, domain) for _ in range(400)]
    for task in tasks:
        forms = domain.forms(task.facts, task.value)
        assert len(forms) == len(set(forms)) > 1
        assert all(task.right(form) and oracle(task.question, form) for form in forms)
        careful = solution(task, rng, careful=1.0, slip=0.0, usual=1.0)
        assert careful.endswith((f"\\boxed{{{forms[0]}}}", f"Answer {forms[0]}"))
    assert sum(domain.sloppy(t.facts)[1] == t.value for t in tasks) < 0.2 * len(tasks)


def test_lessons_decide_as_the_oracle_does() -> None:
    rng = random.Random(2)
    pairs = [make(make_task(rng, rng.choice(DOMAINS)), rng) for make in (honest_pair, hostile_pair) for _ in range(800)]
    for pair in pairs:
        decision = "Yes" if oracle(pair.task.question, pair.answer) else "No"
        assert pair.reason().endswith(f" Final Decision: {decision}")
        assert ("wrong" in pair.reason()) == (decision == "No")
    assert 0.4 < sum(pair.equivalent for pair in pairs[:800]) / 800 < 0.6
    assert sum(pair.equivalent for pair in pairs[800:]) < 80


def test_reason_marks_every_part_of_a_list() -> None:
    task = read_task("Which are not even: 3, 8, 12, 5?")
    assert task
    assert Pair(task, "{5, 3}", "3 and 8").reason() == (
        " reference 5 right 3 right; student 3 right 8 wrong. Final Decision: No"
    )
    assert (
        Pair(task, "5, 3", "3").reason() == " reference 5 right 3 right; student 3 right none wrong. Final Decision: No"
    )


def test_reason_accepts_a_choice_by_letter_or_word() -> None:
    task = read_task("Which is a kind of tool? A) dog B) saw C) fig D) red")
    assert task
    told = " reference B right saw right; student"
    assert Pair(task, "option B", "(B)").reason() == f"{told} B right. Final Decision: Yes"
    assert Pair(task, "B", "a saw").reason() == f"{told} saw right. Final Decision: Yes"
    assert Pair(task, "B) saw", "rake").reason() == f"{told} rake wrong. Final Decision: No"
    assert Pair(task, "B) saw", "B) dog").reason() == f"{told} B right dog wrong. Final Decision: No"
