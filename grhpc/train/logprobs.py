"""Log-probability of the taken token and entropy of the whole distribution, from the last hidden states.

The logits of all tokens would be the trainer's largest tensors: 4 bytes x tokens x vocabulary / TP, several times over.
So the output layer is part of the function: it makes the logits of some tokens at a time, and makes them again in the
backward pass. What stays are the hidden states and two numbers a token.

Does not know: losses, batches. Invariant: the vocabulary's padded rows take no part; the logits of more than
`chunk` tokens never stand in memory at once.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist

from grhpc.train.mcore import parallel_state as mpu
from grhpc.train.mcore import tensor_parallel

CHUNK = 1024  # tokens: enough for a matrix product at full speed


class _LogprobEntropy(torch.autograd.Function):  # type: ignore[misc]
    """hidden: [tokens, hidden size]; weight: [padded vocabulary / TP, hidden size]; targets: [tokens]."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        targets: torch.Tensor,
        temperature: float,
        vocab_size: int,
        chunk: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        first = mpu.get_tensor_model_parallel_rank() * weight.shape[0]
        num_real = max(0, min(vocab_size - first, weight.shape[0]))
        local = targets - first
        inside = (local >= 0) & (local < weight.shape[0])
        local = local.clamp(0, weight.shape[0] - 1)
        found = torch.empty(4, len(targets), dtype=torch.float32, device=hidden.device)
        for part in _parts(len(targets), chunk):
            found[:, part] = _numbers(_logits(hidden[part], weight, temperature, num_real), local[part], num_real)
        found[3].masked_fill_(~inside, 0.0)
        peak, total, weighted, taken = _over_shards(found)
        entropy = total.log() - weighted / total
        normaliser = peak + total.log()
        ctx.save_for_backward(hidden, weight, normaliser, entropy, local, inside)
        ctx.settings = temperature, num_real, chunk
        ctx.set_materialize_grads(False)
        return taken - normaliser, entropy

    @staticmethod
    def backward(ctx: Any, grad_logprob: Any, grad_entropy: Any) -> Any:
        hidden, weight, normaliser, entropy, local, inside = ctx.saved_tensors
        temperature, num_real, chunk = ctx.settings
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros(weight.shape, dtype=torch.float32, device=weight.device)
        if grad_logprob is None:
            grad_logprob = torch.zeros_like(normaliser)
        for part in _parts(len(local), chunk):
            grad = _logits(hidden[part], weight, temperature, num_real).sub_(normaliser[part].unsqueeze(-1))
            grad = _minus_probs_times(grad, grad_logprob[part], entropy[part], grad_entropy, part, num_real)
            grad.scatter_add_(-1, local[part].unsqueeze(-1), (grad_logprob[part] * inside[part]).unsqueeze(-1))
            grad = grad.div_(temperature).to(hidden.dtype)
            torch.matmul(grad, weight, out=grad_hidden[part])
            grad_weight += grad.t() @ hidden[part]
            del grad  # before the next is made
        return grad_hidden, grad_weight.to(weight.dtype), None, None, None, None


def _parts(num_tokens: int, chunk: int) -> Iterator[slice]:
    return (slice(first, min(first + chunk, num_tokens)) for first in range(0, num_tokens, chunk))


def _logits(hidden: torch.Tensor, weight: torch.Tensor, temperature: float, num_real: int) -> torch.Tensor:
    """In float32, under the temperature, minus infinity past the real vocabulary."""
    x = (hidden @ weight.t()).float().div_(temperature)
    x[:, num_real:] = float("-inf")
    return x


def _numbers(x: torch.Tensor, local: torch.Tensor, num_real: int) -> torch.Tensor:
    """Of each row of logits, which are overwritten: the largest, the sum of exp(x - largest), the same sum weighted by
    x - largest, and the target's."""
    taken = x.gather(-1, local.unsqueeze(-1)).squeeze(-1)
    peak = x.amax(-1).clamp_(min=torch.finfo(x.dtype).min)  # of a shard that is padding alone
    x -= peak.unsqueeze(-1)
    weights = x.exp()
    total = weights.sum(-1)
    x[:, num_real:] = 0.0
    return torch.stack([peak, total, weights.mul_(x).sum(-1), taken])


def _over_shards(found: torch.Tensor) -> torch.Tensor:
    """What `_numbers` finds in the shards of all tensor-parallel ranks -> that of the whole rows."""
    if mpu.get_tensor_model_parallel_world_size() == 1:
        return found
    group, peak = mpu.get_tensor_model_parallel_group(), found[0].clone()
    dist.all_reduce(peak, op=dist.ReduceOp.MAX, group=group)
    shift = found[0] - peak
    sums = torch.stack([shift.exp() * found[1], shift.exp() * (found[2] + shift * found[1]), found[3]])
    dist.all_reduce(sums, group=group)
    return torch.cat([peak.unsqueeze(0), sums])


def _minus_probs_times(
    logprobs: torch.Tensor,
    grad_logprob: torch.Tensor,
    entropy: torch.Tensor,
    grad_entropy: torch.Tensor | None,
    part: slice,
    num_real: int,
) -> torch.Tensor:
    """-p (grad of log-probability + (log p + entropy) grad of entropy); the log-probabilities are overwritten."""
    if grad_entropy is None:
        return logprobs.exp_().mul_(-grad_logprob.unsqueeze(-1))
    probs = logprobs.exp()
    logprobs[:, num_real:] = 0.0
    logprobs.add_(entropy.unsqueeze(-1)).mul_(grad_entropy[part].unsqueeze(-1)).add_(grad_logprob.unsqueeze(-1))
    return logprobs.mul_(probs).neg_()


def logprobs_and_entropy(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    *,
    vocab_size: int,
    temperature: float = 1.0,
    sequence_parallel: bool = False,
    chunk: int = CHUNK,
) -> tuple[torch.Tensor, torch.Tensor]:
    """log p(target) and the entropy (nats) of softmax(hidden weight' / temperature).

    hidden: [length, batch, hidden size], under sequence parallelism [length / TP, ...]; weight: [padded vocabulary /
    TP, hidden size]; targets: [batch, length] token ids; both results: [batch, length], float32. All tensor-parallel
    ranks must call with the same targets.
    """
    if sequence_parallel:
        hidden = tensor_parallel.gather_from_sequence_parallel_region(hidden)
    else:
        hidden = tensor_parallel.copy_to_tensor_model_parallel_region(hidden)
    batch, length = targets.shape
    found = _LogprobEntropy.apply(hidden.flatten(0, 1), weight, targets.t().flatten(), temperature, vocab_size, chunk)
    logprobs, entropy = (column.view(length, batch).t() for column in found)
    return logprobs, entropy
