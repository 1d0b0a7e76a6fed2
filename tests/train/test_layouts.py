"""Every parallel layout computes what an independent transformers + torch.optim implementation computes."""

import grpo_reference
import numpy as np
import pytest
import rank_tasks
import torch
from trainer_cases import make_config

from grhpc.train.parallel import own_device

LAYOUTS = {
    "TP1PP1": (1, {}),
    "TP2": (2, {"tensor_parallel": 2}),
    "TP2-SP": (2, {"tensor_parallel": 2, "sequence_parallel": True}),
    "PP2": (2, {"pipeline_parallel": 2}),
    "DP2": (2, {}),
    "TP2PP2": (4, {"tensor_parallel": 2, "pipeline_parallel": 2}),
    "TP2PP2-SP-recompute": (
        4,
        {"tensor_parallel": 2, "pipeline_parallel": 2, "sequence_parallel": True, "recompute": True},
    ),
    "TP2DP2-SP": (4, {"tensor_parallel": 2, "sequence_parallel": True}),
    "PP2DP2": (4, {"pipeline_parallel": 2}),
}
# At the usual 1e-8 Adam divides rounding noise by rounding noise wherever a gradient is nearly zero. At 1e-4 it does
# not, and equality to 1e-5 can be asked of the weights after training too.
ADAM_EPS = 1e-4
CASES = [(layout, "qwen3") for layout in LAYOUTS]
CASES += [("TP1PP1", "qwen2"), ("TP2PP2", "qwen2"), ("TP2PP2", "qwen2-tied"), ("PP2DP2", "qwen3-tied")]


@pytest.fixture(scope="module")
def reference_of(model_of, batches_of):
    """What the reference finds for a model kind: figures of three steps, log-probabilities before and after."""
    made = {}

    def get(kind):
        if kind not in made:
            *batches, probe = batches_of(kind)
            model, figures = grpo_reference.train(model_of(kind), batches, make_config(train={"adam_eps": ADAM_EPS}))
            made[kind] = {
                "before": grpo_reference.all_logprobs(grpo_reference.load(model_of(kind)), probe, 0.8),
                "after": grpo_reference.all_logprobs(model, probe, 0.8),
                "figures": figures,
            }
        return made[kind]

    return get


@pytest.mark.parametrize(("layout", "kind"), CASES)
def test_layout_agrees_with_an_independent_reference(pool, model_of, batches_of, reference_of, layout, kind):
    world_size, sizes = LAYOUTS[layout]
    *batches, probe = batches_of(kind)
    expected = reference_of(kind)
    config = make_config(train={**sizes, "adam_eps": ADAM_EPS})
    answers = pool.run(world_size, rank_tasks.train, config, model_of(kind), batches, probe)
    found = answers[0]
    for answer in answers[1:]:
        assert answer["figures"] == found["figures"], "every rank must report the same figures"
    for step, (ours, theirs) in enumerate(zip(found["figures"], expected["figures"], strict=True)):
        for name, value in theirs.items():
            assert ours[name] == pytest.approx(value, rel=1e-5, abs=1e-7), f"{name} of step {step}"
    for when in ("before", "after"):
        for ours, theirs in zip(found[when], expected[when], strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5, err_msg=when)
    moved = [np.abs(after - before).max() for before, after in zip(expected["before"], expected["after"], strict=True)]
    assert min(moved) > 1e-2, "the steps must matter for the comparison to mean something"
    assert found["finite"]


@pytest.mark.parametrize(
    ("local_rank", "visible", "device"), [("3", 8, "cuda:3"), ("3", 1, "cuda:0"), ("5", 4, "cuda:1")]
)
def test_a_rank_takes_its_own_gpu_or_the_one_that_it_was_bound_to(monkeypatch, local_rank, visible, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: visible)
    monkeypatch.setenv("LOCAL_RANK", local_rank)
    assert str(own_device()) == device
