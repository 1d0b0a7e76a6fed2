"""The deciders of `verify.mode` that begin with rules.

    exact     equal once normalised
    rule      exact, then multiple choice, then math-verify, for yes and for no
    hybrid    exact, guards, multiple choice, then math-verify for yes only; the judge decides the rest

Of what a rule settled in hybrid mode a sample is put to the judge too: its word is recorded beside the decision, and
never changes it.

Does not know: rollouts, shards, rewards. Invariant: a layer that is not sure leaves the pair to the next one.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace

from grhpc.answer.choice import same_choice
from grhpc.answer.rules import MathVerify, exact, maths_can_tell
from grhpc.judge.decide import Decided, Decision, Pair
from grhpc.judge.generative import GUARD, GenerativeDecider
from grhpc.records import NO, NO_VERDICT, YES

EXACT, CHOICE, RULE = "exact", "choice", "rule"


class ExactDecider:
    """Text equality."""

    running = True

    def start(self) -> None:
        pass

    def decide(self, pairs: Sequence[Pair], should_stop: Callable[[], bool], shard: str = "") -> Decided | None:
        del should_stop, shard
        return Decided({p: _equal(p) or Decision(NO, EXACT, "another text") for p in pairs}, 0)

    def close(self) -> None:
        pass


class RuleDecider:
    """Rules alone: General-Reasoner's baseline, with text equality and multiple choice before it."""

    running = True

    def __init__(self, limit_s: float = 10.0) -> None:
        self._math_verify = MathVerify(limit_s)

    def start(self) -> None:
        pass

    def decide(self, pairs: Sequence[Pair], should_stop: Callable[[], bool], shard: str = "") -> Decided | None:
        del shard
        decisions = {}
        for pair in pairs:
            if should_stop():
                return None
            decisions[pair] = _equal(pair) or _by_choice(pair) or self._by_maths(pair)
        return Decided(decisions, 0)

    def close(self) -> None:
        self._math_verify.close()

    def _by_maths(self, pair: Pair) -> Decision:
        equivalent = self._math_verify.equivalent(pair.reference, pair.answer)
        if equivalent is None:
            return Decision(NO_VERDICT, RULE, "math-verify could not decide")
        return Decision(YES if equivalent else NO, RULE, "math-verify")


class HybridDecider:
    """Rules where they are sure, the judge for the rest; `audit_share` of what rules settled goes to the judge too."""

    def __init__(self, generative: GenerativeDecider, audit_share: float, limit_s: float = 10.0) -> None:
        self._generative, self._audit_share = generative, audit_share
        self._math_verify = MathVerify(limit_s)

    @property
    def running(self) -> bool:
        return self._generative.running

    def start(self) -> None:
        self._generative.start()

    def decide(self, pairs: Sequence[Pair], should_stop: Callable[[], bool], shard: str = "") -> Decided | None:
        settled: dict[Pair, Decision] = {}
        for pair in pairs:
            if should_stop():
                return None
            if decision := self._settle(pair):
                settled[pair] = decision
        left = [pair for pair in pairs if pair not in settled]
        audited = [pair for pair, decision in settled.items() if decision.layer != GUARD and self._is_audited(pair)]
        judged = self._generative.decide([*left, *audited], should_stop, shard, frozenset(audited))
        if judged is None:
            return None
        for pair in audited:
            settled[pair] = replace(settled[pair], audit=judged.decisions[pair].decision)
        decisions = settled | {pair: judged.decisions[pair] for pair in left}
        return replace(judged, decisions=decisions, reused=judged.reused.intersection(left))

    def close(self) -> None:
        self._math_verify.close()
        self._generative.close()

    def _settle(self, pair: Pair) -> Decision | None:
        if decision := _equal(pair) or self._generative.guard(pair) or _by_choice(pair):
            return decision
        believable = maths_can_tell(pair.question, pair.reference, pair.answer)
        if believable and self._math_verify.equivalent(pair.reference, pair.answer):
            return Decision(YES, RULE, "math-verify")
        return None

    def _is_audited(self, pair: Pair) -> bool:
        """By the pair alone, so that every task and every repetition of a run audits the same ones."""
        text = "\0".join((pair.question, pair.reference, pair.answer))
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(digest[:8], "big") < self._audit_share * 2**64


def _equal(pair: Pair) -> Decision | None:
    return Decision(YES, EXACT, "the same text") if exact(pair.reference, pair.answer) else None


def _by_choice(pair: Pair) -> Decision | None:
    same = same_choice(pair.question, pair.reference, pair.answer)
    if same is None:
        return None
    return Decision(YES if same else NO, CHOICE, "the same option" if same else "another option")
