"""Pairs of reference and answer to decisions: the layers of the verifier, chosen by `verify.mode`.

    exact       equal once normalised
    rule        math-verify
    generative  a verifier model, after a few answers are settled without asking; the paper's way

Does not know: rollouts, shards, rewards. Invariant: every pair gets a decision, and one that a layer could not make is
NO_VERDICT with the reason; an engine's failure is raised, never turned into a decision.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from grhpc.answer.rules import MathVerify, exact
from grhpc.records import NO, NO_VERDICT, YES


@dataclass(frozen=True)
class Pair:
    """What a judge sees of a rollout: identical pairs get identical decisions."""

    question: str
    reference: str
    answer: str


@dataclass(frozen=True)
class Decision:
    """YES, NO or NO_VERDICT, the layer that decided ("exact", "rule", "guard", "generative") and its words."""

    decision: str
    layer: str
    reason: str


@dataclass(frozen=True)
class Decided:
    """`decisions` for every pair; `asked` is how many the layer worked on, `reused` those it knew from before."""

    decisions: dict[Pair, Decision]
    asked: int
    reused: frozenset[Pair] = frozenset()


class Decider(Protocol):
    def decide(self, pairs: Sequence[Pair], should_stop: Callable[[], bool]) -> Decided | None:
        """Decide distinct pairs; None where `should_stop` said so."""

    def close(self) -> None: ...


class ExactDecider:
    """Text equality."""

    def decide(self, pairs: Sequence[Pair], should_stop: Callable[[], bool]) -> Decided | None:
        del should_stop
        decisions = {p: Decision(_yes_no(exact(p.reference, p.answer)), "exact", "text compared") for p in pairs}
        return Decided(decisions, len(pairs))

    def close(self) -> None:
        pass


class RuleDecider:
    """math-verify, one pair after the other."""

    def __init__(self, limit_s: float = 10.0) -> None:
        self._math_verify = MathVerify(limit_s)

    def decide(self, pairs: Sequence[Pair], should_stop: Callable[[], bool]) -> Decided | None:
        decisions = {}
        for pair in pairs:
            if should_stop():
                return None
            equivalent = self._math_verify.equivalent(pair.reference, pair.answer)
            if equivalent is None:
                decisions[pair] = Decision(NO_VERDICT, "rule", "math-verify could not decide")
            else:
                decisions[pair] = Decision(_yes_no(equivalent), "rule", "math-verify")
        return Decided(decisions, len(pairs))

    def close(self) -> None:
        self._math_verify.close()


def _yes_no(right: bool) -> str:
    return YES if right else NO
