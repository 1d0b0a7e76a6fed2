"""What the ranks of the pool are asked to do. Every function runs in all ranks of a world at once."""

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from megatron.core.dist_checkpointing.strategies import filesystem_async
from memory import PeakMemory

from grhpc.config import Config
from grhpc.errors import ConfigError, StoreError
from grhpc.grpo.batch import Batch, Floats
from grhpc.sft_config import SftConfig
from grhpc.train import checkpoint, mcore_fixes
from grhpc.train.logprobs import logprobs_and_entropy
from grhpc.train.microbatch import MicroBatch
from grhpc.train.packing import Row
from grhpc.train.parallel import Parallel
from grhpc.train.sft import Example, SftSettings, sft
from grhpc.train.sft_data import Examples
from grhpc.train.step import Trainer
from grhpc.train.tuner import Tuner


def probed(trainer: Trainer, batch: Batch) -> list[Floats]:
    """The current policy's log-probability of every response token, rollout by rollout, on every rank."""
    found: dict[int, Floats] = {}

    def read(logprobs: torch.Tensor, _entropy: torch.Tensor, micro_batch: MicroBatch) -> None:
        for row, i in enumerate(micro_batch.rows):
            found[i] = logprobs[row][micro_batch.mask[row] > 0].cpu().numpy()

    trainer.learner.read(trainer._micro_batches(batch), read)
    everything = {i: values for part in trainer.learner.parallel.gather(found) for i, values in part.items()}
    return [everything[i] for i in range(len(batch))]


def train(config: Config, model_dir: Path, batches: list[Batch], probe: Batch, out_dir: Path | None = None) -> Any:
    """Train on the batches; figures of each step, log-probabilities on the probe before and after."""
    trainer = Trainer(config, model_dir)
    try:
        before = probed(trainer, probe)
        figures = [trainer.step(batch, step) for step, batch in enumerate(batches, start=1)]
        if out_dir is not None:
            trainer.write_weights(out_dir)
        return {"before": before, "figures": figures, "after": probed(trainer, probe), "finite": trainer.all_finite()}
    finally:
        trainer.close()


def export(config: Config, model_dir: Path, out_dir: Path) -> dict[str, dict[str, Any]]:
    """Load a model folder and write it again; what the ranks say of the weight files that they wrote."""
    trainer = Trainer(config, model_dir)
    try:
        return trainer.write_weights(out_dir)
    finally:
        trainer.close()


def save_midway(config: Config, model_dir: Path, batches: list[Batch], probe: Batch, folder: Path, at: int) -> Any:
    """Train on the batches, saving a checkpoint after `at` of them; figures after it, log-probabilities at the end."""
    trainer = Trainer(config, model_dir)
    try:
        figures = []
        for step, batch in enumerate(batches, start=1):
            figures.append(trainer.step(batch, step))
            if step == at:
                checkpoint.save_checkpoint(trainer.learner, folder, {"step": step})
        return {"figures": figures[at:], "after": probed(trainer, probe)}
    finally:
        trainer.close()


def resume(config: Config, model_dir: Path, batches: list[Batch], probe: Batch, folder: Path) -> Any:
    """Load a checkpoint and train on the batches that follow it."""
    trainer = Trainer(config, model_dir)
    try:
        extra = checkpoint.load_checkpoint(trainer.learner, folder)
        start = extra["step"]
        figures = [trainer.step(batch, step) for step, batch in enumerate(batches[start:], start=start + 1)]
        return {"figures": figures, "after": probed(trainer, probe), "extra": extra}
    finally:
        trainer.close()


def fine_tune(
    model_dir: Path, out_dir: Path, examples: list[Example], settings: SftSettings
) -> list[tuple[float, float]]:
    """Supervised fine-tuning on the same examples each step; loss and gradient norm of each."""
    steps = sft(model_dir, out_dir, lambda _step: examples, settings)
    return [(step.loss, step.grad_norm) for step in steps]


def tune(config: SftConfig, model_dir: Path, examples: Examples, rows: list[list[Row]], out_dir: Path) -> Any:
    """Packed fine-tuning, one step for each list of rows; figures, held-out losses before and after, weights."""
    tuner = Tuner(config, model_dir)
    try:
        before = tuner.measure(examples, rows[0])
        figures = [tuner.step(examples, chosen, step) for step, chosen in enumerate(rows, start=1)]
        tuner.learner.write_weights(out_dir, model_dir)
        return figures, before, tuner.measure(examples, rows[0])
    finally:
        tuner.close()


