"""Vocabulary-parallel log-probability and entropy against dense torch, values and gradients; and their memory."""

import pytest
import rank_tasks
import torch
from memory import PeakMemory

from grhpc.train.logprobs import logprobs_and_entropy
from grhpc.train.parallel import Parallel

VOCAB = 500  # of 512 rows


def dense(hidden, weight, targets, temperature):
    logprobs = (hidden.transpose(0, 1) @ weight[:VOCAB].t() / temperature).log_softmax(-1)
    return logprobs.gather(-1, targets[..., None])[..., 0], -(logprobs.exp() * logprobs).sum(-1)


@pytest.mark.parametrize(("ranks", "sequence_parallel"), [(1, False), (2, False), (2, True), (4, False), (4, True)])
@pytest.mark.parametrize(("temperature", "chunk"), [(1.0, 1024), (0.7, 5)])
def test_values_and_gradients_agree_with_dense_torch(pool, ranks, sequence_parallel, temperature, chunk):
    random = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(8, 3, 16, generator=random), torch.randn(512, 16, generator=random)
    hidden[0, 0] = weight[3] * 20  # a distribution with one token
    targets = torch.randint(0, VOCAB, (3, 8), generator=random)
    targets[0, 0] = 3
    slopes = torch.randn(2, 3, 8, generator=random)
    states, rows = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
    expected = dense(states, rows, targets, temperature)
    (torch.stack(expected) * slopes).sum().backward()
    settings = {"vocab_size": VOCAB, "temperature": temperature, "chunk": chunk, "sequence_parallel": sequence_parallel}
    arrays = [x.numpy() for x in (hidden, weight, targets, slopes)]
    answers = pool.run(ranks, rank_tasks.logprobs_of, *arrays, settings)
    close = {"rtol": 1e-5, "atol": 1e-5}
    for logprobs, entropy, grad_hidden, _ in answers:
        torch.testing.assert_close(torch.from_numpy(logprobs), expected[0].detach(), **close)
        torch.testing.assert_close(torch.from_numpy(entropy), expected[1].detach(), **close)
        if not sequence_parallel:
            torch.testing.assert_close(torch.from_numpy(grad_hidden), states.grad, **close)
    if sequence_parallel:
        torch.testing.assert_close(torch.cat([torch.from_numpy(answer[2]) for answer in answers]), states.grad, **close)
    gradient = torch.cat([torch.from_numpy(answer[3]) for answer in answers])
    torch.testing.assert_close(gradient[:VOCAB], rows.grad[:VOCAB], **close)
    assert not gradient[VOCAB:].any(), "padded rows get no gradient"


@pytest.mark.parametrize("with_entropy", [True, False])
def test_the_logits_of_all_tokens_never_stand_in_memory(with_entropy):
    """Counted by every tensor's storage, so on a GPU it is the same: a few chunks' logits, not the batch's."""
    parallel = Parallel()
    try:
        hidden = torch.randn(512, 4, 8, requires_grad=True)
        weight = torch.randn(4096, 8, requires_grad=True)
        targets = torch.randint(0, 4096, (4, 512))
        a_chunk, all_logits = 4 * 64 * 4096, 4 * 2048 * 4096
        with PeakMemory() as memory:
            logprobs, entropy = logprobs_and_entropy(hidden, weight, targets, vocab_size=4096, chunk=64)
            kept = memory.now
            (logprobs.sum() + entropy.sum() * with_entropy if with_entropy else logprobs.sum()).backward()
    finally:
        parallel.close()
    assert kept < a_chunk / 4, "between the passes only numbers a token are kept"
    assert memory.peak < 4 * a_chunk < all_logits / 7
