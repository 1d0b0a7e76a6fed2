"""The loss against numbers worked by hand, against TRL's, and against what its gradient must do."""

import math
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch

from grhpc.config import GrpoConfig
from grhpc.grpo.loss import SUMS, TokenInputs, grpo_loss

PLAIN = GrpoConfig(clip_low=0.2, clip_high=0.3, dual_clip=10.0, importance_cap=None)


def one_token(ratio, advantage, settings=PLAIN, *, sampler=1.0, reference=None, entropy=0.0):
    """Loss, gradient with respect to the log-probability, and sums by name, for one token.

    `ratio` is probability / old, `sampler` old / sampler, `reference` reference / probability.
    """
    old = -2.0
    logprob = torch.tensor([[old + math.log(ratio)]], requires_grad=True)
    inputs = TokenInputs(
        old=torch.tensor([[old]]),
        sampler=torch.tensor([[old - math.log(sampler)]]),
        reference=None if reference is None else logprob.detach() + math.log(reference),
        advantages=torch.tensor([[advantage]]),
        mask=torch.ones(1, 1),
    )
    loss, sums = grpo_loss(logprob, torch.tensor([[entropy]]), inputs, settings)
    loss.backward()
    return float(loss.detach()), float(logprob.grad), dict(zip(SUMS, sums.tolist(), strict=True))


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient", "clipped", "dual"),
    [
        (1.0, 2.0, -2.0, -2.0, 0, 0),  # on policy: the gradient is -A
        (1.2, 2.0, -2.4, -2.4, 0, 0),  # inside the range
        (1.5, 2.0, -2.6, 0.0, 1, 0),  # good and already likelier by more than clip_high: no push
        (0.5, 2.0, -1.0, -1.0, 0, 0),  # good but less likely: the full push
        (0.5, -2.0, 1.6, 0.0, 1, 0),  # bad and already less likely by more than clip_low: no push
        (1.5, -2.0, 3.0, 3.0, 0, 0),  # bad and likelier: the full push
        (12.0, -2.0, 20.0, 0.0, 0, 1),  # bad and far likelier: bounded at -A c
    ],
)
def test_clipped_surrogate_by_hand(ratio, advantage, loss, gradient, clipped, dual):
    found, grad, sums = one_token(ratio, advantage)
    assert found == pytest.approx(loss, rel=1e-5)
    assert grad == pytest.approx(gradient, rel=1e-5)
    assert (sums["clip_fraction"], sums["dual_clip_fraction"]) == (clipped, dual)


@pytest.mark.parametrize(
    ("reference", "kl"), [(1.0, 0.0), (math.e, math.e - 2), (1 / math.e, 1 / math.e), (math.exp(5), 10.0)]
)
def test_kl_estimator_by_hand(reference, kl):
    """exp(d) - d - 1 with d = log(reference / policy), at most 10."""
    settings = GrpoConfig(kl_coef=0.5, importance_cap=None)
    loss, gradient, sums = one_token(1.0, 0.0, settings, reference=reference)
    assert sums["kl"] == pytest.approx(kl, rel=1e-5, abs=1e-6)
    assert loss == pytest.approx(0.5 * kl, rel=1e-5, abs=1e-6)
    expected = 0.5 * (1 - reference) if kl < 10 else 0.0
    assert gradient == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_entropy_is_rewarded():
    loss, _, sums = one_token(1.0, 0.0, GrpoConfig(entropy_coef=0.1, importance_cap=None), entropy=2.0)
    assert loss == pytest.approx(-0.2)
    assert sums["entropy"] == 2.0


@pytest.mark.parametrize(("trainer_over_sampler", "weight"), [(0.5, 0.5), (1.0, 1.0), (1.9, 1.9), (7.0, 2.0)])
def test_importance_weight_is_truncated_and_constant(trainer_over_sampler, weight):
    settings = GrpoConfig(importance_cap=2.0)
    loss, gradient, sums = one_token(1.0, 3.0, settings, sampler=trainer_over_sampler)
    assert sums["importance"] == pytest.approx(weight, rel=1e-5)
    assert loss == pytest.approx(-3.0 * weight, rel=1e-5)
    assert gradient == pytest.approx(-3.0 * weight, rel=1e-5), "the weight itself is not differentiated"
    assert sums["sampler_gap"] == pytest.approx(-math.log(trainer_over_sampler), abs=1e-6)


