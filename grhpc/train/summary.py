"""What one step's batch says about the run: reward, verdicts, lengths, staleness.

Does not know: the model, the store. Invariant: pure arithmetic over the rows; every mean is over rollouts unless it
says groups.
"""

from collections import Counter
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from grhpc.records import DECISIONS, NO_ANSWER, YES, Verdict


def summarize(rows: Sequence[Verdict], version: int) -> dict[str, Any]:
    """Figures of a batch trained at weight version `version`; `rows` must not be empty. Staleness is in versions."""
    decisions = Counter(row.decision for row in rows)
    staleness = [version - row.weight_version for row in rows]
    return {
        "groups": len({row.group for row in rows}),
        "rollouts": len(rows),
        "tokens": sum(len(row.response_ids) for row in rows),
        "reward_mean": fmean(row.reward for row in rows),
        "accept_rate": decisions[YES] / len(rows),
        "extract_fail_rate": decisions[NO_ANSWER] / len(rows),
        "decisions": {d: decisions[d] for d in DECISIONS},
        "response_tokens_mean": fmean(len(row.response_ids) for row in rows),
        "truncated_rate": sum(row.finish_reason == "length" for row in rows) / len(rows),
        "staleness_mean": fmean(staleness),
        "staleness_max": max(staleness),
    }
