"""A run of six small steps for tests of the trainer's loop: a random policy, prepared prompts, a run directory."""

from pathlib import Path

from feeder import VOCABULARY

from grhpc.config import (
    Config,
    DataConfig,
    EvaluateConfig,
    GrpoConfig,
    ModelConfig,
    RolloutConfig,
    RunConfig,
    StoreConfig,
    TrainConfig,
    VerifierConfig,
)
from grhpc.records import Prompt
from grhpc.store.atomic import write_json
from grhpc.store.rundir import RunDir
from grhpc.store.shard import write_shard

STEPS, GROUPS, SIZE = 6, 4, 4


def make_policy(folder: Path) -> Path:
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=64,
        tie_word_embeddings=True,
    )
    transformers.Qwen3ForCausalLM(config).float().save_pretrained(folder)
    return folder


def make_prepared(folder: Path) -> Path:
    for split, count in (("train", 20), ("heldout", 5)):
        rows = [
            Prompt(
                prompt_id=f"{split}{i}",
                question=f"q{i}",
                answer="1",
                answer_type="Integer",
                category="Mathematics",
                difficulty="",
                token_ids=[2 + i, 30, 31],
            )
            for i in range(count)
        ]
        folder.mkdir(parents=True, exist_ok=True)
        write_shard(folder / f"{split}.parquet", rows, run_id="prepared")
    write_json(folder / "manifest.json", {"prompts": {"train": 20, "heldout": 5}, "settings": {}})
    return folder


def make_run(base: Path, root: Path, **store: object) -> RunDir:
    config = Config(
        run=RunConfig(name="test", seed=5),
        policy=ModelConfig(model=str(base / "policy"), dtype="float32"),
        verifier=VerifierConfig(model="none"),
        data=DataConfig(prepared=str(base / "prepared")),
        rollout=RolloutConfig(group_size=SIZE, groups_per_shard=2),
        grpo=GrpoConfig(groups_per_step=GROUPS, updates_per_step=2, max_staleness=0, kl_coef=0.01),
        train=TrainConfig(steps=STEPS, lr=1e-3, checkpoint_every=2, checkpoint_margin_s=0.0),
        evaluate=EvaluateConfig(heldout_every=3, heldout_prompts=5),
        store=StoreConfig(**{"poll_min_s": 0.005, "poll_max_s": 0.05, "archive_every": 2, **store}),  # type: ignore[arg-type]
    )
    return RunDir.create(root, config)
