"""Option letters are read as a person would: exactly one option named, or none."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from grhpc.evaluate.scoring import grade
from grhpc.evaluate.scoring_letter import read_letter
from grhpc.records import Sample

TABLE = yaml.safe_load((Path(__file__).parent / "fixtures" / "letters.yaml").read_text())
ROWS = [(row[0], row[1], row[2] if len(row) > 2 else TABLE["options"]) for row in TABLE["rows"]]


def asked(response: str, options: list[str], gold: str) -> Sample:
    return Sample(
        benchmark="b", item="0", index=0, question="Which?", prompt="Which?", options=options, gold=gold, gold_type="",
        groups="{}", num_samples=1, sample=0, response=response, num_tokens=1, finish_reason="stop", seed=0,
        weight_digest="",
    )  # fmt: skip


def test_the_table_has_a_hundred_and_fifty_phrasings():
    assert len(ROWS) >= 150


@pytest.mark.parametrize(("response", "letter", "options"), ROWS, ids=[repr(row[0]) for row in ROWS])
def test_awkward_phrasings(response, letter, options):
    letters = "ABCDEFGHIJ"[: len(options)]
    right = {gold for gold in letters if grade("letter", asked(response, options, gold)).score == 1.0}
    assert right == ({letter} if letter else set())


def test_a_missing_answer_is_wrong_and_is_known_to_be_missing():
    graded = grade("letter", asked("I cannot tell.", ["red", "blue"], "A"))
    assert (graded.extracted, graded.score, graded.layer) == (None, 0.0, "extract")


def test_an_answer_that_names_no_option_is_wrong_and_stays_readable():
    graded = grade("letter", asked("\\boxed{A or B}", ["red", "blue"], "A"))
    assert (graded.extracted, graded.score, graded.layer) == ("A or B", 0.0, "letter")


@given(st.text(max_size=200), st.lists(st.text(max_size=20), max_size=12))
def test_any_text_is_read_without_failing_and_only_as_an_option_that_there_is(text, options):
    letter = read_letter(text, options)
    assert letter is None or letter in "ABCDEFGHIJKL"[: len(options)]


@given(st.sampled_from("ABCD"), st.sampled_from(["{}", "({})", "**{}**", "{}.", "[{}]", "\\text{{{}}}", "Option {}"]))
def test_one_letter_in_any_dress_is_that_letter(letter, dress):
    assert read_letter(dress.format(letter), ["red", "green", "blue", "black"]) == letter
