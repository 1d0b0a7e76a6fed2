"""What a step promises beyond agreeing with the reference: exactness, refusal of broken gradients, warm-up, bf16."""

import dataclasses
import hashlib
import random

import numpy as np
import pytest
import rank_tasks
import torch
from safetensors.torch import load_file
from trainer_cases import make_batch, make_config

from grhpc.config import TrainConfig
from grhpc.grpo.batch import Batch
from grhpc.train.learner import LearnerSettings
from grhpc.train.sft import SftSettings
from grhpc.train.step import Trainer, learning_rate


def make_trainer(model_of, kind="qwen3", **settings):
    return Trainer(make_config(**settings), model_of(kind))


@pytest.mark.parametrize(("ranks", "sizes"), [(1, {}), (4, {"tensor_parallel": 2, "pipeline_parallel": 2}), (2, {})])
def test_same_batches_twice_give_the_same_bits(pool, model_of, batches_of, tmp_path, ranks, sizes):
    *batches, probe = batches_of("qwen3")
    weights = []
    for attempt in ("first", "second"):
        folder = tmp_path / attempt
        folder.mkdir()
        pool.run(ranks, rank_tasks.train, make_config(train=sizes), model_of("qwen3"), batches, probe, folder)
        weights.append(
            {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.safetensors")}
        )
    assert weights[0] == weights[1]


def test_step_draws_no_random_numbers(model_of, batches_of):
    trainer = make_trainer(model_of)
    try:
        before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
        trainer.step(batches_of("qwen3")[0], 1)
        after = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    finally:
        trainer.close()
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


def test_order_of_rollouts_within_an_update_changes_only_the_last_bits(model_of, batches_of):
    batch = batches_of("qwen3")[0]
    shuffled = batch.take(np.random.default_rng(0).permutation(len(batch)).tolist())
    found = []
    for one in (batch, shuffled):
        trainer = make_trainer(model_of)
        found.append(trainer.step(one, 1))
        trainer.close()
    assert found[0]["loss"] == pytest.approx(found[1]["loss"], rel=1e-5)
    assert found[0]["grad_norm"] == pytest.approx(found[1]["grad_norm"], rel=1e-5)


@pytest.mark.parametrize("size", [1, 3, 64])
def test_micro_batch_size_changes_nothing_but_rounding(model_of, batches_of, size):
    found = []
    for micro_batch_size in (4, size):
        trainer = make_trainer(model_of, train={"micro_batch_size": micro_batch_size})
        found.append([trainer.step(batch, 1) for batch in batches_of("qwen3")[:2]])
        trainer.close()
    for one, other in zip(*found, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-5)


def test_first_update_has_ratio_one_and_no_kl(model_of, batches_of):
    """Before any update the policy is its own past and the reference."""
    trainer = make_trainer(model_of, grpo={"updates_per_step": 1})
    try:
        figures = trainer.step(batches_of("qwen3")[0], 1)
    finally:
        trainer.close()
    assert figures["clip_fraction"] == 0
    assert figures["kl"] == pytest.approx(0, abs=1e-9)


def test_recorded_old_logprobs_equal_those_of_the_first_update(model_of, batches_of):
    """Recomputing before the step, as four updates need, and reusing the forward pass, as one allows, are one thing."""
    batch = batches_of("qwen3")[0]
    single = batch.take([i for i in range(len(batch)) if batch.groups[i] == batch.groups[0]])
    found = []
    for updates in (1, 4):  # one group: four updates fall together into one
        trainer = make_trainer(model_of, grpo={"updates_per_step": updates})
        found.append(trainer.step(single, 1))
        trainer.close()
    assert found[0] == found[1]


def test_sampler_mode_needs_no_second_pass_and_has_weight_one(model_of, batches_of):
    trainer = make_trainer(model_of, grpo={"old_logprobs": "sampler"})
    try:
        figures = trainer.step(batches_of("qwen3")[0], 1)
    finally:
        trainer.close()
    assert figures["importance"] == 1.0
    assert figures["sampler_gap"] == 0.0
    assert figures["clip_fraction"] > 0, "the sampler's log-probabilities were made different by 0.3"


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_gradient_that_is_not_finite_changes_nothing(model_of, batches_of, tmp_path, bad):
    batch = dataclasses.replace(batches_of("qwen3")[0], advantages=np.full(21, bad, dtype=np.float32))
    trainer = make_trainer(model_of)
    try:
        figures = trainer.step(batch, 1)
        assert figures["refused_updates"] == figures["updates"] == 2
        assert trainer.all_finite()
        trainer.write_weights(tmp_path)
        again = trainer.step(batches_of("qwen3")[1], 2)
    finally:
        trainer.close()
    before, after = load_file(model_of("qwen3") / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert again["refused_updates"] == 0
    assert np.isfinite(again["loss"])


def test_weight_that_is_not_finite_is_seen_on_every_rank(pool, model_of):
    config = make_config(train={"pipeline_parallel": 2})
    assert pool.run(2, rank_tasks.break_last_weight, config, model_of("qwen3")) == [(True, False), (True, False)]


def test_bfloat16_learns_nearly_what_float32_learns(pool, model_of, batches_of):
    *batches, probe = batches_of("qwen3")
    runs = {
        dtype: pool.run(1, rank_tasks.train, make_config(dtype), model_of("qwen3"), batches, probe)[0]
        for dtype in ("float32", "bfloat16")
    }
    for exact, rounded in zip(runs["float32"]["figures"], runs["bfloat16"]["figures"], strict=True):
        assert rounded["grad_norm"] == pytest.approx(exact["grad_norm"], rel=0.1)
        assert rounded["entropy"] == pytest.approx(exact["entropy"], rel=0.02)
    assert runs["bfloat16"]["finite"]
    moved = rank_tasks.concatenated(runs["bfloat16"]["after"]) - rank_tasks.concatenated(runs["bfloat16"]["before"])
    expected = rank_tasks.concatenated(runs["float32"]["after"]) - rank_tasks.concatenated(runs["float32"]["before"])
    assert np.corrcoef(moved, expected)[0, 1] > 0.95


def test_empty_response_and_single_token_train(model_of):
    batch = Batch(
        token_ids=[np.asarray([5, 6, 7]), np.asarray([5, 6, 7, 8])],
        prompt_lengths=np.asarray([3, 3]),
        sampler_logprobs=[np.zeros(0, dtype=np.float32), np.asarray([-6.0], dtype=np.float32)],
        advantages=np.asarray([-1.0, 1.0], dtype=np.float32),
        groups=np.asarray([0, 0]),
        staleness=np.asarray([0, 0]),
    )
    trainer = make_trainer(model_of)
    try:
        assert [len(logprobs) for logprobs in rank_tasks.probed(trainer, batch)] == [0, 1]
        assert np.isfinite(trainer.step(batch, 1)["loss"])
    finally:
        trainer.close()


def test_more_ranks_than_sequences(pool, model_of, batches_of):
    """Replicas without a sequence take part with an empty one and change nothing."""
    one_group = make_batch(model_of("qwen3"), seed=9, num_groups=1)
    config = make_config(train={"micro_batch_size": 4})
    found = [pool.run(n, rank_tasks.train, config, model_of("qwen3"), [one_group], one_group)[0] for n in (1, 4)]
    assert found[0]["figures"][0]["loss"] == pytest.approx(found[1]["figures"][0]["loss"], rel=1e-5)
    assert found[0]["figures"][0]["grad_norm"] == pytest.approx(found[1]["figures"][0]["grad_norm"], rel=1e-5)


def test_learning_rate_rises_over_the_warmup_then_stays():
    settings = make_config(train={"lr": 1.0, "warmup_steps": 4}).train
    assert [learning_rate(step, settings) for step in (1, 2, 4, 5, 100)] == [0.25, 0.5, 1.0, 1.0, 1.0]
    assert learning_rate(1, dataclasses.replace(settings, warmup_steps=0)) == 1.0


@pytest.mark.parametrize("of", [TrainConfig, SftSettings])
def test_grpo_and_fine_tuning_hand_the_learner_the_same_settings(of):
    settings = of(steps=1, lr=1.0, adam_beta2=0.5, grad_clip=7.0, recompute=True)
    assert LearnerSettings.of(settings, "float32") == LearnerSettings("float32", 0.01, 0.9, 0.5, 1e-8, 7.0, False, True)


@pytest.mark.parametrize(
    ("ranks", "sizes", "words"),
    [
        (1, {"tensor_parallel": 2}, "the trainer has 1 ranks"),
        (4, {"tensor_parallel": 4}, "4 does not divide the model's 2 key-value heads"),
        (3, {"pipeline_parallel": 3}, "3 does not divide the model's 4 layers"),
    ],
)
def test_layout_that_does_not_fit_is_refused_in_words(pool, model_of, ranks, sizes, words):
    messages = pool.run(ranks, rank_tasks.refusal, make_config(train=sizes), model_of("qwen3"))
    assert all(words in message for message in messages)


def test_ranks_that_wait_learn_of_the_death_of_rank_0(pool, model_of):
    """Their patience is a day; they must not use it."""
    pool.submit(2, rank_tasks.wait_for_rank_0, make_config(), model_of("qwen3"))
    try:
        assert pool.answer(0) == (False, "rank 0 died")
        fine, words = pool.answer(1)
    finally:
        pool.stop()
    assert not fine
    assert "broadcast" in words
