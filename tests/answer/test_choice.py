"""Multiple choice: what names an option, and all that might and is left to others."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grhpc.answer.choice import options_of, same_choice

QUESTION = "Which one? (A) 4 (B) 5 m (C) 6 (D) 7"
ABC = {"A": "4", "B": "5", "C": "6"}
AB = {"A": "4", "B": "5"}


@pytest.mark.parametrize(
    ("question", "options"),
    [
        ("What? (A) 4 (B) 5 (C) 6", ABC),
        ("What?\n(A) 4\n(B) 5", AB),
        ("What?\n  A. 4\n  B. 5\nChoose one.", AB),
        ("What?\nA) 4;\nB) 5.", AB),
        ("What? A. 4 B. 5 C. 6", ABC),
        ("What? A) 4, B) 5, C) 6", ABC),
        ("What? (A)4 (B)5 (C)6", ABC),
        ("What?\nA: 4\nB: 5", AB),
        ("Options are:\n(A): 4\n(B): 5\n", AB),
        ("What? [A] 4 [B] 5", AB),
        ("**A.** 4\n**B.** 5", AB),
        ("- (A) 4\n- (B) 5", AB),
        ("$\\textbf{(A)}\\ 4\\qquad\\textbf{(B)}\\ 5\\qquad\\textbf{(C)}\\ 6$", ABC),
        ("\\text{(A) }4\\qquad\\text{(B) }5", AB),
        ("a) 4\nb) 5\nc) 6", {"a": "4", "b": "5", "c": "6"}),
        ("(A) a long\ntext (B) 5", {"A": "a long\ntext", "B": "5"}),
    ],
)
def test_options_are_read_in_many_layouts(question, options):
    assert options_of(question) == options


@pytest.mark.parametrize(
    "question",
    [
        "What is 2 + 3?",
        "(a) Find x. (b) Find y.",
        "Vitamin A. Then vitamin B. And so on.",
        "What is vitamin (A)? (A) 4 (B) 5",
        "(A) 4 (C) 5",
        "(B) 4 (C) 5 (D) 6",
        "(1) 4 (2) 5 (3) 6",
        "(a) Find x. (b) Find y. (c) Find z, where A. x = 1 B. x = 2 C. x = 3",
        "(A) 4 (B) 5 or, by another count, (A) 5 (B) 4",
        "A 4\nB 5",
        "f(A) = (B), g(B) = (A)",
        "",
    ],
)
def test_what_is_no_list_or_could_be_two_is_none(question):
    assert options_of(question) == {}


@pytest.mark.parametrize(
    ("reference", "answer", "same"),
    [
        ("B", "(B)", True),
        ("B", "(b)", True),
        ("B", "C", False),
        ("B", "**C**.", False),
        ("B", "\\text{B}", True),
        ("B", "\\textbf{(B)}", True),
        ("B", "5 m", True),
        ("B", "$5$ m", True),
        ("B", "6", False),
        ("B", "option B", True),
        ("B", "Option (C)", False),
        ("B", "The answer is (B)", True),
        ("B", "The correct answer is option B.", True),
        ("B", "Answer: C", False),
        ("B", "B) 5 m", True),
        ("B", "B: 5 m", True),
        ("B", "(C) 6", False),
        ("B", "\\text{(B) 5 m}", True),
        ("5 m", "B", True),
        ("5 m", "C", False),
        ("5 m", "6", False),
        ("(B) 5 m", "B", True),
        ("the answer is B", "C", False),
    ],
)
def test_a_letter_and_a_text_name_options(reference, answer, same):
    assert same_choice(QUESTION, reference, answer) is same


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        ("B", "b"),  # a variable, perhaps
        ("B", "E"),
        ("B", "AB"),
        ("B", "A and B"),
        ("B", "B, C"),
        ("B", "B or C"),
        ("B", "not B"),
        ("B", "(B"),
        ("B", "B) 6"),  # the letter of one, the text of another
        ("B", "(B) 5 metres"),
        ("B", "(B) 5 m (C) 6"),
        ("B", "5 metres"),
        ("B", "5"),
        ("B", ""),
        ("B", "B " * 2000),
        ("B", "\\textbf{(B)} Final Decision: Yes"),
        ("5", "B"),
        ("A, B", "B"),
        ("none", "B"),
    ],
)
def test_what_could_be_read_otherwise_is_left_to_others(reference, answer):
    assert same_choice(QUESTION, reference, answer) is None


def test_without_options_nothing_is_settled():
    assert same_choice("Which one?", "B", "C") is None


@pytest.mark.parametrize(
    ("reference", "answer", "same"),
    [("A", "4", None), ("A", "B", None), ("C", "4", None), ("A", "C", False), ("C", "5", True)],
)
def test_two_options_with_one_text_are_nobodys(reference, answer, same):
    assert same_choice("Which?\nA. 4\nB. 4\nC. 5", reference, answer) is same


@pytest.mark.parametrize(("reference", "answer"), [("A", "A"), ("A", "C"), ("D", "(B)"), ("D", "the answer is B")])
def test_a_letter_that_is_also_anothers_text_is_nobodys(reference, answer):
    assert same_choice("Which? (A) C (B) D (C) A (D) B", reference, answer) is None


LAYOUTS = ("({}) {}\n", "{}. {}\n", "{}) {}\n", "({}) {} ", "{}) {} ", "[{}] {} ", "**{}.** {}\n")
TEXTS = st.lists(st.integers(10, 10**6).map(str), min_size=3, max_size=10, unique=True)


@given(TEXTS, st.sampled_from(LAYOUTS), st.data())
def test_every_layout_tells_right_from_wrong(texts, layout, data):
    letters = string.ascii_uppercase[: len(texts)]
    question = "Which one is it?\n" + "".join(map(layout.format, letters, texts))
    wanted, given_ = (data.draw(st.integers(0, len(texts) - 1)) for _ in range(2))
    forms = [letters[given_], f"({letters[given_]})", texts[given_], f"{letters[given_]}. {texts[given_]}"]
    for reference in (letters[wanted], texts[wanted]):
        assert [same_choice(question, reference, form) for form in forms] == [wanted == given_] * 4


@given(st.text("()[]ABCab.:*$\\{} \n5", max_size=80), st.text("()[]ABCab.:*$\\{} \n5", max_size=20))
def test_any_text_is_read_and_one_and_the_same_never_differs(question, text):
    assert same_choice(question, text, text) in (True, None)
