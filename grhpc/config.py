"""Every setting of a run of GRPO, and what all kinds of runs share: once, with its default and its unit.

Does not know: files, what the settings do. Invariant: a Config is never changed; `config_file` reads and checks it.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol


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
class EndpointConfig:
    """An OpenAI-compatible server that judges, in the place of an engine in the verify task."""

    url: str = ""  # e.g. http://node7:8000/v1; empty: there is none
    model: str = ""  # the server's name for the judge; default: verifier.model
    api: str = "chat"  # chat (the template is one user turn) | completions (the template is the raw text)
    api_key_env: str = ""  # the NAME of the environment variable that holds the key; empty: the server asks for none
    concurrency: int = 32  # requests at a time, of one verify task
    requests_per_min: float | None = None  # of one verify task
    timeout_s: float = 120.0  # of one try, to its last byte; long responses at a high concurrency need e.g. 1800
    max_retries: int = 4  # further tries of a request, further and further apart
    max_tokens_name: str = "max_tokens"  # some services call it max_completion_tokens
    price_in: float = 0.0  # per million prompt tokens, for the count of costs
    price_out: float = 0.0  # per million new tokens


@dataclass(frozen=True)
class VerifierConfig:
    model: str = ""  # its tokenizer also counts the lengths in the reward, a judge elsewhere or not; none: the policy's
    dtype: str = "bfloat16"
    template: str = "general-verifier"  # general-verifier | chat | a file with {question} {reference} {answer}
    max_new_tokens: int = 2048
    max_input_tokens: int = 2048  # a longer question to it is no verdict
    max_attempts: int = 2  # asks for one decision before the group is dropped
    endpoint: EndpointConfig = field(default_factory=EndpointConfig)


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
    mode: str = "generative"  # generative (the paper) | hybrid (rules, then the judge) | rule (its baseline) | exact
    audit_share: float = 0.02  # hybrid: this share of what the rules settled is put to the judge too, and recorded
    engine: EngineConfig = field(default_factory=EngineConfig)

    @property
    def asks_a_model(self) -> bool:
        return self.mode in ("generative", "hybrid")


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
    every: int = 0  # versions between evaluations on benchmarks, each its own array of tasks; 0: never
    config: str = ""  # the configuration of those, e.g. configs/eval.yaml
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
    wait_s: float = 86400.0  # a job gives up, for a person to act, when it waited this long, over all its lives
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
    max_concurrent: int | None = None  # tasks of an array at one time; of the role, as far as docs/slurm.md says
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


class AnyCluster(Protocol):
    """The cluster section of any kind of run; beside this, a RoleConfig for each of its roles."""

    @property
    def executor(self) -> str: ...


class AnyConfig(Protocol):
    """What every kind of run has: enough to make its directory, to launch it and to show it."""

    @property
    def run(self) -> RunConfig: ...
    @property
    def store(self) -> StoreConfig: ...
    @property
    def cluster(self) -> AnyCluster: ...
    @property
    def run_dir(self) -> Path: ...
    @property
    def roles(self) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class Config:
    """A run of GRPO."""

    run: RunConfig
    policy: ModelConfig
    data: DataConfig
    train: TrainConfig
    verifier: VerifierConfig = field(default_factory=VerifierConfig)  # modes rule and exact need none
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
    def roles(self) -> tuple[str, ...]:
        return ("train", "rollout", "verify")

    @property
    def counted_by(self) -> str:
        """The model whose tokenizer counts the lengths in the reward."""
        return self.verifier.model or self.policy.model

    @property
    def max_in_flight(self) -> int:
        """The most groups that may be admitted and without a fate."""
        return (self.grpo.max_staleness + 1) * self.grpo.groups_per_step
