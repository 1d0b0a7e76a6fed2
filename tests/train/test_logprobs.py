"""Vocabulary-parallel log-probability and entropy against dense torch, values and gradients."""

import pytest
import rank_tasks
import torch


def dense(logits, targets, temperature):
    logprobs = (logits / temperature).log_softmax(-1)
    return logprobs.gather(-1, targets[..., None])[..., 0], -(logprobs.exp() * logprobs).sum(-1)


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_values_and_gradients_agree_with_dense_torch(pool, ranks, temperature):
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 7, 512, generator=random) * 3
    logits[0, 0] = torch.nn.functional.one_hot(torch.tensor(3), 512) * 200.0  # a distribution with one token
    targets = torch.randint(0, 500, (3, 7), generator=random)
    targets[0, 0] = 3
    weights = torch.randn(2, 3, 7, generator=random)
    real = logits[..., :500].clone().requires_grad_()
    expected = dense(real, targets, temperature)
    (torch.stack(expected) * weights).sum().backward()
    answers = pool.run(ranks, rank_tasks.logprobs_of, logits.numpy(), targets.numpy(), weights.numpy(), temperature)
    for logprobs, entropy, _, unchanged in answers:
        torch.testing.assert_close(torch.from_numpy(logprobs), expected[0].detach(), rtol=1e-5, atol=2e-6)
        torch.testing.assert_close(torch.from_numpy(entropy), expected[1].detach(), rtol=1e-5, atol=2e-6)
        assert unchanged, "the model's logits are not ours to change"
    gradient = torch.cat([torch.from_numpy(answer[2]) for answer in answers], -1)
    torch.testing.assert_close(gradient[..., :500], real.grad, rtol=1e-5, atol=1e-6)
    assert not gradient[..., 500:].any(), "padded rows get no gradient"
