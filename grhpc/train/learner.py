"""A model with its optimizer: forward passes and optimizer updates over micro-batches, under any layout.

Does not know: rewards, what a loss means, checkpoints, when to stop.
Invariant: an update with a gradient that is not finite changes no weight.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from grhpc.errors import ConfigError
from grhpc.train import weight_map
from grhpc.train.logprobs import logprobs_and_entropy
from grhpc.train.mcore import (
    DistributedDataParallel,
    DistributedDataParallelConfig,
    OptimizerConfig,
    PackedSeqParams,
    clip_grad_by_total_norm_fp32,
    get_forward_backward_func,
    get_megatron_optimizer,
)
from grhpc.train.microbatch import MicroBatch, pad, plan
from grhpc.train.model import (
    DTYPES,
    Architecture,
    HeadlessModel,
    build_model,
    check_layout,
    read_architecture,
    transformer_config,
)
from grhpc.train.parallel import Parallel

# the targets' log-probabilities and entropies [batch, length], their micro-batch -> (loss summed over tokens, sums)
LossFunction = Callable[[torch.Tensor, torch.Tensor, MicroBatch], tuple[torch.Tensor, torch.Tensor]]
ReadFunction = Callable[[torch.Tensor, torch.Tensor, MicroBatch], None]


@dataclass(frozen=True)
class LearnerSettings:
    """How the model is held and AdamW is set; `lr` itself is given with each update. `temperature` divides logits."""

    dtype: str = "bfloat16"
    weight_decay: float = 0.01
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_eps: float = 1e-8
    grad_clip: float = 1.0
    sequence_parallel: bool = False
    recompute: bool = False
    temperature: float = 1.0

    @classmethod
    def of(cls, settings: Any, dtype: str, temperature: float = 1.0) -> "LearnerSettings":
        """Those of a trainer's settings, GRPO's or supervised fine-tuning's, which carry the same names."""
        names = [field.name for field in fields(cls) if field.name not in ("dtype", "temperature")]
        return cls(dtype=dtype, temperature=temperature, **{name: getattr(settings, name) for name in names})


@dataclass(frozen=True)
class Update:
    """What one optimizer update did; `sums` are over all replicas, `applied` is False where it was refused."""

    grad_norm: float
    num_tokens: int
    sums: list[float]
    applied: bool