def concatenated(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(arrays) if arrays else np.zeros(0)


def refusal(config: Config, model_dir: Path) -> str:
    """The words with which a Trainer is refused."""
    try:
        Trainer(config, model_dir).close()
    except ConfigError as error:
        return str(error)
    return "it was not refused"


def break_last_weight(config: Config, model_dir: Path) -> tuple[bool, bool]:
    """Whether all weights are finite, before and after one weight of the last rank is not."""
    trainer = Trainer(config, model_dir)
    try:
        before = trainer.all_finite()
        if trainer.learner.parallel.rank == trainer.learner.parallel.world_size - 1:
            next(trainer.learner.model.parameters()).data.view(-1)[-1] = float("nan")
        return before, trainer.all_finite()
    finally:
        trainer.close()


def logprobs_of(
    hidden: np.ndarray,
    weight: np.ndarray,
    targets: np.ndarray,
    slopes: np.ndarray,
    settings: dict[str, Any],
) -> Any:
    """Log-probabilities, entropies, and the gradients of this rank's hidden states and rows of the output layer."""
    parallel = Parallel(tensor=int(os.environ["WORLD_SIZE"]))
    try:
        states, rows = torch.from_numpy(hidden), torch.from_numpy(weight).chunk(parallel.tensor_size)
        if settings.get("sequence_parallel"):
            states = states.chunk(parallel.tensor_size)[parallel.tensor_rank].clone()
        states, mine = states.requires_grad_(), rows[parallel.tensor_rank].clone().requires_grad_()
        found = logprobs_and_entropy(states, mine, torch.from_numpy(targets), **settings)
        (torch.stack(found) * torch.from_numpy(slopes)).sum().backward()
        return found[0].detach().numpy(), found[1].detach().numpy(), states.grad.numpy(), mine.grad.numpy()
    finally:
        parallel.close()


def save_only(config: Config, model_dir: Path, folder: Path) -> str:
    """Save a fresh model; the words of the refusal, or "" where it worked."""
    trainer = Trainer(config, model_dir)
    try:
        checkpoint.save_checkpoint(trainer.learner, folder, {})
        return ""
    except StoreError as error:
        return str(error)
    finally:
        trainer.close()


def peaks_of_saving_and_loading(config: Config, model_dir: Path, folder: Path) -> dict[str, int]:
    """What a rank's tensors took at most while it saved a fresh model, and while it loaded it; its parameters."""
    trainer = Trainer(config, model_dir)
    try:
        for optimizer in getattr(trainer.learner.optimizer, "chained_optimizers", [trainer.learner.optimizer]):
            mcore_fixes.prepare_adam(optimizer)
        with PeakMemory() as saving:
            checkpoint.save_checkpoint(trainer.learner, folder, {})
        with PeakMemory() as loading:
            checkpoint.load_checkpoint(trainer.learner, folder)
        parameters = sum(p.numel() for p in trainer.learner.model.parameters())
        return {"saving": saving.peak, "loading": loading.peak, "parameters": parameters}
    finally:
        trainer.close()


def save_without_space(config: Config, model_dir: Path, folder: Path) -> str:
    """`save_only` where the last rank's disk is full."""

    def full(*_args: Any, **_kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    last = int(os.environ["RANK"]) == int(os.environ["WORLD_SIZE"]) - 1
    whole = filesystem_async._write_item
    filesystem_async._write_item = full if last else whole
    try:
        return save_only(config, model_dir, folder)
    finally:
        filesystem_async._write_item = whole


def save_unseen(config: Config, model_dir: Path, folder: Path) -> str:
    """`save_only` where no machine's listing shows yet what the ranks on other machines wrote."""
    mine = int(os.environ["RANK"])
    listing = checkpoint.list_files

    def old_listing(directory: Path) -> list[str]:
        return [name for name in listing(directory) if name.startswith(f"__{mine}_") or not name.startswith("__")]

    checkpoint.list_files = old_listing
    try:
        return save_only(config, model_dir, folder)
    finally:
        checkpoint.list_files = listing


def wait_for_rank_0(config: Config, model_dir: Path) -> None:
    """Rank 0 dies without a word while the others wait for its word, as they do for hours in a run."""
    trainer = Trainer(config, model_dir)
    if trainer.is_main:
        os._exit(1)
    trainer.broadcast(None)
