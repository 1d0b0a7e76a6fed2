"""A decision to a number, exactly as General-Reasoner trained.

Does not know: who decided. Invariant: no verdict is NaN, never a number that could be trained on.
"""

import math

from grhpc.records import NO, NO_ANSWER, NO_VERDICT, YES

NO_ANSWER_REWARD = -0.5
LENGTH_PENALTY, MOST_PENALISED = 0.05, 10  # per token of difference to the reference, and how many count


def reward(decision: str, answer_tokens: int, reference_tokens: int) -> float:
    """The reward of one rollout; lengths in tokens of the verifier's tokenizer. NaN where there is no verdict."""
    if decision == YES:
        return 1.0 - LENGTH_PENALTY * min(MOST_PENALISED, abs(answer_tokens - reference_tokens))
    known = {NO: 0.0, NO_ANSWER: NO_ANSWER_REWARD, NO_VERDICT: math.nan}
    return known[decision]


def arithmetic(decision: str, answer_tokens: int, reference_tokens: int) -> str:
    """The same with every number in it, for people."""
    if decision == YES:
        lengths = f"{LENGTH_PENALTY} x min({MOST_PENALISED}, |{answer_tokens} - {reference_tokens}|)"
        return f"1 - {lengths} = {reward(decision, answer_tokens, reference_tokens):.2f}"
    if decision == NO_VERDICT:
        return "none: without a verdict the whole group is dropped"
    why = {NO: "not equivalent", NO_ANSWER: "no answer in the response"}[decision]
    return f"{reward(decision, answer_tokens, reference_tokens):g}: {why}"
