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

from grhpc.answer.judge import fill, load_template, read_decision
from grhpc.config import Config
from grhpc.engine.tokenizer import load_tokenizer
from grhpc.errors import EngineError
from grhpc.eval_config import EvalConfig
from grhpc.evaluate_verifier.labelled import Labelled
from grhpc.judge.decide import Decided, Decider, Decision, Pair
from grhpc.judge.generative import LAYER, Memory
from grhpc.judge.judge import Judge
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


class Bare:
    """The judge model alone, as a decider."""

    def __init__(self, judge: Judge, template: str) -> None:
        self._judge, self._template = judge, template

    @property
    def running(self) -> bool:
        return self._judge.running

    def start(self) -> None:
        self._judge.start()

    def decide(self, pairs: Sequence[Pair], should_stop: Callable[[], bool], shard: str = "") -> Decided | None:
        del shard
        prompts = [fill(self._template, p.question, p.reference, p.answer) for p in pairs]
        replies = self._judge.ask(prompts, 1, should_stop)
        if replies is None:
            return None
        told = {}
        for pair, reply in zip(pairs, replies, strict=True):
            decision = read_decision(reply.text) if reply.finished else None
            words = reply.problem or reply.text
            told[pair] = Decision(decision or NO_VERDICT, LAYER, words, confidence=reply.confidence)
        return Decided(told, asked=sum(not reply.refused for reply in replies), usage=self._judge.usage())

    def close(self) -> None:
        self._judge.close()


class Bench:
    """One mode, ready to be asked; its engine starts with the first question that needs it. `close` it.

    `seconds` is the time spent on questions so far, the start of an engine not among it; `usage` what the judge did.
    `memory` keeps decisions for a later process, where one is given; `terminal` is where it says how far it is.
    """

    def __init__(self, config: Config | EvalConfig, mode: str, memory: Memory | None = None) -> None:
        self.mode, self.seconds, self.terminal = mode, 0.0, sys.stderr
        self.usage: dict[str, float] = {}
        template = load_template(config.verifier.template)
        tokenizer = load_tokenizer(config.verifier.model) if mode in WITH_JUDGE else None
        self._judge = make_judge(config, tokenizer, self._stalled) if mode in WITH_JUDGE else None
        if mode == BARE and self._judge is not None:
            self._decider: Decider = Bare(self._judge, template)
        else:
            as_mode = replace(config, verify=replace(config.verify, mode=mode, audit_share=0.0))
            self._decider = make_decider(as_mode, tokenizer, self._stalled, memory, judge=self._judge)

    @property
    def judge(self) -> str:
        """The judge model with everything that its answers depend on, as far as it has told; "" where there is none."""
        return self._judge.identity if self._judge else ""

    def decide(self, pairs: Sequence[Pair]) -> dict[Pair, Decision]:
        """A decision for each distinct pair. Raises EngineError."""
        self._decider.start()
        begun_s = time.monotonic()
        distinct = sorted(set(pairs), key=_mixed)
        decisions: dict[Pair, Decision] = {}
        for start in range(0, len(distinct), CHUNK):
            decided = self._decider.decide(distinct[start : start + CHUNK], _never, "lessons")
            if decided is None:
                raise EngineError("the judge stopped before it was done", "run it again")
            decisions |= decided.decisions
            self.usage = decided.usage
            self._tell(f"\r{self.mode}: {len(decisions)} of {len(distinct)}")
        self._tell("\n")
        self.seconds += time.monotonic() - begun_s
        return decisions

    def close(self) -> None:
        self._decider.close()

    def _tell(self, words: str) -> None:
        print(words, end="", file=self.terminal, flush=True)

    def _stalled(self, seconds: float) -> None:
        self._tell(f"error: the judge made no progress for {seconds:.0f} s\n")


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
