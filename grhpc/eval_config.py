"""Every setting of an evaluation.

Does not know: files, benchmarks, what the settings do. Invariant: a configuration is never changed; `config_file` reads
and checks it.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grhpc.config import (
    EndpointConfig,
    EngineConfig,
    ModelConfig,
    RoleConfig,
    RunConfig,
    StoreConfig,
    VerifierConfig,
    VerifyConfig,
)

ALONE, CONTINUOUS, INVARIANT = "alone", "continuous", "invariant"
BATCHING = (ALONE, CONTINUOUS, INVARIANT)


@dataclass(frozen=True)
class EvalDataConfig:
    prepared: str  # folder that the preparation writes: every benchmark's questions; tasks need no source
    sources: dict[str, str] = field(default_factory=dict)  # benchmark -> Hub id, folder or file, for the entry's own
    max_prompt_tokens: int = 8192  # a longer question is not asked: wrong, and counted; a server has its own limit
    limit: int | None = None  # only the first questions of each benchmark, for trials


@dataclass(frozen=True)
class SampleConfig:
    max_response_tokens: int = 8192
    questions_per_shard: int = 64  # fewer where each has several samples: a shard has about so many samples
    few_shot: int = 0  # worked examples before each question, where the benchmark has them
    stop: list[str] | None = None  # strings that end a response; null: after worked examples, what begins another one
    engine: EngineConfig = field(default_factory=EngineConfig)
    endpoint: EndpointConfig = field(default_factory=EndpointConfig)  # a server that answers, in the engine's place


@dataclass(frozen=True)
class EvalClusterConfig:
    executor: str = "slurm"  # slurm | local
    evaluate: RoleConfig = field(default_factory=RoleConfig)


@dataclass(frozen=True)
class EvalConfig:
    """An evaluation: an array of tasks over the shards of the benchmarks' questions."""

    run: RunConfig
    benchmarks: list[str]  # entries by name, in the order of the table
    data: EvalDataConfig
    model: ModelConfig = field(default_factory=lambda: ModelConfig(model=""))  # the command line names it
    # What may be in an engine at one time. alone: one shard, so the bytes depend on it alone, but the engine drains
    # after each; continuous: shards follow one another without a gap, and sums may round otherwise with the company;
    # invariant: so too, by vLLM's batch-invariant kernels, which are slower: the same bytes in any company. GPUs only.
    batching: str = ALONE
    entries: dict[str, Any] = field(default_factory=dict)  # further benchmarks, or changes to the shipped ones
    sample: SampleConfig = field(default_factory=SampleConfig)
    verifier: VerifierConfig = field(default_factory=lambda: VerifierConfig(model=""))
    verify: VerifyConfig = field(default_factory=lambda: VerifyConfig(mode="rule", audit_share=0.0))
    store: StoreConfig = field(default_factory=StoreConfig)
    cluster: EvalClusterConfig = field(default_factory=EvalClusterConfig)

    @property
    def run_dir(self) -> Path:
        return Path(self.run.dir) / self.run.name

    @property
    def roles(self) -> tuple[str, ...]:
        return ("evaluate",)
