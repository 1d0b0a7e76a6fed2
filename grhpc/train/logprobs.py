"""Log-probability of the taken token and entropy of the whole distribution, over a vocabulary cut into TP shards.

One autograd function gives both from one pass over the logits. It keeps the logits as they came (the model holds them
anyway) and two numbers a token; the probabilities are made again in the backward pass.

Does not know: losses, batches. Invariant: the vocabulary's padded rows take no part, and the logits are not changed.
"""

from typing import Any

import torch
import torch.distributed as dist

from grhpc.train.mcore import parallel_state as mpu


class _LogprobEntropy(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(
        ctx: Any,
        logits: torch.Tensor,
        targets: torch.Tensor,
        temperature: float,
        first: int,
        real_size: int,
        group: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        x = _scaled(logits, temperature, real_size - first)
        peak = x.amax(-1)
        if group is not None:
            dist.all_reduce(peak, op=dist.ReduceOp.MAX, group=group)
        x -= peak.unsqueeze(-1)
        local = targets - first
        inside = (local >= 0) & (local < x.shape[-1])
        local = local.clamp(0, x.shape[-1] - 1)
        taken = x.gather(-1, local.unsqueeze(-1)).squeeze(-1).masked_fill(~inside, 0.0)
        weights = x.exp()
        total = weights.sum(-1)
        weighted = weights.mul_(x.masked_fill_(x == float("-inf"), 0.0)).sum(-1)
        if group is not None:
            stacked = torch.stack([total, weighted, taken])
            dist.all_reduce(stacked, group=group)
            total, weighted, taken = stacked
        log_total = total.log()
        entropy = log_total - weighted / total
        ctx.save_for_backward(logits, peak + log_total, entropy, local, inside)
        ctx.settings = temperature, real_size - first
        ctx.set_materialize_grads(False)
        return taken - log_total, entropy

    @staticmethod
    def backward(ctx: Any, grad_logprob: Any, grad_entropy: Any) -> Any:
        logits, log_normaliser, entropy, local, inside = ctx.saved_tensors
        temperature, num_real = ctx.settings
        logprobs = _scaled(logits, temperature, num_real) - log_normaliser.unsqueeze(-1)
        probs = logprobs.exp()
        grad = torch.zeros_like(probs)
        if grad_logprob is not None:
            grad -= probs * grad_logprob.unsqueeze(-1)
            grad.scatter_add_(-1, local.unsqueeze(-1), (grad_logprob * inside).unsqueeze(-1))
        if grad_entropy is not None:
            logprobs.masked_fill_(logprobs == float("-inf"), 0.0)
            grad -= probs * (logprobs + entropy.unsqueeze(-1)) * grad_entropy.unsqueeze(-1)
        return (grad / temperature).to(logits.dtype), None, None, None, None, None


def _scaled(logits: torch.Tensor, temperature: float, num_real: int) -> torch.Tensor:
    """A float32 copy of the logits under the temperature, minus infinity past the real vocabulary."""
    x = logits.float() / temperature
    if num_real < x.shape[-1]:
        x[..., max(0, num_real) :] = float("-inf")
    return x


def logprobs_and_entropy(
    logits: torch.Tensor, targets: torch.Tensor, *, vocab_size: int, temperature: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """log p(target) and the entropy (nats) of softmax(logits / temperature).

    logits: [batch, length, padded vocabulary / TP]; targets: [batch, length] token ids; both results: [batch, length],
    float32. All tensor-parallel ranks must call with the same targets.
    """
    size, rank = mpu.get_tensor_model_parallel_world_size(), mpu.get_tensor_model_parallel_rank()
    group = mpu.get_tensor_model_parallel_group() if size > 1 else None
    logprobs, entropy = _LogprobEntropy.apply(logits, targets, temperature, rank * logits.shape[-1], vocab_size, group)
    return logprobs, entropy
