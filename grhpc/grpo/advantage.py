"""Group-relative advantages: how much better a rollout's reward is than its siblings'.

Does not know: tokens, models. Invariant: a group whose rewards are all equal has advantages of exactly zero.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

STD_FLOOR = 1e-6  # added to the deviation, as General-Reasoner was trained


def group_advantages(rewards: Sequence[float]) -> npt.NDArray[np.float64]:
    """(reward - mean) / (unbiased standard deviation + 1e-6), one number a rollout of ONE group.

    Raises ValueError for fewer than two rewards or one that is not finite: a group without a verdict on every rollout
    has no advantages.
    """
    values = np.asarray(rewards, dtype=np.float64)
    if values.size < 2:
        raise ValueError(f"a group needs at least 2 rewards, not {values.size}")
    if not np.isfinite(values).all():
        raise ValueError("a reward is not finite")
    if is_zero_variance(rewards):
        return np.zeros_like(values)
    return np.asarray((values - values.mean()) / (values.std(ddof=1) + STD_FLOOR))


def is_zero_variance(rewards: Sequence[float]) -> bool:
    """Whether all rewards are equal, so that the group teaches nothing but the KL and entropy terms."""
    return all(reward == rewards[0] for reward in rewards)
