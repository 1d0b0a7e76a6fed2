"""Which prompt a group number means: a seeded order, reshuffled every epoch.

Does not know: queues, steps. Invariant: the answer depends only on (prompts, seed, group), never on what ran before, so
that the number of admitted groups is the whole state of the curriculum.
"""

import hashlib
from collections.abc import Sequence

from grhpc.errors import DataError
from grhpc.records import HELDOUT, TRAIN, GroupPrompt, Prompt


class Curriculum:
    """Group g is prompt number g mod N of epoch g // N, in that epoch's own order."""

    def __init__(self, prompts: Sequence[Prompt], seed: int) -> None:
        if not prompts:
            raise DataError("the prepared training set is empty", "run `python submit.py prepare CONFIG` again")
        self._prompts = list(prompts)
        self._seed = seed
        self._orders: dict[int, list[Prompt]] = {}

    def groups(self, first: int, count: int, version: int) -> list[GroupPrompt]:
        """Groups first..first+count-1, admitted at weight version `version`."""
        return [self._group(g, version) for g in range(first, first + count)]

    def _group(self, group: int, version: int) -> GroupPrompt:
        epoch, position = divmod(group, len(self._prompts))
        return admitted(self._order(epoch)[position], group, TRAIN, epoch, version)

    def _order(self, epoch: int) -> list[Prompt]:
        if epoch not in self._orders:
            self._orders = {e: o for e, o in self._orders.items() if e >= epoch - 1}
            self._orders[epoch] = sorted(self._prompts, key=lambda p: _rank(self._seed, epoch, p.prompt_id))
        return self._orders[epoch]


def admitted(prompt: Prompt, group: int, kind: str, epoch: int, version: int) -> GroupPrompt:
    """The prompt as a group of its own, admitted at weight version `version`."""
    return GroupPrompt(**vars(prompt), group=group, kind=kind, epoch=epoch, admitted_version=version)


def heldout_groups(prompts: Sequence[Prompt], version: int) -> list[GroupPrompt]:
    """Every held-out prompt as a group, for one evaluation of weight version `version`."""
    return [admitted(prompt, i, HELDOUT, 0, version) for i, prompt in enumerate(prompts)]


def _rank(seed: int, epoch: int, prompt_id: str) -> bytes:
    # A hash, not a random generator: the order must be the same under every version of every library.
    return hashlib.sha256(f"{seed}/{epoch}/{prompt_id}".encode()).digest()
