"""The order of prompts: seeded, complete in every epoch, and a function of the group number alone."""

import pytest

from grhpc.errors import DataError
from grhpc.records import HELDOUT, TRAIN, Prompt
from grhpc.train.curriculum import Curriculum, heldout_groups


def make_prompts(count: int) -> list[Prompt]:
    return [
        Prompt(
            prompt_id=f"p{i}",
            question=f"q{i}",
            answer=str(i),
            answer_type="Integer",
            category="Mathematics",
            difficulty="",
            token_ids=[i],
        )
        for i in range(count)
    ]


def ids(curriculum: Curriculum, first: int, count: int) -> list[str]:
    return [group.prompt_id for group in curriculum.groups(first, count, version=0)]


def test_every_epoch_holds_every_prompt_once() -> None:
    curriculum = Curriculum(make_prompts(7), seed=3)
    for epoch in range(3):
        groups = curriculum.groups(7 * epoch, 7, version=5)
        assert {g.prompt_id for g in groups} == {f"p{i}" for i in range(7)}
        assert {g.epoch for g in groups} == {epoch}
        assert [g.group for g in groups] == list(range(7 * epoch, 7 * epoch + 7))
        assert {(g.kind, g.admitted_version) for g in groups} == {(TRAIN, 5)}


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    curriculum = Curriculum(make_prompts(50), seed=3)
    assert ids(curriculum, 0, 50) != ids(curriculum, 50, 50)
    assert ids(curriculum, 0, 50) != ids(Curriculum(make_prompts(50), seed=4), 0, 50)


def test_a_group_does_not_depend_on_what_was_asked_before() -> None:
    whole = ids(Curriculum(make_prompts(10), seed=0), 0, 35)
    late = Curriculum(list(reversed(make_prompts(10))), seed=0)
    assert ids(late, 25, 10) == whole[25:]
    assert ids(late, 3, 4) == whole[3:7]


def test_no_prompts_is_an_error() -> None:
    with pytest.raises(DataError, match="empty"):
        Curriculum([], seed=0)


def test_heldout_groups_count_from_zero() -> None:
    groups = heldout_groups(make_prompts(3), version=20)
    assert [(g.group, g.kind, g.admitted_version) for g in groups] == [(i, HELDOUT, 20) for i in range(3)]
