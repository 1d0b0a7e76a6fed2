"""Packed fine-tuning equals a plain transformers loop over single examples, in every layout; neighbours are apart."""

import pytest
import rank_tasks
import torch
from grpo_reference import load
from safetensors.torch import load_file
from sft_cases import make_config, random_examples
from tiny_models import VOCAB

from grhpc.train.packing import RowStream
from grhpc.train.sft import completion_loss, learning_rate
from grhpc.train.sft_data import Examples
from grhpc.train.tuner import Tuner

STEPS, KIND = 3, "qwen3-tied"
LAYOUTS = {
    "one": (1, {}),
    "DP2": (2, {}),
    "TP2-SP": (2, {"tensor_parallel": 2, "sequence_parallel": True}),
    "PP2": (2, {"pipeline_parallel": 2}),
    "TP2PP2": (4, {"tensor_parallel": 2, "pipeline_parallel": 2}),
    "recompute": (1, {"recompute": True}),
}


@pytest.fixture(scope="module")
def examples() -> Examples:
    return random_examples(VOCAB, 30)


@pytest.fixture(scope="module")
def rows(examples):
    stream = RowStream(examples.lengths, make_config().data.max_tokens, seed=1)
    return [stream.rows(4 * step, 4) for step in range(STEPS)]


def reference_loss(model, examples, chosen):
    """Minus the summed log-probability of the completions, each example alone, and how many tokens they have."""
    total, tokens = torch.zeros(()), 0
    for i in chosen:
        ids, prompt = torch.from_numpy(examples[i]), int(examples.prompt_lengths[i])
        logprobs = model(ids[None]).logits[0, :-1].log_softmax(-1).gather(-1, ids[1:, None])[:, 0]
        total, tokens = total - logprobs[prompt - 1 :].sum(), tokens + len(ids) - prompt
    return total, tokens


@pytest.fixture(scope="module")
def expected(model_of, examples, rows):
    """(loss, gradient norm) of each step of a plain loop without packing, the loss before and after, the weights."""
    model, train = load(model_of(KIND)), make_config().train
    decayed, plain = ([p for p in model.parameters() if (p.ndim > 1) == many] for many in (True, False))
    groups = [{"params": decayed, "weight_decay": train.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    adam = torch.optim.AdamW(groups, lr=train.lr, betas=(train.adam_beta1, train.adam_beta2), eps=train.adam_eps)
    figures, ends = [], []
    for step, step_rows in enumerate([*rows, rows[0]]):
        chosen = [i for row in step_rows for i in row]
        total, tokens = reference_loss(model, examples, chosen)
        loss = total / tokens
        if step in (0, STEPS):
            ends.append(float(loss.detach()))
        if step == STEPS:
            break
        adam.zero_grad()
        loss.backward()
        norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), train.grad_clip))
        for group in adam.param_groups:
            group["lr"] = learning_rate(step, train)
        adam.step()
        figures.append((float(loss.detach()), norm))
    return figures, ends, {name: p.detach() for name, p in model.named_parameters()}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_packed_training_agrees_with_single_examples(pool, model_of, examples, rows, expected, tmp_path, layout):
    ranks, sizes = LAYOUTS[layout]
    answers = pool.run(ranks, rank_tasks.tune, make_config(**sizes), model_of(KIND), examples, rows, tmp_path)
    figures, (before, after), weights = expected
    for found, measured_before, measured_after in answers:
        for ours, theirs in zip(found, figures, strict=True):
            assert (ours["loss"], ours["grad_norm"]) == pytest.approx(theirs, rel=1e-5)
        assert measured_before == pytest.approx(before, rel=1e-5)
        assert measured_after == pytest.approx(after, rel=1e-4)
    written = {name: t for path in tmp_path.glob("*.safetensors") for name, t in load_file(path).items()}
    assert written.keys() == weights.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(written[name], weight, rtol=1e-3, atol=2e-5)


def test_figures_of_a_step(pool, model_of, examples, rows, tmp_path):
    """Tokens, examples and padding are those of all replicas' rows; one row more than replicas changes nothing."""
    config = make_config()
    odd = [rows[0][:3]]
    found = [
        pool.run(ranks, rank_tasks.tune, config, model_of(KIND), examples, odd, tmp_path / str(ranks))[0][0][0]
        for ranks in (1, 2)
        if (tmp_path / str(ranks)).mkdir() is None
    ]
    chosen = [i for row in odd[0] for i in row]
    tokens = int(sum(examples.lengths[i] for i in chosen))
    for figures in found:
        assert (figures["examples"], figures["tokens"]) == (len(chosen), tokens)
        assert figures["completion_tokens"] == sum(len(examples[i]) - examples.prompt_lengths[i] for i in chosen)
        assert figures["padding"] == pytest.approx(1 - tokens / (3 * 40))
        assert figures["refused"] == 0
    assert found[0]["loss"] == pytest.approx(found[1]["loss"], rel=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gradient_of_an_example_does_not_depend_on_its_neighbours(model_of, dtype):
    """The same example before, between and after others that count nothing: the gradient is its own."""
    tuner = Tuner(make_config(dtype, grad_clip=0.0), model_of("qwen2"))
    examples = random_examples(VOCAB, 6, seed=5)
    gradients = []
    try:
        for row in ((0,), (0, 1), (2, 0, 3), (4, 5, 1, 0)):
            (batch,) = tuner._micro_batches(examples, [row])
            place = row.index(0)
            batch.mask[0, : batch.bounds[place]] = 0
            batch.mask[0, batch.bounds[place + 1] :] = 0
            tuner.learner.update([batch], completion_loss, 2, lr=0.0)
            grads = [p.main_grad.flatten() for p in tuner.learner.model.parameters()]
            gradients.append(torch.cat(grads).float().clone())
    finally:
        tuner.close()
    alone, *packed = gradients
    assert alone.norm() > 0.1
    for gradient in packed:
        assert (gradient - alone).norm() < (1e-6 if dtype == "float32" else 0.02) * alone.norm()


def test_what_is_not_finite_is_refused_and_said(model_of, examples, rows, monkeypatch):
    tuner = Tuner(make_config(), model_of(KIND))
    try:
        weight = next(tuner.learner.model.parameters()).data.view(-1)
        bad = lambda logprobs, _entropy, _batch: (logprobs.sum() * float("nan"), torch.zeros(2))  # noqa: E731
        monkeypatch.setattr("grhpc.train.tuner.completion_loss", bad)
        before = weight.clone()
        assert tuner.step(examples, rows[0], 1)["refused"] == 1
        assert torch.equal(weight, before)
    finally:
        tuner.close()
