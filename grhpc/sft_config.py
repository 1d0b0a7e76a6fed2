"""Every setting of a run of supervised fine-tuning.

Does not know: files, what the settings do. Invariant: a configuration is never changed; `config_file` reads and checks
it.
"""

from dataclasses import dataclass, field
from pathlib import Path

from grhpc.config import ClusterConfig, ModelConfig, RunConfig, StoreConfig


@dataclass(frozen=True)
class SftDataConfig:
    source: str  # "tiny", a Hub id (id:configuration), a folder or a parquet/jsonl/json/csv file
    prepared: str  # folder that the preparation writes and the run reads
    split: str = "train"
    heldout_source: str = ""  # rows to measure on; empty: `heldout_share` of the source's questions
    heldout_split: str = "test"
    heldout_share: float = 0.01
    columns: dict[str, str] = field(default_factory=dict)  # our name -> theirs, e.g. {verification: explanation}
    template: str = "general-verifier"  # what the judge will be asked with; a file, or a name as verifier.template
    max_tokens: int = 4096  # of a row, into which several examples are packed; a longer one is left out, and counted
    limit: int | None = None  # keep only the first rows, for trials


@dataclass(frozen=True)
class SftTrainConfig:
    """As TrainConfig, where the names are the same. A micro-batch is one row of data.max_tokens."""

    epochs: float = 1.0
    steps: int = 0  # 0: as many as the epochs need; the run's own copy of the configuration has the number
    rows_per_step: int = 64
    lr: float = 1e-5
    min_lr: float = 0.0
    schedule: str = "cosine"  # cosine (to min_lr) | constant, both after the warm-up
    warmup_steps: int = 0
    weight_decay: float = 0.0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_eps: float = 1e-8
    grad_clip: float = 1.0
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    sequence_parallel: bool = False
    recompute: bool = False
    heldout_every: int = 50  # steps between measurements of the held-out loss; 0: at the end only
    checkpoint_every: int = 100
    checkpoint_keep: int = 2
    checkpoint_margin_s: float = 120.0


@dataclass(frozen=True)
class SftConfig:
    """A run of supervised fine-tuning: one job, on `cluster.train`'s resources."""

    run: RunConfig
    model: ModelConfig  # what it starts from
    data: SftDataConfig
    train: SftTrainConfig = field(default_factory=SftTrainConfig)
    store: StoreConfig = field(default_factory=StoreConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)

    @property
    def run_dir(self) -> Path:
        return Path(self.run.dir) / self.run.name

    @property
    def roles(self) -> tuple[str, ...]:
        return ("sft",)
