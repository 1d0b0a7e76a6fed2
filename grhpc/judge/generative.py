"""The generative verifier: each question to the judge is asked once, and asked again when it gives no decision.

Does not know: rollouts, shards, rewards, where the judge runs. Invariant: a decision is remembered only when the judge
made it, and under everything that it depends on: the judge, the template, and the whole text of the prompt.
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
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


class NoMemory:
    """For decisions that must be the same whoever makes them, and after whatever else: what a judge says of a question
    may depend on those that it is asked together with."""

    asked_twice = 0

    def news(self) -> tuple[str, ...]:
        return ()

    def recall(self, keys: Iterable[bytes]) -> dict[bytes, Made]:
        del keys
        return {}

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
        keys = self._keys(prompts.values())
        recalled = self._memory.recall(keys.values())
        told = {prompt: _remembered(recalled[key]) for prompt, key in keys.items() if key in recalled}
        seen = set(told)
        needed = {prompt for pair, prompt in prompts.items() if pair not in audits}
        asking = _Asking({prompt: key for prompt, key in keys.items() if prompt not in seen}, self._memory, shard)
        if not self._ask_until_decided(asking, needed, should_stop):
            return None
        told |= asking.told
        reused = set()
        for pair, prompt in prompts.items():
            decisions[pair] = told[prompt]
            if prompt in seen:
                reused.add(pair)
            seen.add(prompt)
        asked = asking.told.keys() - asking.refused
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

    def _keys(self, prompts: Iterable[str]) -> dict[str, bytes]:
        distinct = dict.fromkeys(prompts)
        if distinct and not self._judge.running:
            self._judge.start()  # a judge elsewhere says only then what it is
        identity = f"{self._judge.identity} {self.template_digest} "
        return {p: hashlib.sha256((identity + p).encode("utf-8", "surrogatepass")).digest() for p in distinct}

    def _ask_until_decided(self, asking: "_Asking", needed: set[str], should_stop: Callable[[], bool]) -> bool:
        """False where `should_stop` said so."""
        for attempt in range(1, self._max_attempts + 1):
            waiting = asking.waiting()
            if not waiting:
                break
            replies = self._judge.ask(waiting, attempt, should_stop, asking.hear)
            if replies is None:
                return False
            asking.refuse({p: reply for p, reply in zip(waiting, replies, strict=True) if reply.refused})
        heard = [asking.told[p] for p in asking.told if p in needed and p not in asking.refused]
        if len(heard) >= SUSPICIOUS and all(decision.decision == NO_VERDICT for decision in heard):
            self._judge.close()  # nothing it says can be used: begin again with a new one
            raise EngineError(f"the judge decided none of {len(heard)} questions; it wrote: {heard[0].reason[-80:]!r}")
        return True


class _Asking:
    """The questions of one shard, what was told of them so far, and which were refused; decisions go to `memory`."""

    def __init__(self, keys: Mapping[str, bytes], memory: Memory, shard: str) -> None:
        self._keys, self._memory, self._shard = keys, memory, shard
        self.told: dict[str, Decision] = {}
        self.refused: set[str] = set()

    def waiting(self) -> list[str]:
        """What was not asked yet, or not decided and may be asked again."""
        undecided = {p for p, decision in self.told.items() if decision.decision == NO_VERDICT} - self.refused
        return [p for p in self._keys if p not in self.told or p in undecided]

    def hear(self, replies: Mapping[str, Reply]) -> None:
        self.told |= {prompt: _decision(reply) for prompt, reply in replies.items()}
        decided = {p: self.told[p] for p in replies if self.told[p].decision != NO_VERDICT}
        self._memory.record({self._keys[p]: _made(decision) for p, decision in decided.items()}, self._shard)

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
