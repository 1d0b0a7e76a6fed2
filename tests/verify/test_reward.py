import math

import pytest

from grhpc.records import NO, NO_ANSWER, NO_VERDICT, YES
from grhpc.verify.reward import reward


@pytest.mark.parametrize(
    ("answer_tokens", "reference_tokens", "wanted"),
    [(3, 3, 1.0), (4, 3, 0.95), (3, 4, 0.95), (13, 3, 0.5), (14, 3, 0.5), (1, 400, 0.5), (8, 3, 0.75)],
)
def test_a_right_answer_loses_five_hundredths_a_token_and_at_most_half(answer_tokens, reference_tokens, wanted):
    assert reward(YES, answer_tokens, reference_tokens) == pytest.approx(wanted)


def test_length_matters_only_to_right_answers():
    assert reward(NO, 50, 3) == 0.0
    assert reward(NO_ANSWER, 0, 3) == -0.5


def test_no_verdict_is_no_number():
    assert math.isnan(reward(NO_VERDICT, 3, 3))


def test_an_unknown_decision_is_an_error():
    with pytest.raises(KeyError):
        reward("maybe", 1, 1)
