"""The generative verifier: each question to the judge is asked once, and asked again when it gives no decision.

Does not know: rollouts, shards, rewards, where the judge runs. Invariant: a decision is remembered only when the judge
made it, and under everything that it depends on: the judge, the template, and the whole text of the prompt. What
another task asks just now is not asked: it is waited for.
"""

import contextlib
import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from grhpc.answer.judge import fill, load_template, read_decision, render, settle
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

    def asking(
        self, topics: Mapping[bytes, bytes], should_stop: Callable[[], bool]
    ) -> contextlib.AbstractContextManager[Collection[bytes] | None]:
        """While inside, keys that nobody else asks; `topics` are all that are open, each with what it is about. None
        where `should_stop` said so. As long as keys are open, call it again: in the end each was known or free."""

    def leave(self) -> None:
        """Let go of what is being asked, from wherever: this process ends."""

    def recall(self, keys: Iterable[bytes]) -> dict[bytes, Made]: ...

    def record(self, decisions: Mapping[bytes, Made], shard: str) -> None: ...


class OwnMemory:
    """The memory of one process, for as long as it lives."""

    asked_twice = 0

    def __init__(self) -> None:
        self._made: dict[bytes, Made] = {}

    def news(self) -> tuple[str, ...]:
        return ()

    @contextlib.contextmanager
    def asking(
        self, topics: Mapping[bytes, bytes], should_stop: Callable[[], bool]
    ) -> Iterator[Collection[bytes] | None]:
        del should_stop
        yield topics

    def leave(self) -> None:
        pass

    def recall(self, keys: Iterable[bytes]) -> dict[bytes, Made]:
        return {key: self._made[key] for key in keys if key in self._made}

    def record(self, decisions: Mapping[bytes, Made], shard: str) -> None:
        del shard
        self._made.update(decisions)


class NoMemory(OwnMemory):
    """For decisions that must be the same whoever makes them, and after whatever else: what a judge says of a question
    may depend on those that it is asked together with."""

    def record(self, decisions: Mapping[bytes, Made], shard: str) -> None:
        del decisions, shard


