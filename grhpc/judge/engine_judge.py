"""A judge in this process: vLLM.

Does not know: templates, decisions that are remembered. Invariant: a prompt that does not fit is refused before the
engine sees it, and what the settings allow always fits: a model that holds less is a ConfigError.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from grhpc.answer.judge import read_decision
from grhpc.config import Config, VerifierConfig
from grhpc.engine.host import EngineHost, engine_starter, without_prefix_cache
from grhpc.engine.vllm import Completion, Request, context_tokens
from grhpc.errors import ConfigError
from grhpc.eval_config import EvalConfig
from grhpc.judge.judge import Heard, Reply, refused, unheard
from grhpc.store.model_digest import model_digest

RETRY_TEMPERATURE = 0.3  # a greedy model that rambled once rambles again
_WORD_TOKENS = 12  # from the end of a text, within which its decision's word begins


class EngineJudge:
    """Asks the engine of `host`. `identity` names the model with its content, and its precision. `confidence`: measure
    it, which costs a tenth of a small model's time."""

    def __init__(
        self,
        host: EngineHost,
        tokenizer: Any,
        settings: VerifierConfig,
        seed: int,
        identity: str,
        confidence: bool = True,
    ) -> None:
        self._host, self._tokenizer, self._settings, self._seed = host, tokenizer, settings, seed
        self._confidence = confidence
        self.identity = identity
        self._usage = Counter[str]()

    @property
    def running(self) -> bool:
        return self._host.running

    def start(self) -> None:
        _ = self._host.engine

    def ask(
        self, prompts: Sequence[str], attempt: int, should_stop: Callable[[], bool], heard: Heard = unheard
    ) -> list[Reply] | None:
        replies: list[Reply | None] = []
        requests = []
        for ids in self._tokenizer(list(prompts))["input_ids"] if prompts else ():
            replies.append(refused(len(ids), self._settings.max_input_tokens))
            if replies[-1] is None:
                requests.append(self._request(ids, attempt))
        completions = self._host.generate(requests, should_stop) if requests else []
        if completions is None:
            return None
        self._count(requests, completions)
        told = iter(completions)
        complete = [reply or self._reply(next(told)[0]) for reply in replies]
        heard(dict(zip(prompts, complete, strict=True)))
        return complete

    def usage(self) -> dict[str, float]:
        return dict(self._usage)

    def close(self) -> None:
        self._host.close()

    def _count(self, requests: list[Request], completions: list[list[Completion]]) -> None:
        self._usage["requests"] += len(requests)
        self._usage["prompt_tokens"] += sum(len(request.prompt_ids) for request in requests)
        self._usage["new_tokens"] += sum(len(samples[0].token_ids) for samples in completions)

    def _request(self, prompt_ids: list[int], attempt: int) -> Request:
        temperature = 0.0 if attempt == 1 else RETRY_TEMPERATURE
        seed = self._seed + attempt
        most = self._settings.max_new_tokens
        return Request(prompt_ids, temperature=temperature, max_tokens=most, seed=seed, logprobs=self._confidence)

    def _reply(self, completion: Completion) -> Reply:
        finished = completion.finish_reason == "stop"
        decision = read_decision(completion.text) if finished and self._confidence else None
        confidence = None if decision is None else self._probability(completion, decision)
        return Reply(completion.text, finished, confidence)

    def _probability(self, completion: Completion, word: str) -> float | None:
        """What the model gave to the last `word` of its text: the product over the tokens that spell it."""
        ids, first = completion.token_ids, len(completion.token_ids)
        for start in range(first - 1, max(-1, first - 1 - _WORD_TOKENS), -1):
            if word in self._tokenizer.decode(ids[start:]).lower():
                end = next(
                    e for e in range(start + 1, first + 1) if word in self._tokenizer.decode(ids[start:e]).lower()
                )
                return math.exp(sum(completion.logprobs[start:end]))
        return None


def make_engine_judge(
    config: Config | EvalConfig, tokenizer: Any, on_stall: Callable[[float], None], confidence: bool = True
) -> EngineJudge:
    """The judge of `verifier.model` under `verify.engine`. Raises ConfigError where the model holds too few tokens."""
    verifier, engine = config.verifier, config.verify.engine
    if isinstance(config, EvalConfig):
        engine = without_prefix_cache(engine)
    held = engine.max_model_tokens or verifier.max_input_tokens + verifier.max_new_tokens
    context = context_tokens(verifier.model)
    if held > context:
        raise ConfigError(
            f"the judge is to hold {held} tokens, but {verifier.model} was made for {context}",
            "lower verifier.max_input_tokens or verifier.max_new_tokens",
        )
    starter = engine_starter(verifier.model, verifier.dtype, engine, held, config.run.seed)
    host = EngineHost(starter, engine.stall_s, on_stall)
    identity = f"{verifier.model} {model_digest(verifier.model)} {verifier.dtype}"
    if engine.extra:  # quantisation, a cache's precision and the like
        identity += f" {json.dumps(engine.extra, sort_keys=True, default=str)}"
    return EngineJudge(host, tokenizer, verifier, config.run.seed, identity, confidence)
