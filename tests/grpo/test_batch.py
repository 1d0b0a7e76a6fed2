"""Verdicts become the same batch in whatever order they come; unfit groups are named, not trained on."""

import dataclasses
import random

import numpy as np
import pytest

from grhpc.config import GrpoConfig
from grhpc.grpo.batch import Batch, build_batch, by_group, drop_reason, split_updates, staleness_of
from grhpc.records import NO, NO_ANSWER, NO_VERDICT, TRAIN, YES, Verdict


def verdict(group=0, sample=0, reward=0.0, decision=NO, version=3, prompt=(1, 2), response=(7, 8, 9)) -> Verdict:
    return Verdict(
        prompt_id=f"p{group}",
        question="q",
        answer="a",
        answer_type="Integer",
        category="Mathematics",
        difficulty="easy",
        token_ids=list(prompt),
        group=group,
        kind=TRAIN,
        epoch=0,
        admitted_version=version,
        sample=sample,
        response_ids=list(response),
        sampler_logprobs=[-0.1 * (i + 1) for i in range(len(response))],
        response="r",
        finish_reason="stop",
        weight_version=version,
        seed=0,
        extracted="x",
        decision=decision,
        layer="generative",
        reason="",
        answer_tokens=1,
        reference_tokens=1,
        reward=reward,
        reused=False,
    )


def group_of(number, rewards, **fields):
    return [
        verdict(number, sample, reward, YES if reward > 0 else NO, **fields) for sample, reward in enumerate(rewards)
    ]


def arrays(batch: Batch):
    return [
        [t.tolist() for t in batch.token_ids],
        batch.prompt_lengths.tolist(),
        [t.tolist() for t in batch.sampler_logprobs],
        batch.advantages.tolist(),
        batch.groups.tolist(),
        batch.staleness.tolist(),
    ]


def test_worked_example():
    batch = build_batch(group_of(4, [0.0, 1.0], version=3), current_version=5)
    assert [t.tolist() for t in batch.token_ids] == [[1, 2, 7, 8, 9]] * 2
    assert batch.prompt_lengths.tolist() == [2, 2]
    np.testing.assert_allclose(batch.sampler_logprobs[0], [-0.1, -0.2, -0.3], rtol=1e-6)
    np.testing.assert_allclose(batch.advantages, [-(0.5**0.5), 0.5**0.5], rtol=1e-5)
    assert batch.groups.tolist() == [4, 4]
    assert batch.staleness.tolist() == [2, 2]


def test_arrival_order_and_repeats_do_not_show():
    rows = [row for number in (9, 2, 5) for row in group_of(number, [0.0, 1.0, 0.5], response=(1,) * (number + 1))]
    expected = arrays(build_batch(rows, 3))
    for seed in range(5):
        shuffled = rows + rows[2:4]
        random.Random(seed).shuffle(shuffled)
        assert arrays(build_batch(shuffled, 3)) == expected
    assert list(by_group(rows)) == [2, 5, 9]


@pytest.mark.parametrize(
    ("rows", "settings", "reason"),
    [
        (group_of(0, [0.0, 1.0, 0.5]), GrpoConfig(), ""),
        (group_of(0, [0.0, 1.0]), GrpoConfig(), "failed"),
        (group_of(0, [0.0, 1.0]) + [verdict(0, 2, float("nan"), NO_VERDICT)], GrpoConfig(), "no_verdict"),
        (group_of(0, [0.0, 1.0]) + [verdict(0, 2, -0.5, NO_ANSWER)], GrpoConfig(), ""),
        (group_of(0, [0.0, 1.0, 0.5], version=2), GrpoConfig(max_staleness=1), ""),
        (group_of(0, [0.0, 1.0, 0.5], version=1), GrpoConfig(max_staleness=1), "stale"),
        (group_of(0, [0.0, 1.0]) + [verdict(0, 2, 0.5, version=1)], GrpoConfig(max_staleness=1), "stale"),
        (group_of(0, [1.0, 1.0, 1.0]), GrpoConfig(zero_variance="keep"), ""),
        (group_of(0, [1.0, 1.0, 1.0]), GrpoConfig(zero_variance="drop"), "zero_variance"),
    ],
)
def test_unfit_group_is_named(rows, settings, reason):
    assert drop_reason(rows, current_version=3, group_size=3, settings=settings) == reason


def test_staleness_is_that_of_the_oldest_sample():
    assert staleness_of([verdict(version=4), verdict(version=2)], current_version=5) == 3


def test_every_group_is_in_one_update_whole():
    rows = [row for number in range(10) for row in group_of(number, [0.0, 1.0, 0.5])]
    parts = split_updates(build_batch(rows, 3), 4)
    assert [len(np.unique(part.groups)) for part in parts] == [3, 3, 2, 2]
    assert [g for part in parts for g in np.unique(part.groups)] == list(range(10))
    assert all(len(part) == 3 * len(np.unique(part.groups)) for part in parts)


def test_fewer_groups_than_updates_make_fewer_updates():
    parts = split_updates(build_batch(group_of(0, [0.0, 1.0]), 3), 4)
    assert len(parts) == 1


def test_what_cannot_be_a_batch_is_refused():
    with pytest.raises(ValueError, match="at least one group"):
        build_batch([], 0)
    with pytest.raises(ValueError, match="not finite"):
        build_batch([verdict(reward=0.0), verdict(sample=1, reward=float("nan"))], 3)
    short = dataclasses.replace(verdict(), sampler_logprobs=[-0.1])
    with pytest.raises(ValueError, match="one sampler logprob"):
        build_batch([short, verdict(sample=1, reward=1.0)], 3)
