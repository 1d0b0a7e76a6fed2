"""The decider that a configuration asks for: for the verify task, and for measuring a verifier.

Does not know: shards, queues. Invariant: making one starts nothing; `start` does.
"""

from collections.abc import Callable
from typing import Any

from grhpc.answer.judge import load_template
from grhpc.config import Config
from grhpc.errors import ConfigError
from grhpc.eval_config import EvalConfig
from grhpc.judge.decide import Decider
from grhpc.judge.endpoint_judge import EndpointJudge
from grhpc.judge.engine_judge import make_engine_judge
from grhpc.judge.generative import GenerativeDecider, Memory, OwnMemory
from grhpc.judge.judge import Judge
from grhpc.judge.layers import ExactDecider, HybridDecider, RuleDecider


def make_decider(
    config: Config | EvalConfig,
    tokenizer: Any,
    on_stall: Callable[[float], None],
    memory: Memory | None = None,
    confidence: bool = True,
    judge: Judge | None = None,
) -> Decider:
    """The decider of `verify.mode`. `tokenizer` is the verifier's; `on_stall(seconds)` is told when the judge's engine
    hangs, just before this process ends; `memory` is what was judged before (default: by this decider alone);
    `confidence` has the judge's measured where it can be; `judge` takes the place of the one that `verifier` names.
    Raises ConfigError, DataError."""
    mode = config.verify.mode
    if mode == "exact":
        return ExactDecider()
    if mode == "rule":
        return RuleDecider()
    remembered = memory or OwnMemory()

    def stalled(seconds: float) -> None:
        try:
            on_stall(seconds)
        finally:
            remembered.leave()  # nothing else will: the process ends at once, and others may wait for what it asks

    judge = judge or make_judge(config, tokenizer, stalled, confidence)
    generative = GenerativeDecider(judge, config.verifier, remembered)
    return generative if mode == "generative" else HybridDecider(generative, config.verify.audit_share)


def make_judge(
    config: Config | EvalConfig, tokenizer: Any, on_stall: Callable[[float], None], confidence: bool = True
) -> Judge:
    """The judge that `verifier` names. Raises ConfigError where its template leaves no room for a question."""
    tokens = len(tokenizer([load_template(config.verifier.template)])["input_ids"][0])
    if tokens >= config.verifier.max_input_tokens:
        raise ConfigError(
            f"verifier.template alone has {tokens} tokens, and verifier.max_input_tokens is "
            f"{config.verifier.max_input_tokens}: no question would reach the judge",
            "raise verifier.max_input_tokens",
        )
    if config.verifier.endpoint.url:
        return EndpointJudge(config.verifier, config.run.seed, tokenizer)
    return make_engine_judge(config, tokenizer, on_stall, confidence)


def judge_room(config: Config | EvalConfig) -> int:
    """How many questions keep the judge busy; 0 where rules decide."""
    if not config.verify.asks_a_model:
        return 0
    return config.verifier.endpoint.concurrency if config.verifier.endpoint.url else config.verify.engine.max_num_seqs
