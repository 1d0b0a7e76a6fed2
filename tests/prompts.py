"""Prompts of a run, as its trainer puts them into the queue."""

from dataclasses import replace
from typing import Any

from grhpc.records import TRAIN, GroupPrompt


def prompt(group: int = 0, **changes: Any) -> GroupPrompt:
    base = GroupPrompt(
        prompt_id=f"p{group}",
        question=f"What is {group}?",
        answer=str(group),
        answer_type="Integer",
        category="Mathematics",
        difficulty="University",
        token_ids=[2, 40 + group, 41, 3],
        group=group,
        kind=TRAIN,
        epoch=0,
        admitted_version=0,
    )
    return replace(base, **changes)