class GenerativeDecider:
    """Puts pairs to `judge` in the words of `verifier.template`."""

    def __init__(self, judge: Judge, settings: VerifierConfig, memory: Memory | None = None) -> None:
        self._judge, self._max_attempts = judge, settings.max_attempts
        self._memory = memory or OwnMemory()
        self._template = load_template(settings.template)
        self.template_digest = hashlib.sha256(self._template.encode()).hexdigest()[:16]

    @property
    def running(self) -> bool:
        return self._judge.running

    def start(self) -> None:
        self._judge.start()

    def guard(self, pair: Pair) -> Decision | None:
        """What needs no judge: answers that say nothing, or that talk to it."""
        settled = settle(self._template, pair.question, pair.reference, pair.answer)
        return None if settled is None else Decision(settled.decision, GUARD, settled.reason)

    def decide(
        self,
        pairs: Sequence[Pair],
        should_stop: Callable[[], bool],
        shard: str = "",
        audits: Collection[Pair] = (),
    ) -> Decided | None:
        """Decisions for distinct pairs; None where `should_stop` said so. Raises EngineError.

        What the judge decided is remembered as it comes, whatever becomes of the rest. Nothing depends on the pairs
        among them that are `audits`: they are counted apart, and a judge that decides none of them is no broken one."""
        decisions: dict[Pair, Decision] = {}
        prompts: dict[Pair, str] = {}
        for pair in pairs:
            if decision := self.guard(pair):
                decisions[pair] = decision
            else:
                prompts[pair] = render(self._template, pair.question, pair.reference, pair.answer)
        asking = _Asking(self._keys(prompts), self._memory, shard)
        needed = {prompt for pair, prompt in prompts.items() if pair not in audits}
        while topics := asking.topics():
            with self._memory.asking(topics, should_stop) as free:
                if free is None:
                    return None
                asking.recall()
                if not self._ask_until_decided(asking, free, needed, should_stop):
                    return None
        reused, seen = set(), set(asking.recalled)
        for pair, prompt in prompts.items():
            decisions[pair] = asking.told[prompt]
            if prompt in seen:
                reused.add(pair)
            seen.add(prompt)
        asked = asking.told.keys() - asking.recalled - asking.refused
        return Decided(
            decisions,
            asked=len(asked & needed),
            asked_to_audit=len(asked - needed),
            reused=frozenset(reused),
            refused=frozenset(pair for pair, prompt in prompts.items() if prompt in asking.refused),
            asked_twice=self._memory.asked_twice,
            usage=self._judge.usage(),
            problems=self._memory.news(),
        )

    def close(self) -> None:
        self._judge.close()

    def _keys(self, prompts: Mapping[Pair, str]) -> "dict[str, _Key]":
        """What each prompt's decision is remembered under."""
        if prompts and not self._judge.running:
            self._judge.start()  # a judge elsewhere says only then what it is
        identity = f"{self._judge.identity} {self.template_digest} "

        def digest(prompt: str) -> bytes:
            return hashlib.sha256((identity + prompt).encode("utf-8", "surrogatepass")).digest()

        return {
            prompt: _Key(digest(prompt), digest(fill(self._template, pair.question, pair.reference, "")))
            for pair, prompt in prompts.items()
        }

    def _ask_until_decided(
        self, asking: "_Asking", free: Collection[bytes], needed: set[str], should_stop: Callable[[], bool]
    ) -> bool:
        """False where `should_stop` said so."""
        asked = waiting = asking.waiting(free)
        for attempt in range(1, self._max_attempts + 1):
            if not waiting:
                break
            replies = self._judge.ask(waiting, attempt, should_stop, asking.hear)
            if replies is None:
                return False
            asking.refuse({p: reply for p, reply in zip(waiting, replies, strict=True) if reply.refused})
            waiting = asking.waiting(free)
        heard = [asking.told[p] for p in asked if p in needed and p not in asking.refused]
        if len(heard) >= SUSPICIOUS and all(decision.decision == NO_VERDICT for decision in heard):
            self._judge.close()  # nothing it says can be used: begin again with a new one
            raise EngineError(f"the judge decided none of {len(heard)} questions; it wrote: {heard[0].reason[-80:]!r}")
        return True


@dataclass(frozen=True)
class _Key:
    """`topic` is that of all answers to the same question."""

    key: bytes
    topic: bytes


class _Asking:
    """The questions of one shard, what was told of them so far, by the judge or by `memory`, and which were refused;
    the judge's decisions go to `memory`."""

    def __init__(self, keys: Mapping[str, _Key], memory: Memory, shard: str) -> None:
        self._keys, self._memory, self._shard = keys, memory, shard
        self.told: dict[str, Decision] = {}
        self.recalled: set[str] = set()
        self.refused: set[str] = set()

    def topics(self) -> dict[bytes, bytes]:
        """The keys of what nothing was told of yet, each with its topic."""
        return {key.key: key.topic for prompt, key in self._keys.items() if prompt not in self.told}

    def recall(self) -> None:
        found = self._memory.recall(self.topics())
        told = {p: _remembered(found[key.key]) for p, key in self._keys.items() if key.key in found}
        self.told |= told
        self.recalled |= told.keys()

    def waiting(self, free: Collection[bytes]) -> list[str]:
        """Of what is free, what was not asked yet, or not decided and may be asked again."""
        undecided = {p for p, decision in self.told.items() if decision.decision == NO_VERDICT} - self.refused
        return [p for p, key in self._keys.items() if key.key in free and (p not in self.told or p in undecided)]

    def hear(self, replies: Mapping[str, Reply]) -> None:
        self.told |= {prompt: _decision(reply) for prompt, reply in replies.items()}
        decided = {p: self.told[p] for p in replies if self.told[p].decision != NO_VERDICT}
        self._memory.record({self._keys[p].key: _made(decision) for p, decision in decided.items()}, self._shard)

    def refuse(self, replies: Mapping[str, Reply]) -> None:
        self.refused |= replies.keys()
        self.told |= {prompt: _decision(reply) for prompt, reply in replies.items()}


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