def random_case(seed=0, rows=5, length=11):
    generator = torch.Generator().manual_seed(seed)

    def normal(scale):
        return torch.randn(rows, length, generator=generator) * scale

    old = -normal(1.0).abs() - 0.1
    mask = (torch.rand(rows, length, generator=generator) < 0.7).float()
    logprobs = old + normal(0.3)
    advantages = torch.randn(rows, 1, generator=generator).expand(rows, length)
    inputs = TokenInputs(
        old=old, sampler=old + normal(0.2), reference=old + normal(0.3), advantages=advantages, mask=mask
    )
    return logprobs, normal(1.0).abs(), inputs


def test_tokens_outside_the_mask_change_nothing_whatever_they_hold():
    settings = GrpoConfig(kl_coef=0.1, entropy_coef=0.1)
    logprobs, entropy, inputs = random_case()
    ours = logprobs.clone().requires_grad_()
    clean = grpo_loss(ours, entropy, inputs, settings)
    clean[0].backward()
    outside = inputs.mask == 0
    for junk in (1e30, -1e30, float("nan"), float("-inf")):
        fields = {name: getattr(inputs, name).clone() for name in ("old", "sampler", "reference", "advantages")}
        for values in fields.values():
            values[outside] = junk
        dirty = TokenInputs(mask=inputs.mask, **fields)
        theirs = logprobs.masked_fill(outside, junk).requires_grad_()
        loss, sums = grpo_loss(theirs, entropy.masked_fill(outside, junk), dirty, settings)
        loss.backward()
        assert torch.equal(theirs.grad, ours.grad)
        assert torch.equal(loss, clean[0])
        assert torch.equal(sums, clean[1])


def test_extreme_ratios_stay_finite():
    settings = GrpoConfig(kl_coef=0.1)
    inputs = TokenInputs(
        old=torch.tensor([[-300.0, -0.1]]),
        sampler=torch.tensor([[-0.1, -300.0]]),
        reference=torch.tensor([[-0.1, -300.0]]),
        advantages=torch.tensor([[-1.0, 1.0]]),
        mask=torch.ones(1, 2),
    )
    logprobs = torch.tensor([[-0.1, -300.0]], requires_grad=True)
    loss, sums = grpo_loss(logprobs, torch.zeros(1, 2), inputs, settings)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(sums).all()
    assert torch.isfinite(logprobs.grad).all()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("delta", [10.0, 1.4])
def test_agrees_with_trl(seed, delta):
    """TRL's own _compute_loss, fed the same log-probabilities: loss and gradient, dual clip and correction included."""
    from trl.trainer.grpo_trainer import GRPOTrainer

    logprobs, entropy, inputs = random_case(seed)
    settings = GrpoConfig(clip_low=0.2, clip_high=0.3, dual_clip=delta, kl_coef=0.07, importance_cap=1.1)
    theirs = logprobs.clone().requires_grad_()
    trl = MagicMock()
    trl.configure_mock(
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level="token",
        beta=0.07,
        epsilon_low=0.2,
        epsilon_high=0.3,
        loss_type="bnpo",
        use_vllm=True,
        vllm_importance_sampling_correction=True,
        _entropy_bonus_enabled=False,
        aux_loss_enabled=False,
        current_gradient_accumulation_steps=1,
        tools=None,
        model=SimpleNamespace(training=True),
        use_adaptive_entropy=False,
        args=SimpleNamespace(delta=delta, use_bias_correction_kl=False),
    )
    trl._get_per_token_logps_and_entropies.return_value = (theirs, entropy, None)
    trl.accelerator.gather.side_effect = lambda tensor: tensor
    expected = GRPOTrainer._compute_loss(
        trl,
        None,
        {
            "prompt_ids": torch.zeros(5, 1),
            "prompt_mask": torch.ones(5, 1),
            "completion_ids": torch.zeros(5, 11),
            "completion_mask": inputs.mask,
            "advantages": inputs.advantages,
            "old_per_token_logps": inputs.old,
            "ref_per_token_logps": inputs.reference,
            "importance_sampling_ratio": (inputs.old - inputs.sampler).exp().clamp(max=1.1),
            "num_items_in_batch": inputs.mask.sum(),
        },
    )
    expected.backward()
    ours = logprobs.clone().requires_grad_()
    loss, _ = grpo_loss(ours, entropy, inputs, settings)
    (loss / inputs.mask.sum()).backward()
    torch.testing.assert_close(loss.detach() / inputs.mask.sum(), expected.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-6)
