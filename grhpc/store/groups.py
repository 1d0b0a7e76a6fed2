"""Which groups a shard holds: said by its name, so that a listing is enough to know where every group stands.

    g00000032-0008           training groups 32..39
    h000010-00000000-0256    256 held-out prompts, asked under weights 10

Does not know: queues, what becomes of a group. Invariant: a group's training shard always holds consecutive groups.
"""

import re

HELDOUT_PREFIX = "h"  # held-out shards are claimed first, lest training starve them

_TRAIN = re.compile(r"g(\d+)-(\d+)")


def train_name(first: int, count: int) -> str:
    """The name of the shard that holds groups first..first+count-1."""
    return f"g{first:08d}-{count:04d}"


def heldout_name(version: int, count: int) -> str:
    """The name of the held-out shard of one weight version."""
    return f"{HELDOUT_PREFIX}{version:06d}-{0:08d}-{count:04d}"


def is_heldout(name: str) -> bool:
    return name.startswith(HELDOUT_PREFIX)


def heldout_version(name: str) -> int:
    return int(name[1:].split("-")[0])


def groups_of(name: str) -> range:
    """The training groups that a shard of this name holds; empty for any other shard."""
    match = _TRAIN.fullmatch(name)
    return range(int(match[1]), int(match[1]) + int(match[2])) if match else range(0)
