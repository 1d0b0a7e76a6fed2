"""Strict YAML to a typed configuration.

Every setting stands here once, with its default and its unit; a key that is not here is an error that names the nearest
one. `load` reads a person's file, or the resolved copy in a run directory, which is all that workers read.

Does not know: what the settings do. Invariant: a Config that exists has passed `check`.
"""

import dataclasses
import typing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from grhpc.errors import ConfigError
from grhpc.strict import apply_override, build, read_yaml


@dataclass(frozen=True)
class RunConfig:
    name: str
    dir: str = "runs"  # the run directory is dir/name, on the shared filesystem
    seed: int = 0


@dataclass(frozen=True)
class ModelConfig:
    model: str  # a Hugging Face id or a folder
    dtype: str = "bfloat16"  # bfloat16 | float32


@dataclass(frozen=True)
class VerifierConfig:
    model: str
    dtype: str = "bfloat16"
    template: str = "general-verifier"  # a name in answer/judge.py, or a file with {question} {reference} {answer}
    max_new_tokens: int = 2048
    max_input_tokens: int = 4096
    max_attempts: int = 2  # asks for one decision before the group is dropped


@dataclass(frozen=True)
class DataConfig:
    prepared: str  # folder that `prepare` writes and the run reads
    source: str = ""  # "tiny", a Hub id (id:configuration), a folder or a parquet/jsonl/json/csv file
    split: str = "train"
    heldout_source: str = ""
    heldout_split: str = "test"
    columns: dict[str, str] = field(default_factory=dict)  # our name -> theirs, e.g. {question: prompt}
    max_prompt_tokens: int = 1024  # longer prompts are left out, and counted
    instruction: str = "Please reason step by step, and put your final answer within \\boxed{}."
    limit: int | None = None  # keep only the first rows, for trials


@dataclass(frozen=True)
class EngineConfig:
    tensor_parallel: int = 1
    gpu_memory_utilization: float = 0.9
    kv_cache_mb: int | None = None  # fixed size of the KV cache in MiB; the CPU needs it
    max_model_tokens: int | None = None  # prompt + response; default: what the role needs
    max_num_seqs: int = 256
    enforce_eager: bool = False
    stall_s: float = 900.0  # without a token for this long the engine hangs: its process ends, its shard goes back
    extra: dict[str, Any] = field(default_factory=dict)  # further vLLM EngineArgs, by vLLM's names


@dataclass(frozen=True)
class RolloutConfig:
    group_size: int = 8
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    max_response_tokens: int = 4096
    groups_per_shard: int = 8
    engine: EngineConfig = field(default_factory=EngineConfig)


@dataclass(frozen=True)
class VerifyConfig:
    mode: str = "generative"  # generative (the paper) | rule (math-verify, its baseline) | exact
    engine: EngineConfig = field(default_factory=EngineConfig)


@dataclass(frozen=True)
class GrpoConfig:
    groups_per_step: int = 768
    updates_per_step: int = 4  # optimizer updates over one step's batch, each on its own part of it
    clip_low: float = 0.2
    clip_high: float = 0.2
    dual_clip: float = 10.0
    kl_coef: float = 0.0  # KL to the initial policy as a loss term (k3); 0 keeps no reference model
    entropy_coef: float = 0.0
    old_logprobs: str = "recompute"  # recompute (by the trainer, before the step's first update) | sampler
    importance_cap: float | None = 2.0  # truncated importance sampling, trainer/sampler; None: no correction
    zero_variance: str = "keep"  # keep | drop groups whose rewards are all equal
    max_staleness: int = 1  # weight versions; 0 is exact on-policy training


@dataclass(frozen=True)
class TrainConfig:
    steps: int
    lr: float = 5e-7
    warmup_steps: int = 0
    weight_decay: float = 0.01
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_eps: float = 1e-8
    grad_clip: float = 1.0
    micro_batch_size: int = 4  # sequences a micro-batch
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    sequence_parallel: bool = False
    recompute: bool = False  # full activation recomputation
    checkpoint_every: int = 20  # steps
    checkpoint_keep: int = 2
    checkpoint_margin_s: float = 120.0  # added to the measured save time before the allocation's end


@dataclass(frozen=True)
class EvaluateConfig:
    heldout_every: int = 0  # steps between greedy held-out evaluations by the run's own roles; 0: never
    heldout_prompts: int = 256
    oracle: str = ""  # "tiny": a strict oracle that measures, and never rewards


@dataclass(frozen=True)
class StoreConfig:
    lease_s: float = 600.0  # a shard without a heartbeat for this long goes back
    max_attempts: int = 5
    poll_min_s: float = 0.05
    poll_max_s: float = 10.0
    idle_s: float = 1800.0  # a rollout or verify task without work for this long ends
    wait_s: float = 86400.0  # the trainer gives up waiting for verdicts after this long
    archive_every: int = 50  # steps packed into one archive file
    keep_weights: int = 3  # published versions kept
    local_dir: str = ""  # node-local folder for weights; default: $SLURM_TMPDIR, $TMPDIR, /tmp


