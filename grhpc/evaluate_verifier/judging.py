"""Labelled pairs through a judge: the same deciders as in training, and the judge model bare of all protection.

    bare        the judge model alone: the answer as it is, put into the template as it is
    the others  `verify.mode`, made by `judge/make.py`

Does not know: files, figures. Invariant: every pair gets one decision, in order; an engine's failure is raised.
"""

import hashlib
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from grhpc.answer.judge import fill, load_template, read_decision
from grhpc.config import Config
from grhpc.engine.tokenizer import load_tokenizer
from grhpc.errors import EngineError
from grhpc.evaluate_verifier.labelled import Labelled
from grhpc.judge.decide import Decider, Decision, Pair
from grhpc.judge.generative import LAYER, Memory
from grhpc.judge.make import make_decider, make_judge
from grhpc.records import NO_ANSWER, NO_VERDICT, YES

BARE = "bare"
MODES = ("rule", "hybrid", "generative", "exact", BARE)
WITH_JUDGE = ("hybrid", "generative", BARE)
CHUNK = 512  # pairs put to a decider together

Ask = Callable[[Sequence[Pair]], dict[Pair, Decision]]


@dataclass(frozen=True)
class Judged:
    """A labelled pair and what was decided about it."""

    pair: Labelled
    decision: Decision

    @property
    def accepted(self) -> bool | None:
        """None where there is no verdict; no answer found counts as not accepted, as its reward does."""
        return None if self.decision.decision == NO_VERDICT else self.decision.decision == YES

    @property
    def probability_of_yes(self) -> float | None:
        """As the judge gave it to its own decision; None where a rule or a guard decided."""
        p = self.decision.confidence if self.decision.layer == LAYER else None
        return None if p is None or self.accepted is None else p if self.accepted else 1.0 - p


class Bench:
    """One mode, ready to be asked; its engine starts with the first question that needs it. `close` it.

    `seconds` is the time spent on questions so far, the start of an engine not among it; `usage` what the judge did.
    `memory` keeps decisions for a later process, where one is given.
    """

    def __init__(self, config: Config, mode: str, memory: Memory | None = None) -> None:
        self.mode, self.seconds = mode, 0.0
        self.usage: dict[str, float] = {}
        self._template = load_template(config.verifier.template)
        tokenizer = load_tokenizer(config.verifier.model) if mode in WITH_JUDGE else None
        self._judge: Any = make_judge(config, tokenizer, _stalled) if mode == BARE else None
        as_mode = replace(config, verify=replace(config.verify, mode=mode, audit_share=0.0))
        self._decider: Decider | None = None if mode == BARE else make_decider(as_mode, tokenizer, _stalled, memory)

    def decide(self, pairs: Sequence[Pair]) -> dict[Pair, Decision]:
        """A decision for each distinct pair. Raises EngineError."""
        (self._decider or self._judge).start()
        begun_s = time.monotonic()
        distinct = sorted(set(pairs), key=_mixed)
        decisions: dict[Pair, Decision] = {}
        for start in range(0, len(distinct), CHUNK):
            chunk = distinct[start : start + CHUNK]
            decisions |= self._ask_bare(chunk) if self._decider is None else self._ask(self._decider, chunk)
            print(f"\r{self.mode}: {len(decisions)} of {len(distinct)}", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        self.seconds += time.monotonic() - begun_s
        return decisions

    def close(self) -> None:
        (self._decider or self._judge).close()

    def _ask(self, decider: Decider, pairs: Sequence[Pair]) -> dict[Pair, Decision]:
        decided = decider.decide(pairs, _never, "lessons")
        if decided is None:
            raise EngineError("the judge stopped before it was done", "run it again")
        self.usage = decided.usage
        return decided.decisions

    def _ask_bare(self, pairs: Sequence[Pair]) -> dict[Pair, Decision]:
        prompts = [fill(self._template, p.question, p.reference, p.answer) for p in pairs]
        replies = self._judge.ask(prompts, 1, _never)
        told = {}
        for pair, reply in zip(pairs, replies, strict=True):
            decision = read_decision(reply.text) if reply.finished else None
            words = reply.problem or reply.text
            told[pair] = Decision(decision or NO_VERDICT, LAYER, words, confidence=reply.confidence)
        self.usage = self._judge.usage()
        return told


def judge_identity(config: Config) -> str:
    """The judge model with everything that its answers depend on, for the record; nothing is started."""
    return str(make_judge(config, load_tokenizer(config.verifier.model), _stalled).identity)


def judge_with(ask: Ask, labelled: Sequence[Labelled]) -> list[Judged]:
    """Decisions in the order of the pairs; where a response held no answer, nobody is asked."""
    pairs = [None if p.answer is None else Pair(p.question, p.reference, p.answer) for p in labelled]
    told = ask([pair for pair in pairs if pair is not None])
    none = Decision(NO_ANSWER, "extract", "no answer found")
    return [Judged(p, none if pair is None else told[pair]) for p, pair in zip(labelled, pairs, strict=True)]


def _mixed(pair: Pair) -> bytes:
    """An order that mixes sources: a decider calls a judge broken that decides none of those put to it together."""
    return hashlib.sha256(repr(pair).encode("utf-8", "backslashreplace")).digest()


def _never() -> bool:
    return False


def _stalled(seconds: float) -> None:
    print(f"error: the judge made no progress for {seconds:.0f} s", file=sys.stderr)
