"""Configurations and random batches for the trainer's tests."""

from pathlib import Path

import numpy as np
from grpo_reference import all_logprobs, load
from tiny_models import VOCAB

from grhpc.config import (
    Config,
    DataConfig,
    GrpoConfig,
    ModelConfig,
    RolloutConfig,
    RunConfig,
    TrainConfig,
    VerifierConfig,
)
from grhpc.grpo.advantage import group_advantages
from grhpc.grpo.batch import Batch


def make_config(dtype: str = "float32", train: dict | None = None, grpo: dict | None = None) -> Config:
    """A configuration in which every term of the loss matters."""
    return Config(
        run=RunConfig(name="test"),
        policy=ModelConfig(model="policy", dtype=dtype),
        verifier=VerifierConfig(model="verifier"),
        data=DataConfig(prepared="prepared"),
        rollout=RolloutConfig(group_size=3, temperature=0.8),
        train=TrainConfig(
            **{"steps": 9, "lr": 1e-3, "micro_batch_size": 4, "warmup_steps": 2, "weight_decay": 0.1, **(train or {})}
        ),
        grpo=GrpoConfig(
            **{
                "groups_per_step": 7,
                "updates_per_step": 2,
                "clip_high": 0.3,
                "kl_coef": 0.05,
                "entropy_coef": 0.01,
                **(grpo or {}),
            }
        ),
    )


def make_batch(model_dir: Path, seed: int, num_groups: int = 7, group_size: int = 3) -> Batch:
    """Random rollouts whose sampler log-probabilities lie near the model's own, as a real sampler's do."""
    random = np.random.default_rng(seed)
    num = num_groups * group_size
    prompts, responses = random.integers(2, 9, num), random.integers(1, 20, num)
    batch = Batch(
        token_ids=[random.integers(0, VOCAB, p + r) for p, r in zip(prompts, responses, strict=True)],
        prompt_lengths=prompts,
        sampler_logprobs=[np.zeros(r, dtype=np.float32) for r in responses],
        advantages=np.concatenate([group_advantages(random.random(group_size)) for _ in range(num_groups)]).astype(
            "f4"
        ),
        groups=np.repeat(np.arange(num_groups) + 10 * seed, group_size),
        staleness=np.zeros(num, dtype=np.int64),
    )
    own = all_logprobs(load(model_dir), batch, temperature=0.8)
    batch.sampler_logprobs[:] = [(o + 0.3 * random.normal(size=len(o))).astype(np.float32) for o in own]
    return batch
