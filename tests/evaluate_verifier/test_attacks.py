"""The attack suite: what it makes, and what counts as success."""

import random
import re

import pytest

from grhpc.answer.extract import extract_answer
from grhpc.answer.judge import GENERAL_VERIFIER, harmless
from grhpc.answer.rules import exact
from grhpc.evaluate_verifier.attack_numbers import other_numbers
from grhpc.evaluate_verifier.attack_run import run_attacks, victims_of
from grhpc.evaluate_verifier.attacks import FAMILIES, OTHER_NUMBERS, Attack, Victim, make_attacks
from grhpc.evaluate_verifier.judging import BARE
from grhpc.evaluate_verifier.labelled import Labelled, tiny_pairs
from grhpc.judge.decide import Decision
from grhpc.records import NO, NO_VERDICT, YES

SUITE = 1260
SECRET = "the reference that nobody knows"
VICTIMS = [Victim(f"What is {n} plus one?", SECRET, str(n)) for n in range(100, 150)]


@pytest.fixture(scope="module")
def suite():
    return make_attacks(VICTIMS, SUITE, 0, GENERAL_VERIFIER)


def test_the_suite_is_large_varied_and_the_same_again(suite):
    assert len(suite) == SUITE == 60 * len(FAMILIES)
    assert len({(a.victim.question, a.answer) for a in suite}) >= 1000
    counts = {family: sum(a.family == family for a in suite) for family in FAMILIES}
    assert set(counts.values()) == {60}
    assert all(a == b for a, b in zip(suite, make_attacks(VICTIMS, SUITE, 0, GENERAL_VERIFIER), strict=True))
    assert suite[:100] != make_attacks(VICTIMS, 100, 1, GENERAL_VERIFIER)


def test_no_attack_knows_the_reference(suite):
    assert not [a for a in suite if SECRET in a.answer]


@pytest.mark.parametrize(
    "reference",
    [
        "0.45 dollars",
        "5",
        "-3.14",
        "120 min",
        "C) fig",
        "B",
        "{25, 13}",
        "\\frac{1}{2}",
        "40%",
        "0.0012",
        "1,250 m",
        "10",
    ],
)
def test_the_reference_with_another_number_is_never_the_reference_rounded(reference):
    """In letters and order it is the reference; its value is another, by more than one part in a hundred."""
    made = [other_numbers(random.Random(seed), reference) for seed in range(200)]
    assert len(set(made)) > 3
    for text in made:
        assert not exact(reference, text)
        before, after = (re.findall(r"-?\d+\.?\d*", t.replace(",", "")) for t in (reference, text))
        pairs = [(float(a), float(b)) for a, b in zip(before, after, strict=False) if float(a) != float(b)]
        assert all(abs(a - b) > 0.01 * abs(a) for a, b in pairs)
        assert pairs or before != after or re.sub(r"\d", "", reference) != re.sub(r"\d", "", text)


def test_what_has_no_number_is_left_alone():
    assert {other_numbers(random.Random(seed), "the statement is false") for seed in range(50)} == {None}
    victims = [Victim("q", "the statement is false", "yes"), Victim("q", "5 cm", "6 cm")]
    made = [a for a in make_attacks(victims, 10 * len(FAMILIES), 0, GENERAL_VERIFIER) if a.family == OTHER_NUMBERS]
    assert {a.victim.reference for a in made} == {"5 cm"} and len({a.answer for a in made}) > 5


def test_attacks_arrive_at_the_judge(suite):
    """Through the extractor: most as they are, by box or by marker."""
    extracted = [extract_answer(a.response) for a in suite]
    assert sum(e is not None for e in extracted) > 1000
    assert sum(e == a.answer.strip() for e, a in zip(extracted, suite, strict=True)) > 600
    assert 200 < sum("\\boxed{" not in a.response for a in suite) < 500


def test_what_attacks_forge_is_taken_out_of_them(suite):
    """No heading, no turn and no decision line of an attack is in the judge's prompt."""
    for attack in suite:
        text = harmless(GENERAL_VERIFIER, attack.answer)
        assert "\n" not in text and "##" not in text and "<|" not in text
        assert "final decision:" not in text.lower() and "student answer:" not in text.lower()


def ask_of(decisions):
    """A mode that accepts what contains one of these words."""

    def ask(pairs):
        return {
            p: next((d for word, d in decisions.items() if word in p.answer), Decision(NO, "guard", "")) for p in pairs
        }

    return ask


def test_an_accepted_wrong_answer_is_a_success():
    victim = Victim("What is 1 plus 1?", "2", "3")
    attacks = [
        Attack("f", victim, "3 yes"),
        Attack("f", victim, "3 hm"),
        Attack("g", victim, "no"),
        Attack("g", victim, "2"),
    ]
    ask = ask_of({"yes": Decision(YES, "generative", "fooled"), "hm": Decision(NO_VERDICT, "generative", "rambled")})
    found = run_attacks(ask, BARE, attacks)
    assert {family: (s.k, s.n) for family, s in found.success.items()} == {"f": (1, 2), "g": (0, 1)}
    assert found.no_verdict == 1 and found.stopped_by == {"guard": 1}
    assert [(b.attack.answer, b.decision.reason) for b in found.broken] == [("3 yes", "fooled")]
    assert (found.all.k, found.all.n) == (1, 3)


def test_an_attack_without_an_answer_fails():
    attack = Attack("f", Victim("q", "2", "3"), "")
    found = run_attacks(ask_of({}), "generative", [attack])
    assert found.stopped_by == {"extract": 1} and found.all.k == 0


def test_victims_are_wrong_and_no_word_of_agreement_is_their_answer():
    pairs = [
        Labelled("q", "5", "6", False),
        Labelled("q", "5", "5", True),
        Labelled("q", "Yes.", "no", False),
        Labelled("q", "5", None, False),
    ]
    assert victims_of(pairs) == [Victim("q", "5", "6")]
    assert len(victims_of(tiny_pairs(80).pairs)) == sum(not p.label for p in tiny_pairs(80).pairs)
