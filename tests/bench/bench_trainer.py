"""Seconds a step of supervised fine-tuning and of GRPO, beside a plain transformers loop over the same sequences.

Prints one line of JSON. One process, one thread, float32; the model is of the tiny world's size.
"""

import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import transformers

from grhpc.config import Config, DataConfig, GrpoConfig, ModelConfig, RunConfig, TrainConfig, VerifierConfig
from grhpc.grpo.batch import Batch
from grhpc.train.sft import Example, SftSettings, sft
from grhpc.train.step import Trainer

VOCAB, STEPS = 512, 6


def make_model(folder: Path) -> transformers.PreTrainedModel:
    torch.manual_seed(0)
    config = transformers.Qwen3Config(
        vocab_size=VOCAB,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        tie_word_embeddings=True,
        max_position_embeddings=512,
    )
    model = transformers.Qwen3ForCausalLM(config).float()
    model.save_pretrained(folder)
    return model


def time_plain(model: transformers.PreTrainedModel, examples: list[Example]) -> float:
    adam = torch.optim.AdamW(model.parameters(), lr=1e-4)
    longest = max(len(e.token_ids) for e in examples)
    ids = torch.zeros(len(examples), longest, dtype=torch.long)
    labels = torch.full_like(ids, -100)
    for row, e in enumerate(examples):
        ids[row, : len(e.token_ids)] = torch.tensor(e.token_ids)
        labels[row, e.prompt_length : len(e.token_ids)] = ids[row, e.prompt_length : len(e.token_ids)]
    times = []
    for _ in range(STEPS):
        start = time.perf_counter()
        logits = model(ids).logits[:, :-1]
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        adam.zero_grad()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def time_grpo(folder: Path, random: np.random.Generator, updates: int) -> float:
    prompts, responses = random.integers(15, 25, 256), random.integers(10, 25, 256)
    batch = Batch(
        token_ids=[random.integers(0, VOCAB, p + r) for p, r in zip(prompts, responses, strict=True)],
        prompt_lengths=prompts,
        sampler_logprobs=[np.full(r, -6.0, dtype=np.float32) for r in responses],
        advantages=random.normal(size=256).astype(np.float32),
        groups=np.repeat(np.arange(32), 8),
        staleness=np.zeros(256, dtype=np.int64),
    )
    config = Config(
        run=RunConfig(name="bench"),
        policy=ModelConfig(model=str(folder), dtype="float32"),
        verifier=VerifierConfig(model=""),
        data=DataConfig(prepared=""),
        train=TrainConfig(steps=STEPS, lr=1e-5, micro_batch_size=64),
        grpo=GrpoConfig(groups_per_step=32, updates_per_step=updates),
    )
    trainer = Trainer(config, folder)
    times = []
    for step in range(1, STEPS + 1):
        start = time.perf_counter()
        trainer.step(batch, step)
        times.append(time.perf_counter() - start)
    trainer.close()
    return statistics.median(times[1:])


def main() -> None:
    torch.set_num_threads(1)
    random = np.random.default_rng(0)
    examples = [Example(random.integers(0, VOCAB, int(random.integers(50, 70))).tolist(), 20) for _ in range(64)]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        model = make_model(folder)
        settings = SftSettings(steps=STEPS, lr=1e-4, micro_batch_size=64, schedule="constant")
        steps = sft(folder, Path(scratch) / "out", lambda _step: examples, settings)
        figures = {
            "bench": "trainer",
            "sft_64_sequences_s": statistics.median(step.seconds for step in steps[1:]),
            "plain_transformers_64_sequences_s": time_plain(model, examples),
            "grpo_256_rollouts_one_update_s": time_grpo(folder, random, updates=1),
            "grpo_256_rollouts_four_updates_s": time_grpo(folder, random, updates=4),
        }
    print(json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in figures.items()}))


if __name__ == "__main__":
    main()
