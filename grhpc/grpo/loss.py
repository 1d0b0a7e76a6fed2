"""The GRPO loss on token log-probabilities: clipped surrogate, KL to the reference, entropy, off-policy correction.

    ratio   = exp(logprob - old)                                  old: the trainer's own, before the step's first update
    weight  = min(exp(old - sampler), cap)                        truncated importance sampling, trainer / sampler
    policy  = max(-A ratio, -A clip(ratio, 1 - low, 1 + high))    and, where A < 0, never more than -A c (dual clip)
    kl      = exp(d) - d - 1, d = reference - logprob             the k3 estimator, clamped to +-10
    loss    = sum over response tokens of  weight policy + kl_coef kl - entropy_coef entropy

The caller divides by the number of response tokens of the whole update (token mean).

Does not know: models, ranks. Invariant: a token outside the mask changes no number, whatever it holds.
"""

from dataclasses import dataclass

import torch

from grhpc.config import GrpoConfig

LOG_RATIO_BOUND = 20.0  # keeps exp() finite; far outside every clip range
KL_BOUND = 10.0

SUMS = ("loss", "policy_loss", "kl", "entropy", "clip_fraction", "dual_clip_fraction", "importance", "sampler_gap")


@dataclass(frozen=True)
class TokenInputs:
    """What the loss compares, all [batch, length] float32. `reference` is None where there is no KL term."""

    old: torch.Tensor
    sampler: torch.Tensor
    reference: torch.Tensor | None
    advantages: torch.Tensor
    mask: torch.Tensor


def grpo_loss(
    logprobs: torch.Tensor, entropy: torch.Tensor, inputs: TokenInputs, settings: GrpoConfig
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss summed over the masked tokens, and the sums named in SUMS (detached, float32 vector)."""
    real = inputs.mask > 0
    advantages = inputs.advantages
    ratio = _exp_of_difference(logprobs, inputs.old, real)
    unclipped = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - settings.clip_low, 1 + settings.clip_high)
    policy = torch.maximum(unclipped, clipped)
    bound = -advantages * settings.dual_clip
    bounded = (advantages < 0) & (policy > bound)
    policy = torch.where(bounded, bound, policy)
    weight = importance_weight(inputs.old, inputs.sampler, real, settings.importance_cap)
    kl = torch.zeros_like(logprobs) if inputs.reference is None else k3(logprobs, inputs.reference, real)
    bonus = entropy if settings.entropy_coef else entropy.detach()  # its gradient is costly
    per_token = weight * policy + settings.kl_coef * kl - settings.entropy_coef * bonus
    loss = torch.where(real, per_token, 0.0).sum()
    columns = (
        per_token,
        policy,
        kl,
        entropy,
        (clipped > unclipped).float(),
        bounded.float(),
        weight,
        inputs.sampler - inputs.old,
    )
    sums = torch.stack([torch.where(real, column.detach(), 0.0).sum() for column in columns])
    return loss, sums


def importance_weight(old: torch.Tensor, sampler: torch.Tensor, real: torch.Tensor, cap: float | None) -> torch.Tensor:
    """min(exp(old - sampler), cap), a constant for the gradient; ones where `cap` is None."""
    if cap is None:
        return torch.ones_like(old)
    return _exp_of_difference(old, sampler, real).clamp(max=cap).detach()


def k3(logprobs: torch.Tensor, reference: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """The low-variance KL estimator exp(d) - d - 1 with d = reference - logprob, clamped to +-10."""
    difference = torch.where(real, reference - logprobs, 0.0).clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND)
    return (difference.exp() - difference - 1).clamp(-KL_BOUND, KL_BOUND)


def _exp_of_difference(a: torch.Tensor, b: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    return torch.where(real, a - b, 0.0).clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND).exp()
