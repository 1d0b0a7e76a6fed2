"""Scores a response by what can be told without a model; what only a judge can tell is left to the decider.

Does not know: engines, deciders, shards, means. Invariant: `grade` is a pure function of the sample; a response without
a final answer is wrong, and nothing is ever guessed.
"""

from dataclasses import dataclass

from grhpc.answer.extract import extract_answer
from grhpc.answer.rules import exact
from grhpc.data import tiny
from grhpc.evaluate.scoring_letter import read_letter
from grhpc.evaluate.scoring_typed import same_bbeh, same_numeral, same_olympiad, same_theoremqa
from grhpc.records import Sample

EXTRACT, EXACT, LETTER, NUMBER, MATCH = "extract", "exact", "letter", "number", "match"


@dataclass(frozen=True)
class Graded:
    """`extracted` is the final answer, None where there is none. `score` is from 0 to 1; None: put question, gold and
    `extracted` to the decider. `layer` names who decided, `reason` says why."""

    extracted: str | None
    score: float | None
    layer: str
    reason: str


def grade(scorer: str, sample: Sample) -> Graded:
    """The score of one response by its benchmark's scorer."""
    extracted = extract_answer(sample.response)
    if extracted is None:
        return Graded(None, 0.0, EXTRACT, "no final answer")
    if scorer == "letter":
        return _by_letter(sample, extracted)
    if scorer == "tiny":
        return Graded(extracted, float(tiny.oracle(sample.question, extracted)), MATCH, "the tiny world's oracle")
    if scorer == "bbeh":
        return Graded(extracted, float(same_bbeh(sample.gold, extracted)), MATCH, "as BBEH compares")
    if exact(sample.gold, extracted):
        return Graded(extracted, 1.0, EXACT, "the same text")
    if scorer == "theoremqa":
        same = same_theoremqa(sample.question, sample.gold, sample.gold_type, extracted)
    elif scorer == "olympiad":
        same = same_olympiad(sample.gold, sample.gold_type, extracted)
    else:
        same = same_numeral(sample.gold, extracted)
    if same is None:
        return Graded(extracted, None, "", "")
    return Graded(extracted, float(same), NUMBER, f"as {scorer} compares {sample.gold_type or 'numbers'}")


def _by_letter(sample: Sample, extracted: str) -> Graded:
    letter = read_letter(extracted, sample.options)
    if letter is None:
        return Graded(extracted, 0.0, LETTER, "names no single option")
    return Graded(extracted, float(letter == sample.gold), LETTER, f"names {letter}")
