"""Which numbers a setting may hold, by the setting's name: one table for every kind of run.

Does not know: what the settings do together. Invariant: every number in a configuration has its range here (a test
holds that), and no range holds NaN or infinity.
"""

import dataclasses
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`, and how a person would say it."""

    words: str
    low: float
    high: float = math.inf
    without_low: bool = False
    without_high: bool = False

    def holds(self, number: float) -> bool:
        low = self.low < number if self.without_low else self.low <= number
        return low and (number < self.high if self.without_high else number <= self.high) and math.isfinite(number)


AT_LEAST_0, AT_LEAST_1, AT_LEAST_2 = (Range(f"at least {low}", low) for low in (0, 1, 2))
ABOVE_0 = Range("more than 0", 0, without_low=True)
SHARE = Range("a share from 0 to 1", 0, 1)
PART = Range("more than 0, and at most 1", 0, 1, without_low=True)
BELOW_1 = Range("at least 0, and less than 1", 0, 1, without_high=True)

_NAMES: dict[Range, str] = {
    AT_LEAST_0: "every seed warmup_steps weight_decay min_lr grad_clip kl_coef entropy_coef clip_high max_staleness "
    "heldout_every checkpoint_margin_s gpus_per_node signal_s max_retries price_in price_out",
    AT_LEAST_1: "steps groups_per_shard groups_per_step updates_per_step micro_batch_size rows_per_step "
    "max_prompt_tokens max_response_tokens max_input_tokens max_new_tokens max_model_tokens max_tokens max_num_seqs "
    "kv_cache_mb tensor_parallel pipeline_parallel checkpoint_every checkpoint_keep archive_every keep_weights "
    "max_attempts heldout_prompts limit concurrency tasks nodes tasks_per_node cpus_per_task time_min max_concurrent",
    AT_LEAST_2: "group_size",
    ABOVE_0: "lr epochs adam_eps temperature stall_s lease_s idle_s wait_s poll_min_s poll_max_s timeout_s mem_gb "
    "requests_per_min",
    SHARE: "audit_share clip_low",
    PART: "top_p gpu_memory_utilization",
    BELOW_1: "adam_beta1 adam_beta2 heldout_share",
}
RANGES: dict[str, Range] = {name: allowed for allowed, names in _NAMES.items() for name in names.split()} | {
    "dual_clip": Range("more than 1: the most that a bad sample's likelier tokens count", 1, without_low=True),
    "importance_cap": Range("more than 0, or null for no correction", 0, without_low=True),
    "top_k": Range("-1 for every token, or how many", -1),
}
EVAL_RANGES = RANGES | {"questions_per_shard": AT_LEAST_1, "few_shot": AT_LEAST_0}
SFT_RANGES = RANGES | {"steps": Range("at least 1, or 0 for as many as train.epochs need", 0)}


def numbers(settings: Any, where: str = "") -> Iterator[tuple[str, float]]:
    """Every number of nested dataclasses as (place, value); what is null or free-form is left out."""
    for field in dataclasses.fields(settings):
        value, place = getattr(settings, field.name), f"{where}.{field.name}".lstrip(".")
        if dataclasses.is_dataclass(value):
            yield from numbers(value, place)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield place, value


def outside(settings: Any, ranges: dict[str, Range], unused: Collection[str] = ()) -> list[tuple[str, str]]:
    """What is wrong and what to do, for every number outside its range; sections in `unused` are not looked at."""
    return [
        (f"{place} is {value}", f"it must be {ranges[name].words}")
        for place, value in numbers(settings)
        for name in [place.rpartition(".")[2]]
        if not ranges[name].holds(value) and not place.startswith(tuple(f"{section}." for section in unused))
    ]