@dataclass(frozen=True)
class RoleConfig:
    """What one role asks of the cluster. `tasks` is the array size (rollout, verify; the trainer has one job)."""

    tasks: int = 1
    nodes: int = 1
    tasks_per_node: int = 1
    gpus_per_node: int = 0
    gres: str = ""  # instead of gpus_per_node, e.g. "gpu:h100:2"
    cpus_per_task: int = 1
    mem_gb: float | None = None
    time_min: int = 60
    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    exclude: str = ""
    signal_s: int = 120  # seconds before the end at which SLURM sends USR2
    max_concurrent: int | None = None  # array tasks at one time
    python: str = ""  # interpreter inside the job; default: the one that submits
    prefix: str = ""  # put before the interpreter, e.g. "apptainer exec --nv image.sif"
    setup: list[str] = field(default_factory=list)  # shell lines before the role starts
    env: dict[str, str] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)  # further sbatch options, e.g. {reservation: night}


@dataclass(frozen=True)
class ClusterConfig:
    executor: str = "slurm"  # slurm | local
    train: RoleConfig = field(default_factory=RoleConfig)
    rollout: RoleConfig = field(default_factory=RoleConfig)
    verify: RoleConfig = field(default_factory=RoleConfig)


@dataclass(frozen=True)
class Config:
    run: RunConfig
    policy: ModelConfig
    verifier: VerifierConfig
    data: DataConfig
    train: TrainConfig
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    verify: VerifyConfig = field(default_factory=VerifyConfig)
    grpo: GrpoConfig = field(default_factory=GrpoConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    store: StoreConfig = field(default_factory=StoreConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)

    @property
    def run_dir(self) -> Path:
        return Path(self.run.dir) / self.run.name

    @property
    def max_in_flight(self) -> int:
        """The most groups that may be admitted and without a fate."""
        return (self.grpo.max_staleness + 1) * self.grpo.groups_per_step


def load(path: Path | str, overrides: typing.Sequence[str] = ()) -> Config:
    """Read and check a YAML file; `overrides` are "section.key=value" with YAML values. Raises ConfigError."""
    tree = read_yaml(Path(path))
    for override in overrides:
        apply_override(tree, override)
    config = build(Config, tree, "")
    check(config)
    return config


def with_absolute_paths(config: Config) -> Config:
    """The same with every folder that exists here spelt absolutely, for jobs that may start elsewhere. Hub ids stay."""
    c = config
    return replace(
        c,
        run=replace(c.run, dir=str(Path(c.run.dir).absolute())),
        policy=replace(c.policy, model=_absolute(c.policy.model)),
        verifier=replace(c.verifier, model=_absolute(c.verifier.model), template=_absolute(c.verifier.template)),
        data=replace(c.data, prepared=str(Path(c.data.prepared).absolute())),
    )


def _absolute(path: str) -> str:
    return str(Path(path).absolute()) if Path(path).exists() else path


def dump(config: Any) -> str:
    """The configuration as YAML, every setting written out."""
    return yaml.safe_dump(dataclasses.asdict(config), sort_keys=False, allow_unicode=True)


def check(config: Config) -> None:
    """Refuse settings that contradict each other. Raises ConfigError."""
    c, problems = config, []
    for where, value, allowed in (
        ("policy.dtype", c.policy.dtype, ("bfloat16", "float32")),
        ("verifier.dtype", c.verifier.dtype, ("bfloat16", "float32")),
        ("verify.mode", c.verify.mode, ("generative", "rule", "exact")),
        ("grpo.old_logprobs", c.grpo.old_logprobs, ("recompute", "sampler")),
        ("grpo.zero_variance", c.grpo.zero_variance, ("keep", "drop")),
        ("cluster.executor", c.cluster.executor, ("slurm", "local")),
        ("evaluate.oracle", c.evaluate.oracle, ("", "tiny")),
    ):
        if value not in allowed:
            problems.append((f"{where} is {value!r}", f"choose one of: {', '.join(a or '(empty)' for a in allowed)}"))
    for where, number in (
        ("rollout.group_size", c.rollout.group_size - 1),
        ("rollout.groups_per_shard", c.rollout.groups_per_shard),
        ("grpo.groups_per_step", c.grpo.groups_per_step),
        ("grpo.updates_per_step", c.grpo.updates_per_step),
        ("train.steps", c.train.steps),
        ("train.micro_batch_size", c.train.micro_batch_size),
        ("train.checkpoint_every", c.train.checkpoint_every),
        ("store.lease_s", c.store.lease_s),
        ("rollout.temperature", c.rollout.temperature),
    ):
        if number <= 0:
            problems.append((f"{where} is too small", "give a larger value (group_size must be at least 2)"))
    problems += _divisibility(config)
    if problems:
        raise ConfigError(*problems[0])


def _divisibility(c: Config) -> list[tuple[str, str]]:
    """The arithmetic of parallel sizes: world = TP x PP x DP, and every update's share divides over DP."""
    world = c.cluster.train.nodes * c.cluster.train.tasks_per_node
    model_parallel = c.train.tensor_parallel * c.train.pipeline_parallel
    if world % model_parallel:
        return [
            (
                f"the trainer has {world} ranks, not a multiple of "
                f"tensor_parallel x pipeline_parallel = {model_parallel}",
                "change cluster.train.nodes x tasks_per_node, or the parallel sizes",
            )
        ]
    if c.grpo.groups_per_step % c.grpo.updates_per_step:
        return [
            (
                f"grpo.groups_per_step {c.grpo.groups_per_step} is not a multiple of "
                f"updates_per_step {c.grpo.updates_per_step}",
                "make every update use the same number of groups",
            )
        ]
    if c.train.sequence_parallel and c.train.tensor_parallel == 1:
        return [("train.sequence_parallel needs tensor_parallel > 1", "set it to false, or raise tensor_parallel")]
    return []
