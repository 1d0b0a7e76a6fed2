"""The generative verifier: each question to the judge is asked once, and asked again when it gives no decision.

Does not know: rollouts, shards, rewards, where the judge runs. Invariant: a decision is remembered only when the judge
made it, and under everything that it depends on: the judge, the template, and the whole text of the prompt.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from grhpc.answer.judge import load_template, read_decision, render, settle
from grhpc.config import VerifierConfig
from grhpc.errors import EngineError
from grhpc.judge.decide import Decided, Decision, Pair
from grhpc.judge.judge import Judge, Reply
from grhpc.records import NO_VERDICT
from grhpc.store.decisions import Made

LAYER, GUARD = "generative", "guard"
SUSPICIOUS = 8  # questions asked together of which not one was decided: the judge is broken, not the answers


class Memory(Protocol):
    """What was decided before, by key. `store.decisions.DecisionLog` shares it among the tasks of a run."""

    asked_twice: int

    def news(self) -> tuple[str, ...]:
        """What went wrong since the last call: of no harm but that something is asked again."""

    def recall(self, keys: Iterable[bytes]) -> dict[bytes, Made]: ...

    def record(self, decisions: Mapping[bytes, Made], shard: str) -> None: ...


class OwnMemory:
    """The memory of one process, for as long as it lives."""

    def __init__(self) -> None:
        self._made: dict[bytes, Made] = {}
        self.asked_twice = 0

    def news(self) -> tuple[str, ...]:
        return ()

    def recall(self, keys: Iterable[bytes]) -> dict[bytes, Made]:
        return {key: self._made[key] for key in keys if key in self._made}

    def record(self, decisions: Mapping[bytes, Made], shard: str) -> None:
        del shard
        self._made.update(decisions)


class GenerativeDecider:
    """Puts pairs to `judge` in the words of `verifier.template`."""

    def __init__(self, judge: Judge, settings: VerifierConfig, memory: Memory | None = None) -> None:
        self._judge, self._max_attempts = judge, settings.max_attempts
        self._memory = memory or OwnMemory()
        self._template = load_template(settings.template)
        self.template_digest = hashlib.sha256(self._template.encode()).hexdigest()[:16]
        self._identity = f"{judge.identity} {self.template_digest} "

    @property
    def running(self) -> bool:
        return self._judge.running

    def start(self) -> None:
        self._judge.start()

    def guard(self, pair: Pair) -> Decision | None:
        """What needs no judge: answers that say nothing, or that talk to it."""
        settled = settle(self._template, pair.reference, pair.answer)
        return None if settled is None else Decision(settled.decision, GUARD, settled.reason)

    def decide(self, pairs: Sequence[Pair], should_stop: Callable[[], bool], shard: str = "") -> Decided | None:
        """Decisions for distinct pairs; None where `should_stop` said so. Raises EngineError."""
        decisions: dict[Pair, Decision] = {}
        prompts: dict[Pair, str] = {}
        for pair in pairs:
            if decision := self.guard(pair):
                decisions[pair] = decision
            else:
                prompts[pair] = render(self._template, pair.question, pair.reference, pair.answer)
        keys = {prompt: self._key(prompt) for prompt in prompts.values()}
        recalled = self._memory.recall(keys.values())
        told = {prompt: _remembered(recalled[key]) for prompt, key in keys.items() if key in recalled}
        seen = set(told)
        replies = self._ask_until_decided([prompt for prompt in keys if prompt not in seen], should_stop)
        if replies is None:
            return None
        told |= {prompt: _decision(reply) for prompt, reply in replies.items()}
        self._memory.record({keys[p]: _made(told[p]) for p in replies if told[p].decision != NO_VERDICT}, shard)
        reused = set()
        for pair, prompt in prompts.items():
            decisions[pair] = told[prompt]
            if prompt in seen:
                reused.add(pair)
            seen.add(prompt)
        return Decided(
            decisions,
            asked=sum(not reply.refused for reply in replies.values()),
            reused=frozenset(reused),
            asked_twice=self._memory.asked_twice,
            usage=self._judge.usage(),
            problems=self._memory.news(),
        )

    def close(self) -> None:
        self._judge.close()

    def _key(self, prompt: str) -> bytes:
        return hashlib.sha256((self._identity + prompt).encode("utf-8", "surrogatepass")).digest()

    def _ask_until_decided(self, prompts: list[str], should_stop: Callable[[], bool]) -> dict[str, Reply] | None:
        replies: dict[str, Reply] = {}
        for attempt in range(1, self._max_attempts + 1):
            waiting = [p for p in prompts if p not in replies or _may_ask_again(replies[p])]
            if not waiting:
                break
            told = self._judge.ask(waiting, attempt, should_stop)
            if told is None:
                return None
            replies |= zip(waiting, told, strict=True)
        heard = [reply for reply in replies.values() if not reply.refused]
        if len(heard) >= SUSPICIOUS and all(_decision(reply).decision == NO_VERDICT for reply in heard):
            self._judge.close()  # nothing it says can be used: begin again with a new one
            raise EngineError(f"the judge decided none of {len(heard)} questions; it wrote: {_words(heard[0])[-80:]!r}")
        return replies


def _may_ask_again(reply: Reply) -> bool:
    return not reply.refused and _decision(reply).decision == NO_VERDICT


def _decision(reply: Reply) -> Decision:
    """A text that was cut off has no end, so it has no decision either."""
    decision = read_decision(reply.text) if reply.finished and not reply.problem else None
    return Decision(decision or NO_VERDICT, LAYER, _words(reply), confidence=reply.confidence if decision else None)


def _made(decision: Decision) -> Made:
    return Made(decision.decision, decision.reason, decision.confidence)


def _remembered(made: Made) -> Decision:
    return Decision(made.decision, LAYER, made.text, by=made.by, confidence=made.confidence)


def _words(reply: Reply) -> str:
    """As text that any file can hold: a server's JSON may bring half a surrogate pair."""
    return (reply.problem or reply.text).encode("utf-8", "replace").decode()