class Learner:
    """The policy under training. Raises ConfigError or DataError where model and layout do not fit."""

    def __init__(self, model_dir: Path, parallel: Parallel, settings: LearnerSettings) -> None:
        self.parallel, self.settings = parallel, settings
        self.arch: Architecture = read_architecture(model_dir)
        self.model = self.load_model(model_dir)
        self.model.train()
        self.wrapped = DistributedDataParallel(
            self.model.config,
            DistributedDataParallelConfig(grad_reduce_in_fp32=True, use_distributed_optimizer=True),
            self.model,
        )
        self.optimizer = get_megatron_optimizer(_optimizer_config(settings), [self.wrapped])

    def load_model(self, model_dir: Path) -> HeadlessModel:
        """A model of this layout with the weights of a folder, in evaluation mode."""
        if self.settings.dtype not in DTYPES:
            raise ConfigError(f"dtype is {self.settings.dtype!r}", f"choose one of: {', '.join(DTYPES)}")
        check_layout(self.arch, self.parallel.tensor_size, self.parallel.pipeline_size)
        config = transformer_config(
            self.arch,
            self.parallel,
            DTYPES[self.settings.dtype],
            sequence_parallel=self.settings.sequence_parallel,
            recompute=self.settings.recompute,
        )
        model = build_model(self.arch, config, self.parallel)
        weight_map.load_folder(model, self.arch, model_dir, self.parallel)
        model.eval()
        return model

    @property
    def pad_multiple(self) -> int:
        """Sequence parallelism cuts every padded sequence over the tensor ranks."""
        return self.parallel.tensor_size if self.settings.sequence_parallel else 1

    def micro_batches(
        self,
        token_ids: Sequence[npt.NDArray[np.int64]],
        prompt_lengths: Sequence[int] | npt.NDArray[np.int64],
        columns: dict[str, Sequence[npt.NDArray[np.float32]]],
        size: int,
    ) -> list[MicroBatch]:
        """This replica's share of the sequences, padded, at most `size` a micro-batch; arguments as of `pad`."""
        lengths, parallel = [len(tokens) for tokens in token_ids], self.parallel
        mine = plan(lengths, size, parallel.data_size)[parallel.data_rank]
        multiple, device = self.pad_multiple, parallel.device
        return [pad(rows, token_ids, prompt_lengths, columns, multiple=multiple, device=device) for rows in mine]

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def read(self, micro_batches: Sequence[MicroBatch], read: ReadFunction, model: HeadlessModel | None = None) -> None:
        """Forward passes only: `read` gets each micro-batch's log-probabilities, on the last stage's ranks."""

        def keep(
            logprobs: torch.Tensor, entropy: torch.Tensor, micro_batch: MicroBatch
        ) -> tuple[torch.Tensor, torch.Tensor]:
            read(logprobs, entropy, micro_batch)
            return logprobs.new_zeros(()), logprobs.new_zeros(0)

        self._schedule(self.wrapped if model is None else model, micro_batches, keep, forward_only=True)

    def update(self, micro_batches: Sequence[MicroBatch], loss: LossFunction, num_sums: int, lr: float) -> Update:
        """One optimizer update on the token mean of `loss` over all replicas' micro-batches."""
        self.wrapped.zero_grad_buffer()
        self.optimizer.zero_grad()
        outcomes = self._schedule(self.wrapped, micro_batches, loss, forward_only=False)
        totals = [0.0] * (num_sums + 1)
        if self.parallel.speaks_for_replica:
            summed = torch.stack([sums.double() for sums, _ in outcomes]).sum(0).tolist()
            totals = [*summed, float(sum(int(tokens) for _, tokens in outcomes))]
        *sums, num_tokens = self.parallel.sum(totals)
        grad_norm, applied = self._apply_gradients(lr)
        return Update(grad_norm=grad_norm, num_tokens=round(num_tokens), sums=sums, applied=applied)

    def all_finite(self) -> bool:
        """Whether every weight of every rank is a number."""
        bad = sum(float(not torch.isfinite(param).all()) for param in self.model.parameters())
        return self.parallel.sum([bad]) == [0.0]

    def write_weights(self, folder: Path, base: Path) -> dict[str, dict[str, Any]]:
        """Write the weights as a Hugging Face folder; `base` gives config.json and the tokenizer. All ranks call."""
        return weight_map.write_folder(self.model, self.arch, folder, base, self.parallel)

    def _schedule(
        self, model: Any, micro_batches: Sequence[MicroBatch], loss: LossFunction, *, forward_only: bool
    ) -> list[Any]:
        def forward(iterator: Any, stage: Any) -> Any:
            micro_batch: MicroBatch = next(iterator)
            positions = torch.arange(micro_batch.inputs.shape[1], device=micro_batch.inputs.device)
            packed = {"packed_seq_params": _packed(micro_batch.bounds)} if micro_batch.bounds else {}
            output = stage(micro_batch.inputs, positions.expand_as(micro_batch.inputs), None, **packed)

            def finish(hidden: torch.Tensor) -> Any:
                policy = self.model if stage is self.wrapped else stage
                logprobs, entropy = logprobs_and_entropy(
                    hidden,
                    policy.output_weight,
                    micro_batch.targets,
                    vocab_size=self.arch.vocab_size,
                    temperature=self.settings.temperature,
                    sequence_parallel=policy.config.sequence_parallel,
                )
                total, sums = loss(logprobs, entropy, micro_batch)
                tokens = micro_batch.num_tokens
                return total, tokens, (sums.detach().clone(), tokens.clone())

            return output, finish

        outcomes: list[Any] = get_forward_backward_func()(
            forward_step_func=forward,
            data_iterator=iter(micro_batches),
            model=model,
            num_microbatches=len(micro_batches),
            seq_length=micro_batches[0].inputs.shape[1],
            micro_batch_size=micro_batches[0].inputs.shape[0],
            forward_only=forward_only,
        )
        return outcomes

    def _apply_gradients(self, lr: float) -> tuple[float, bool]:
        # The learning rate and, for biases and norms, no weight decay; Megatron-Core's own scheduler sets both too.
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group.get("lr_mult", 1.0)
            group["weight_decay"] = self.settings.weight_decay * group.get("wd_mult", 1.0)
        self.optimizer.prepare_grads()
        norm = float(self.optimizer.get_grad_norm())
        if not math.isfinite(norm):
            return norm, False
        for optimizer in getattr(self.optimizer, "chained_optimizers", [self.optimizer]):
            parameters = [] if getattr(optimizer, "is_stub_optimizer", False) else optimizer.get_parameters()
            if parameters and self.settings.grad_clip > 0:
                clip_grad_by_total_norm_fp32(parameters, max_norm=self.settings.grad_clip, total_norm=norm)
        return norm, bool(self.optimizer.step_with_ready_grads())


def _packed(bounds: list[int]) -> PackedSeqParams:
    """Of one row, for rotary positions, which begin anew with every sequence, and for CausalAttention."""
    ends = torch.tensor(bounds, dtype=torch.int32)  # on the CPU: both read it there
    longest = max(end - first for first, end in itertools.pairwise(bounds))
    return PackedSeqParams("thd", ends, ends, max_seqlen_q=longest, max_seqlen_kv=longest)


def _optimizer_config(settings: LearnerSettings) -> OptimizerConfig:
    dtype = DTYPES[settings.dtype]
    return OptimizerConfig(
        optimizer="adam",
        lr=0.0,
        min_lr=0.0,
        weight_decay=settings.weight_decay,
        adam_beta1=settings.adam_beta1,
        adam_beta2=settings.adam_beta2,
        adam_eps=settings.adam_eps,
        clip_grad=settings.grad_clip,
        bf16=dtype == torch.bfloat16,
        params_dtype=dtype,
        use_distributed_optimizer=True,
    )
