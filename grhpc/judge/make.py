"""The decider that a configuration asks for: for the verify task, and for measuring a verifier.

Does not know: shards, queues. Invariant: making one starts nothing; `start` does.
"""

from collections.abc import Callable
from typing import Any

from grhpc.config import Config
from grhpc.judge.decide import Decider
from grhpc.judge.endpoint_judge import EndpointJudge
from grhpc.judge.engine_judge import make_engine_judge
from grhpc.judge.generative import GenerativeDecider, Memory
from grhpc.judge.judge import Judge
from grhpc.judge.layers import ExactDecider, HybridDecider, RuleDecider


def make_decider(
    config: Config,
    tokenizer: Any,
    on_stall: Callable[[float], None],
    memory: Memory | None = None,
    confidence: bool = True,
) -> Decider:
    """The decider of `verify.mode`. `tokenizer` is the verifier's; `on_stall(seconds)` is told when the judge's engine
    hangs, just before this process ends; `memory` is what was judged before (default: by this decider alone);
    `confidence` has the judge's measured where it can be. Raises ConfigError, DataError."""
    mode = config.verify.mode
    if mode == "exact":
        return ExactDecider()
    if mode == "rule":
        return RuleDecider()
    generative = GenerativeDecider(make_judge(config, tokenizer, on_stall, confidence), config.verifier, memory)
    return generative if mode == "generative" else HybridDecider(generative, config.verify.audit_share)


def make_judge(config: Config, tokenizer: Any, on_stall: Callable[[float], None], confidence: bool = True) -> Judge:
    """The judge that `verifier` names."""
    if config.verifier.endpoint.url:
        return EndpointJudge(config.verifier, config.run.seed, tokenizer)
    return make_engine_judge(config, tokenizer, on_stall, confidence)
