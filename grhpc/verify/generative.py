"""The generative verifier: each question to it is asked once, and asked again when it gives no decision.

Does not know: rollouts, shards, rewards. Invariant: a decision is remembered only when the model made it, and under
everything that it depends on: the model, the template, and the whole text of the prompt.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from grhpc.answer import judge
from grhpc.config import VerifierConfig
from grhpc.engine.host import EngineHost
from grhpc.engine.vllm import Completion, Request
from grhpc.errors import ConfigError, EngineError
from grhpc.records import NO_VERDICT
from grhpc.verify.decide import Decided, Decision, Pair

LAYER, GUARD = "generative", "guard"
RETRY_TEMPERATURE = 0.3  # a greedy model that rambled once rambles again
MOST_REMEMBERED = 200_000
SUSPICIOUS = 8  # questions asked together of which not one was decided: the judge is broken, not the answers


class GenerativeDecider:
    """`identity` names the model and its precision; `max_model_tokens` is what the engine holds."""

    def __init__(
        self, host: EngineHost, tokenizer: Any, settings: VerifierConfig, max_model_tokens: int, seed: int
    ) -> None:
        self._host, self._tokenizer, self._settings, self._seed = host, tokenizer, settings, seed
        self._template = judge.load_template(settings.template)
        self.max_input_tokens = min(settings.max_input_tokens, max_model_tokens - settings.max_new_tokens)
        if self.max_input_tokens < 1:
            raise ConfigError(
                f"the verifier's context of {max_model_tokens} tokens is full with max_new_tokens alone",
                "lower verifier.max_new_tokens",
            )
        self.template_digest = hashlib.sha256(self._template.encode()).hexdigest()[:16]
        self._identity = f"{settings.model} {settings.dtype} {self.template_digest} "
        self._remembered: OrderedDict[bytes, Decision] = OrderedDict()

    def decide(self, pairs: Sequence[Pair], should_stop: Callable[[], bool]) -> Decided | None:
        """Decisions for distinct pairs; None where `should_stop` said so. Raises EngineError."""
        decisions: dict[Pair, Decision] = {}
        reused: set[Pair] = set()
        open_prompts: dict[Pair, list[int]] = {}
        keys: dict[Pair, bytes] = {}
        for pair in pairs:
            if settled := judge.settle(self._template, pair.reference, pair.answer):
                decisions[pair] = Decision(settled.decision, GUARD, settled.reason)
                continue
            prompt = judge.render(self._template, pair.question, pair.reference, pair.answer)
            keys[pair] = hashlib.sha256((self._identity + prompt).encode("utf-8", "surrogatepass")).digest()
            if known := self._recall(keys[pair]):
                decisions[pair] = known
                reused.add(pair)
                continue
            ids = self._tokenizer(prompt)["input_ids"]
            if len(ids) > self.max_input_tokens:
                reason = f"the judge's prompt has {len(ids)} tokens, more than {self.max_input_tokens}"
                decisions[pair] = Decision(NO_VERDICT, LAYER, reason)
            else:
                open_prompts[pair] = ids
        answers = self._ask_until_decided(open_prompts, should_stop)
        if answers is None:
            return None
        for pair, decision in answers.items():
            decisions[pair] = decision
            if decision.decision != NO_VERDICT:
                self._remember(keys[pair], decision)
        return Decided(decisions, len(open_prompts), frozenset(reused))

    def close(self) -> None:
        self._host.close()

    def _ask_until_decided(
        self, prompts: dict[Pair, list[int]], should_stop: Callable[[], bool]
    ) -> dict[Pair, Decision] | None:
        answers: dict[Pair, Decision] = {}
        for attempt in range(1, self._settings.max_attempts + 1):
            waiting = [pair for pair in prompts if pair not in answers or answers[pair].decision == NO_VERDICT]
            if not waiting:
                break
            requests = [self._request(prompts[pair], attempt) for pair in waiting]
            completions = self._host.generate(requests, should_stop)
            if completions is None:
                return None
            answers |= {pair: _read(samples[0]) for pair, samples in zip(waiting, completions, strict=True)}
        if len(answers) >= SUSPICIOUS and all(a.decision == NO_VERDICT for a in answers.values()):
            self._host.close()  # nothing it says can be used: begin again with a new engine
            sample = next(iter(answers.values())).reason[-80:]
            raise EngineError(f"the judge decided none of {len(answers)} questions; it wrote: {sample!r}")
        return answers

    def _request(self, prompt_ids: list[int], attempt: int) -> Request:
        temperature = 0.0 if attempt == 1 else RETRY_TEMPERATURE
        seed = self._seed + attempt
        return Request(prompt_ids, temperature=temperature, max_tokens=self._settings.max_new_tokens, seed=seed)

    def _recall(self, key: bytes) -> Decision | None:
        decision = self._remembered.get(key)
        if decision is not None:
            self._remembered.move_to_end(key)
        return decision

    def _remember(self, key: bytes, decision: Decision) -> None:
        self._remembered[key] = decision
        if len(self._remembered) > MOST_REMEMBERED:
            self._remembered.popitem(last=False)


def _read(completion: Completion) -> Decision:
    """A text that was cut off has no end, so it has no decision either."""
    decision = judge.read_decision(completion.text) if completion.finish_reason == "stop" else None
    return Decision(decision or NO_VERDICT, LAYER, completion.text)
