"""One step of GRPO: batch in, new weights and figures out, the same on every rank.

    cut the batch into `updates_per_step` parts of whole groups
    before the first update: the trainer's own log-probabilities, and the initial policy's where there is a KL term
    for each part: one optimizer update on the token mean of the loss

Does not know: queues, the ledger, when to publish or to stop.
Invariant: a step draws no random numbers, so weights after it are a function of weights before it and the batch.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from grhpc.config import Config, TrainConfig
from grhpc.grpo.batch import Batch, Floats, split_updates
from grhpc.grpo.loss import SUMS, TokenInputs, grpo_loss
from grhpc.train.learner import Learner, LearnerSettings, Update
from grhpc.train.microbatch import MicroBatch
from grhpc.train.model import HeadlessModel
from grhpc.train.parallel import Parallel

OLD, REFERENCE, SAMPLER, ADVANTAGES = "old", "reference", "sampler", "advantages"
_CONTROL_MARGIN_S = 600.0  # the control group waits this much longer than rank 0 itself does


class Trainer:
    """The policy under GRPO. Every rank makes one and calls the same methods in the same order.

    `model_dir` is the Hugging Face folder that the run starts from, and the reference of the KL term.
    """

    def __init__(self, config: Config, model_dir: Path) -> None:
        self._config, self._model_dir = config, model_dir
        train = config.train
        self._parallel = Parallel(
            train.tensor_parallel,
            train.pipeline_parallel,
            seed=config.run.seed,
            patience_s=config.store.wait_s + _CONTROL_MARGIN_S,
        )
        try:
            settings = LearnerSettings.of(train, config.policy.dtype, config.rollout.temperature)
            self.learner = Learner(model_dir, self._parallel, settings)
            self._reference: HeadlessModel | None = None
            if config.grpo.kl_coef:
                self._reference = self.learner.load_model(model_dir)
        except BaseException:
            self._parallel.close()
            raise

    @property
    def is_main(self) -> bool:
        return self._parallel.is_main

    def broadcast(self, value: Any) -> Any:
        """Rank 0's value on every rank; waits as long as rank 0 may wait for verdicts."""
        return self._parallel.broadcast(value)

    def step(self, batch: Batch, step: int) -> dict[str, float]:
        """Train on one batch; `step` counts from 1 and sets the learning rate. Returns the same figures on every rank.

        loss, policy_loss, kl (to the initial policy), entropy (nats), clip_fraction, dual_clip_fraction, importance
        (mean truncated weight) and sampler_gap (mean sampler minus trainer log-probability) are token means;
        grad_norm is the mean over updates, grad_norm_max the largest; refused_updates counts those whose gradient
        was not finite, which changed nothing.
        """
        parts = [self._micro_batches(part) for part in split_updates(batch, self._config.grpo.updates_per_step)]
        self._fill_columns(parts)
        lr = learning_rate(step, self._config.train)
        updates = [self.learner.update(part, self._loss, len(SUMS), lr) for part in parts]
        return _figures(updates, lr)

    def all_finite(self) -> bool:
        """Whether every weight of every rank is a number."""
        return self.learner.all_finite()

    def write_weights(self, folder: Path) -> dict[str, dict[str, Any]]:
        """Write the policy as a Hugging Face folder; every rank writes and describes its shard, all must call."""
        return self.learner.write_weights(folder, self._model_dir)

    def close(self) -> None:
        self._parallel.close()

    def _micro_batches(self, batch: Batch) -> list[MicroBatch]:
        columns: dict[str, Sequence[Floats]] = {
            SAMPLER: batch.sampler_logprobs,
            ADVANTAGES: [
                np.full(len(logprobs), advantage, dtype=np.float32)
                for logprobs, advantage in zip(batch.sampler_logprobs, batch.advantages, strict=True)
            ],
        }
        size = self._config.train.micro_batch_size
        return self.learner.micro_batches(batch.token_ids, batch.prompt_lengths, columns, size)

    def _fill_columns(self, parts: list[list[MicroBatch]]) -> None:
        """The log-probabilities that stay fixed during the step, on the ranks that compute the loss."""
        models: dict[str, HeadlessModel | None] = {}
        # With a single update the old log-probabilities are those of the update's own forward pass.
        if self._config.grpo.old_logprobs == "recompute" and len(parts) > 1:
            models[OLD] = None
        if self._reference is not None:
            models[REFERENCE] = self._reference
        for column, model in models.items():

            def read(logprobs: torch.Tensor, _: torch.Tensor, micro_batch: MicroBatch, column: str = column) -> None:
                micro_batch.columns[column] = logprobs

            for part in parts:
                self.learner.read(part, read, model)

    def _loss(
        self, logprobs: torch.Tensor, entropy: torch.Tensor, micro_batch: MicroBatch
    ) -> tuple[torch.Tensor, torch.Tensor]:
        columns = micro_batch.columns
        recompute = self._config.grpo.old_logprobs == "recompute"
        inputs = TokenInputs(
            old=columns.get(OLD, logprobs.detach()) if recompute else columns[SAMPLER],
            sampler=columns[SAMPLER],
            reference=columns.get(REFERENCE),
            advantages=columns[ADVANTAGES],
            mask=micro_batch.mask,
        )
        return grpo_loss(logprobs, entropy, inputs, self._config.grpo)


def learning_rate(step: int, settings: TrainConfig) -> float:
    """Constant after a linear warm-up over the first `warmup_steps` steps; `step` counts from 1."""
    return settings.lr * min(1.0, step / max(1, settings.warmup_steps))


def _figures(updates: Sequence[Update], lr: float) -> dict[str, float]:
    num_tokens = sum(update.num_tokens for update in updates)
    norms = [update.grad_norm for update in updates]
    figures = {name: sum(update.sums[i] for update in updates) / max(1, num_tokens) for i, name in enumerate(SUMS)}
    return {
        **figures,
        "grad_norm": sum(norms) / len(norms),
        "grad_norm_max": max(norms),
        "refused_updates": float(sum(not update.applied for update in updates)),
        "updates": float(len(updates)),
        "lr": lr,
    }
