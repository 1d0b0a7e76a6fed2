"""Verdicts -> the batch of one step: which groups may be trained on, and their rollouts as ragged arrays.

Does not know: the ledger, models, devices.
Invariant: the batch is a function of the set of verdicts alone; the order in which they arrived does not show.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from grhpc.config import GrpoConfig
from grhpc.grpo.advantage import group_advantages, is_zero_variance
from grhpc.records import NO_VERDICT, Verdict

STALE, WITHOUT_VERDICT, ZERO_VARIANCE, INCOMPLETE = "stale", "no_verdict", "zero_variance", "failed"

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Rollouts of whole groups, sorted by (group, sample). Entry i of every field is rollout i.

    token_ids: prompt then response; prompt_lengths: tokens of the prompt; sampler_logprobs: one a response token;
    advantages: one a rollout; staleness: weight versions between sampling and this step.
    """

    token_ids: list[Ints]
    prompt_lengths: Ints
    sampler_logprobs: list[Floats]
    advantages: Floats
    groups: Ints
    staleness: Ints

    def __len__(self) -> int:
        return len(self.token_ids)

    def take(self, rows: Sequence[int]) -> "Batch":
        """The rollouts at `rows`, in that order."""
        return Batch(
            token_ids=[self.token_ids[i] for i in rows],
            prompt_lengths=self.prompt_lengths[list(rows)],
            sampler_logprobs=[self.sampler_logprobs[i] for i in rows],
            advantages=self.advantages[list(rows)],
            groups=self.groups[list(rows)],
            staleness=self.staleness[list(rows)],
        )


def by_group(verdicts: Iterable[Verdict]) -> dict[int, list[Verdict]]:
    """Groups in ascending order, each with its rollouts in the order of `sample`; a repeated sample is kept once."""
    groups: dict[int, dict[int, Verdict]] = defaultdict(dict)
    for verdict in verdicts:
        groups[verdict.group].setdefault(verdict.sample, verdict)
    return {group: [groups[group][sample] for sample in sorted(groups[group])] for group in sorted(groups)}


def staleness_of(group: Sequence[Verdict], current_version: int) -> int:
    """Weight versions between the group's oldest sample and the version about to be trained."""
    return current_version - min(verdict.weight_version for verdict in group)


def drop_reason(group: Sequence[Verdict], current_version: int, group_size: int, settings: GrpoConfig) -> str:
    """Why a group may not be trained on at this version, or "" where it may."""
    if len(group) != group_size:
        return INCOMPLETE
    if any(verdict.decision == NO_VERDICT for verdict in group):
        return WITHOUT_VERDICT
    if staleness_of(group, current_version) > settings.max_staleness:
        return STALE
    if settings.zero_variance == "drop" and is_zero_variance([verdict.reward for verdict in group]):
        return ZERO_VARIANCE
    return ""


def build_batch(verdicts: Iterable[Verdict], current_version: int) -> Batch:
    """The batch of whole, usable groups. Raises ValueError for an empty one, or a group without all its verdicts."""
    groups = by_group(verdicts)
    if not groups:
        raise ValueError("a batch needs at least one group")
    rows = [verdict for group in groups.values() for verdict in group]
    advantages = [group_advantages([verdict.reward for verdict in group]) for group in groups.values()]
    for row in rows:
        if len(row.sampler_logprobs) != len(row.response_ids):
            raise ValueError(f"group {row.group} sample {row.sample}: one sampler logprob per response token is needed")
    return Batch(
        token_ids=[np.asarray([*row.token_ids, *row.response_ids], dtype=np.int64) for row in rows],
        prompt_lengths=np.asarray([len(row.token_ids) for row in rows], dtype=np.int64),
        sampler_logprobs=[np.asarray(row.sampler_logprobs, dtype=np.float32) for row in rows],
        advantages=np.concatenate(advantages).astype(np.float32),
        groups=np.asarray([row.group for row in rows], dtype=np.int64),
        staleness=np.asarray([current_version - row.weight_version for row in rows], dtype=np.int64),
    )


def split_updates(batch: Batch, num_updates: int) -> list[Batch]:
    """The batch cut into at most `num_updates` parts of whole groups, equal in groups where that can be, in order."""
    parts = np.array_split(np.unique(batch.groups), num_updates)
    return [batch.take(np.flatnonzero(np.isin(batch.groups, part)).tolist()) for part in parts if part.size]
