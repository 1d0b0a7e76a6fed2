"""Supervised fine-tuning: prompt and completion pairs -> a model folder that continues prompts with such completions.

Only completion tokens count; each may carry a weight. The same learner, layouts and weight map as GRPO training; one
process or many.

    python -m grhpc.train.sft --model DIR --data pairs.jsonl --out DIR --steps 500 --lr 1e-4

Does not know: where pairs come from, what they teach. Invariant: same inputs, same layout: same weights, bit for bit.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from grhpc.errors import ConfigError, DataError, GrhpcError
from grhpc.sft_config import SftTrainConfig
from grhpc.train.learner import Learner, LearnerSettings
from grhpc.train.microbatch import MicroBatch
from grhpc.train.parallel import Parallel


@dataclass(frozen=True)
class Example:
    """One pair. `token_ids` is prompt and completion; `weights`, where given, is one factor a completion token."""

    token_ids: list[int]
    prompt_length: int
    weights: list[float] | None = None


@dataclass(frozen=True)
class SftSettings:
    """`batch_size` sequences a step; `schedule` is "cosine" (to `min_lr`) or "constant", both after the warm-up."""

    steps: int
    lr: float
    batch_size: int = 64
    micro_batch_size: int = 16
    schedule: str = "cosine"
    warmup_steps: int = 0
    min_lr: float = 0.0
    weight_decay: float = 0.01
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_eps: float = 1e-8
    grad_clip: float = 1.0
    dtype: str = "float32"
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    sequence_parallel: bool = False
    recompute: bool = False
    seed: int = 0


@dataclass(frozen=True)
class SftStep:
    """What one step did; `loss` is the mean over completion tokens (weighted, where weights are given)."""

    step: int
    loss: float
    grad_norm: float
    lr: float
    tokens: int
    seconds: float


def learning_rate(step: int, settings: SftSettings | SftTrainConfig) -> float:
    """The rate of `step`, counted from 0; the warm-up's first step is already above zero."""
    if step < settings.warmup_steps:
        return settings.lr * (step + 1) / settings.warmup_steps
    if settings.schedule == "constant":
        return settings.lr
    done = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    return settings.min_lr + (settings.lr - settings.min_lr) * 0.5 * (1 + math.cos(math.pi * done))


def sft(
    model_dir: Path,
    out_dir: Path,
    batch_of: Callable[[int], Sequence[Example]],
    settings: SftSettings,
    *,
    report: Callable[[SftStep], None] = lambda _step: None,
) -> list[SftStep]:
    """Train `model_dir` on batch_of(0) .. batch_of(steps - 1); write the result to `out_dir`, which holds no model yet.

    Every rank calls with the same arguments, and `batch_of` must give every rank the same examples. `report` is called
    on rank 0. Raises ConfigError and DataError.
    """
    if settings.schedule not in ("cosine", "constant"):
        raise ConfigError(f"the schedule is {settings.schedule!r}", "choose one of: cosine, constant")
    if (out_dir / "config.json").exists():
        raise DataError(f"{out_dir} already holds a model", "name another folder, or remove it")
    parallel = Parallel(settings.tensor_parallel, settings.pipeline_parallel, seed=settings.seed)
    try:
        learner = Learner(model_dir, parallel, LearnerSettings.of(settings, settings.dtype))
        steps = []
        for number in range(settings.steps):
            steps.append(_step(learner, batch_of(number), number, settings))
            if parallel.is_main:
                report(steps[-1])
        if not learner.all_finite():
            raise DataError("the trained weights are not finite", "lower the learning rate")
        out_dir.mkdir(parents=True, exist_ok=True)
        learner.write_weights(out_dir, model_dir)
        return steps
    finally:
        parallel.close()


def shuffled_batches(examples: Sequence[Example], batch_size: int, seed: int) -> Callable[[int], list[Example]]:
    """`batch_of` for `sft`: endless epochs over `examples`, each in an order of its own, drawn from `seed`."""
    if not examples:
        raise DataError("there are no examples to train on", "give at least one pair")

    def batch_of(step: int) -> list[Example]:
        chosen = []
        for position in range(step * batch_size, (step + 1) * batch_size):
            epoch, place = divmod(position, len(examples))
            if epoch not in orders:
                orders.clear()
                orders[epoch] = np.random.default_rng([seed, epoch]).permutation(len(examples))
            chosen.append(examples[int(orders[epoch][place])])
        return chosen

    orders: dict[int, np.ndarray] = {}
    return batch_of


