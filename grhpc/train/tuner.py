"""One step of supervised fine-tuning: packed rows in, new weights and figures out, the same on every rank.

Does not know: where examples come from, which rows a step takes, checkpoints, when to stop.
Invariant: a step draws no random numbers, so weights after it are a function of weights before it and its rows.
"""

import time
from collections.abc import Sequence
from pathlib import Path

import torch

from grhpc.sft_config import SftConfig
from grhpc.train.learner import Learner, LearnerSettings
from grhpc.train.microbatch import MicroBatch, pack_row, plan
from grhpc.train.packing import Row
from grhpc.train.parallel import Parallel
from grhpc.train.sft import completion_loss, learning_rate
from grhpc.train.sft_data import Examples


class Tuner:
    """A model under fine-tuning. Every rank makes one and calls the same methods in the same order."""

    def __init__(self, config: SftConfig, model_dir: Path) -> None:
        self._config, train = config, config.train
        self._parallel = Parallel(train.tensor_parallel, train.pipeline_parallel, seed=config.run.seed)
        try:
            self.learner = Learner(model_dir, self._parallel, LearnerSettings.of(train, config.model.dtype))
        except BaseException:
            self._parallel.close()
            raise

    def step(self, examples: Examples, rows: Sequence[Row], step: int) -> dict[str, float]:
        """Train on packed rows; `step` counts from 1. loss is the mean over completion tokens; padding the share of
        the rows' room that nothing fills; refused is 1 where the gradient was not finite, which changed nothing."""
        begin_s = time.monotonic()
        lr = learning_rate(step - 1, self._config.train)
        update = self.learner.update(self._micro_batches(examples, rows), completion_loss, 2, lr)
        tokens = int(sum(examples.lengths[list(row)].sum() for row in rows))
        seconds = time.monotonic() - begin_s
        return {
            "loss": update.sums[0] / max(1, update.num_tokens),
            "grad_norm": update.grad_norm,
            "lr": lr,
            "refused": float(not update.applied),
            "examples": sum(len(row) for row in rows),
            "tokens": tokens,
            "completion_tokens": update.num_tokens,
            "padding": 1 - tokens / (len(rows) * self._config.data.max_tokens),
            "tokens_per_s": tokens / seconds,
            "train_s": seconds,
        }

    def measure(self, examples: Examples, rows: Sequence[Row]) -> float:
        """The mean loss over the completion tokens of the rows, on every rank."""
        totals = torch.zeros(2, dtype=torch.float64)

        def read(logprobs: torch.Tensor, entropy: torch.Tensor, micro_batch: MicroBatch) -> None:
            totals.add_(completion_loss(logprobs, entropy, micro_batch)[1].double().cpu())

        self.learner.read(self._micro_batches(examples, rows), read)
        mine = totals.tolist() if self._parallel.speaks_for_replica else [0.0, 0.0]
        loss, tokens = self._parallel.sum(mine)
        return loss / max(1.0, tokens)

    def close(self) -> None:
        self._parallel.close()

    def _micro_batches(self, examples: Examples, rows: Sequence[Row]) -> list[MicroBatch]:
        """This replica's rows, each a micro-batch; a replica with a row less gets an empty one."""
        parallel, lengths = self._parallel, [int(examples.lengths[list(row)].sum()) for row in rows]
        made = []
        for numbers in plan(lengths, 1, parallel.data_size)[parallel.data_rank]:
            chosen = [i for number in numbers for i in rows[number]]
            token_ids = {i: examples[i] for i in chosen}
            multiple, device = self.learner.pad_multiple, parallel.device
            made.append(pack_row(chosen, token_ids, examples.prompt_lengths, multiple=multiple, device=device))
        return made
