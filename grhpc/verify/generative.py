"""The generative verifier: each question to the judge is asked once, and asked again when it gives no decision.

Does not know: rollouts, shards, rewards, where the judge runs. Invariant: a decision is remembered only when the judge
made it, and under everything that it depends on: the judge, the template, and the whole text of the prompt.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence

from grhpc.answer.judge import load_template, read_decision, render, settle
from grhpc.config import VerifierConfig
from grhpc.errors import EngineError
from grhpc.records import NO_VERDICT
from grhpc.verify.decide import Decided, Decision, Pair
from grhpc.verify.judge import Judge, Reply

LAYER, GUARD = "generative", "guard"
MOST_REMEMBERED = 200_000
SUSPICIOUS = 8  # questions asked together of which not one was decided: the judge is broken, not the answers


class GenerativeDecider:
    """Puts pairs to `judge` in the words of `verifier.template`."""

    def __init__(self, judge: Judge, settings: VerifierConfig) -> None:
        self._judge, self._max_attempts = judge, settings.max_attempts
        self._template = load_template(settings.template)
        self.template_digest = hashlib.sha256(self._template.encode()).hexdigest()[:16]
        self._identity = f"{judge.identity} {self.template_digest} "
        self._remembered: OrderedDict[bytes, Decision] = OrderedDict()

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
        known = {prompt: found for prompt in prompts.values() if (found := self._recall(self._key(prompt)))}
        replies = self._ask_until_decided([p for p in dict.fromkeys(prompts.values()) if p not in known], should_stop)
        if replies is None:
            return None
        told = known | {prompt: _decision(reply) for prompt, reply in replies.items()}
        reused, seen = set(), set(known)
        for pair, prompt in prompts.items():
            decisions[pair] = told[prompt]
            if prompt in seen:
                reused.add(pair)
            elif told[prompt].decision != NO_VERDICT:
                self._remember(self._key(prompt), told[prompt])
            seen.add(prompt)
        return Decided(decisions, sum(not reply.refused for reply in replies.values()), frozenset(reused))

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

    def _recall(self, key: bytes) -> Decision | None:
        decision = self._remembered.get(key)
        if decision is not None:
            self._remembered.move_to_end(key)
        return decision

    def _remember(self, key: bytes, decision: Decision) -> None:
        self._remembered[key] = decision
        if len(self._remembered) > MOST_REMEMBERED:
            self._remembered.popitem(last=False)


def _may_ask_again(reply: Reply) -> bool:
    return not reply.refused and _decision(reply).decision == NO_VERDICT


def _decision(reply: Reply) -> Decision:
    """A text that was cut off has no end, so it has no decision either."""
    decision = read_decision(reply.text) if reply.finished and not reply.problem else None
    return Decision(decision or NO_VERDICT, LAYER, _words(reply), confidence=reply.confidence if decision else None)


def _words(reply: Reply) -> str:
    return reply.problem or reply.text