def _step(learner: Learner, examples: Sequence[Example], number: int, settings: SftSettings) -> SftStep:
    start = time.monotonic()
    lr = learning_rate(number, settings)
    update = learner.update(_micro_batches(learner, examples, settings), completion_loss, 2, lr)
    loss, tokens = update.sums
    return SftStep(
        step=number,
        loss=loss / max(1.0, tokens),
        grad_norm=update.grad_norm,
        lr=lr,
        tokens=round(tokens),
        seconds=time.monotonic() - start,
    )


def _micro_batches(learner: Learner, examples: Sequence[Example], settings: SftSettings) -> list[MicroBatch]:
    token_ids = [np.asarray(example.token_ids, dtype=np.int64) for example in examples]
    prompts = [example.prompt_length for example in examples]
    weights = []
    for example in examples:
        length = len(example.token_ids) - example.prompt_length
        if example.prompt_length < 1 or length < 1 or len(example.weights or [1.0] * length) != length:
            raise DataError(
                "an example has an empty prompt or completion, or not one weight a completion token", "mend the pairs"
            )
        weights.append(np.asarray(example.weights or [1.0] * length, dtype=np.float32))
    return learner.micro_batches(token_ids, prompts, {"weights": weights}, settings.micro_batch_size)


def completion_loss(
    logprobs: torch.Tensor, _entropy: torch.Tensor, micro_batch: MicroBatch
) -> tuple[torch.Tensor, torch.Tensor]:
    """Minus the log-probability of the completion tokens, weighted where weights are given; sums: itself, tokens."""
    total = -(logprobs * micro_batch.mask * micro_batch.columns.get("weights", 1.0)).sum()
    return total, torch.stack([total.detach(), micro_batch.mask.sum()])


def read_pairs(path: Path, model_dir: Path) -> list[Example]:
    """Pairs from a JSON-lines file with the texts `prompt` and `completion`; the end-of-text token is added.

    Raises DataError naming the line that is wrong.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    examples = []
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}", "name a JSON-lines file") from None
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            prompt, completion = tokenizer.encode(row["prompt"]), tokenizer.encode(row["completion"])
        except (ValueError, KeyError, TypeError):
            raise DataError(
                f"{path} line {number} is not an object with prompt and completion", "mend the line"
            ) from None
        examples.append(Example([*prompt, *completion, tokenizer.eos_token_id], len(prompt)))
    return examples


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="sft", description="Supervised fine-tuning on prompt and completion pairs.")
    parser.add_argument("--model", type=Path, required=True, help="the model folder to start from")
    parser.add_argument("--data", type=Path, required=True, help="JSON lines with the texts prompt and completion")
    parser.add_argument("--out", type=Path, required=True, help="the model folder to write")
    for name, kind in (("steps", int), ("lr", float)):
        parser.add_argument(f"--{name}", type=kind, required=True)
    defaults = SftSettings(steps=1, lr=0.0)
    for name in ("batch_size", "micro_batch_size", "warmup_steps", "tensor_parallel", "pipeline_parallel", "seed"):
        parser.add_argument("--" + name.replace("_", "-"), type=int, default=getattr(defaults, name))
    for name in ("min_lr", "weight_decay", "adam_beta1", "adam_beta2", "grad_clip"):
        parser.add_argument("--" + name.replace("_", "-"), type=float, default=getattr(defaults, name))
    parser.add_argument("--schedule", choices=("cosine", "constant"), default=defaults.schedule)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default=defaults.dtype)
    given = vars(parser.parse_args(arguments))
    model, data, out = given.pop("model"), given.pop("data"), given.pop("out")
    settings = SftSettings(**given)
    try:
        for path, option in ((model / "config.json", "--model"), (data, "--data")):
            if not path.is_file():
                raise DataError(f"no such file: {path}", f"mend {option}")
        batch_of = shuffled_batches(read_pairs(data, model), settings.batch_size, settings.seed)
        sft(model, out, batch_of, settings, report=_print_step)
    except GrhpcError as error:
        print(f"error: {error.problem}\n  do: {error.remedy}", file=sys.stderr)
        return 2
    return 0


def _print_step(step: SftStep) -> None:
    print(
        f"step {step.step}  loss {step.loss:.4f}  grad norm {step.grad_norm:.3f}  lr {step.lr:.2e}  "
        f"{step.tokens} tokens in {step.seconds:.2f} s",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
