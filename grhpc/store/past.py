"""What the events of a job's earlier lives tell the next one.

Does not know: queues, shards' rows. Invariant: telemetry only: without events a life begins as the first.
"""

from typing import Any

from grhpc.store.events import waited_s

_RECENT = 20  # shards of earlier lives that tell how long the next will take
Past = list[dict[str, Any]]  # in order


def away_s(past: Past) -> float:
    """How long earlier lives of this job waited in vain for a server of others, since it was last there."""
    return waited_s(event for event in _since(past, "returned", "shard") if event.get("away"))


def in_vain_s(past: Past) -> float:
    """How long they worked since their last shard, only to find such a server away."""
    return float(sum(event.get("in_vain_s", 0.0) for event in _since(past, "shard")))


def longest_s(past: Past) -> float:
    """The longest of their last shards; one that was cut took longer than it says."""
    ends = [event for event in past if event["event"] in ("shard", "cut")]
    recent = [event.get("held_s") or event.get("seconds") or 0.0 for event in ends]
    return float(max(recent[-_RECENT:], default=0.0))


def _since(past: Past, *kinds: str) -> Past:
    """What came after the last event of these kinds."""
    last = max((i for i, event in enumerate(past) if event["event"] in kinds), default=-1)
    return past[last + 1 :]
