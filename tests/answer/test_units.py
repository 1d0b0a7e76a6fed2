"""The same number in another unit is surely wrong; all else is left to others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grhpc.answer.judge import GENERAL_VERIFIER, settle
from grhpc.answer.units import other_unit

WRONG = [
    ("90 c", "90 dollars"),
    ("144 h", "144 days"),
    ("5 cm", "5 m"),
    ("5 cm", "5.0\\text{ meters}"),
    ("1,500 mL", "1500 L"),
    ("-3 kJ", "\u22123 J"),
    ("2.5 Hours", "2.5 min."),
    ("7 feet", "7 inches"),
]
UNSURE = [
    ("90 c", "0.90 dollars"),
    ("144 h", "6 days"),
    ("5 cm", "5"),
    ("5", "5 cm"),
    ("5 cm", "5 centimetres"),
    ("5 min", "5 m"),
    ("5 m", "5 s"),
    ("0 m", "0 cm"),
    ("5 m/s", "5 m/h"),
    ("5 m^2", "5 cm^2"),
    ("5 plums", "5 pears"),
    ("5 mA", "5 MA"),
    ("5 cm or 6", "5 m"),
    ("one meter", "one mile"),
    ("m", "cm"),
]


@pytest.mark.parametrize(("reference", "answer"), WRONG)
def test_the_same_number_in_another_unit_is_settled(reference, answer):
    assert other_unit(reference, answer) and other_unit(answer, reference)
    settled = settle(GENERAL_VERIFIER, "How much?", reference, answer)
    assert settled is not None and settled.decision == "no" and "another unit" in settled.reason


@pytest.mark.parametrize(("reference", "answer"), UNSURE)
def test_what_may_be_right_is_left_to_others(reference, answer):
    assert not other_unit(reference, answer) and not other_unit(answer, reference)


def test_a_number_that_python_does_not_read_is_left_to_others():
    assert not other_unit("5 cm", "9" * 5000 + " m") and not other_unit("5 cm", "5." + "0" * 5000 + " m")


@given(st.text(alphabet="0123456789., -cmhKs\\$%{}"), st.text())
def test_no_text_hurts_it_and_none_differs_from_itself(text, other):
    assert not other_unit(text, text)
    other_unit(text, other)
