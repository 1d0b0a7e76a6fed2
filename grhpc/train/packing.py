"""Which examples stand in which row: several short ones share a row, in an order drawn from the seed.

Examples come in an order of their own in every epoch, and each goes into the open row that it fills best. Rows form one
endless stream, epoch after epoch; a step takes the next few of it.

Does not know: tokens, models, layouts. Invariant: the rows of a step depend on the lengths, the room, the seed and the
step's number alone; every epoch holds every example once, and no row holds more than its room.
"""

import bisect
import hashlib
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

OPEN_ROWS = 64  # more would fill rows better, and draw their examples less at random
Row = tuple[int, ...]


def pack(lengths: Sequence[int] | npt.NDArray[np.int64], order: Sequence[int], room: int) -> list[Row]:
    """Rows of example numbers whose lengths add up to at most `room`; examples are taken in `order`."""
    rows: list[list[int]] = []
    left: list[tuple[int, int]] = []  # of the open rows: the room that is left and the row's number, ascending
    closed: list[Row] = []
    for example in order:
        length = int(lengths[example])
        place = bisect.bisect_left(left, (length, -1))
        rest, row = left.pop(place) if place < len(left) else (room, len(rows))
        if row == len(rows):
            rows.append([])
        rows[row].append(example)
        bisect.insort(left, (rest - length, row))
        if len(left) > OPEN_ROWS:
            closed.append(tuple(rows[left.pop(0)[1]]))
    return closed + [tuple(rows[row]) for row in sorted(row for _, row in left)]


class RowStream:
    """Rows of examples without end. `lengths` in tokens; each is at most `room`."""

    def __init__(self, lengths: npt.NDArray[np.int64], room: int, seed: int) -> None:
        self._lengths, self._room, self._seed = lengths, room, seed
        self._first = [0]  # the number of each epoch's first row
        self._epochs: dict[int, list[Row]] = {}

    def rows(self, first: int, count: int) -> list[Row]:
        """Rows `first` .. `first + count - 1` of the stream."""
        return [self._row(number) for number in range(first, first + count)]

    def num_rows(self, epochs: float) -> int:
        """How many rows so many epochs are."""
        whole, part = int(epochs), epochs - int(epochs)
        for epoch in range(whole + 1 if part else whole):
            self._epoch(epoch)
        return self._first[whole] + (math.ceil(part * len(self._epoch(whole))) if part else 0)

    def _row(self, number: int) -> Row:
        while self._first[-1] <= number:
            self._epoch(len(self._first) - 1)
        epoch = bisect.bisect_right(self._first, number) - 1
        return self._epoch(epoch)[number - self._first[epoch]]

    def _epoch(self, epoch: int) -> list[Row]:
        if epoch not in self._epochs:
            order = np.random.default_rng([self._seed, epoch]).permutation(len(self._lengths)).tolist()
            rows = pack(self._lengths, order, self._room)
            if epoch == len(self._first) - 1:
                self._first.append(self._first[-1] + len(rows))
            self._epochs = {e: kept for e, kept in self._epochs.items() if e == epoch - 1} | {epoch: rows}
        return self._epochs[epoch]


def num_steps(lengths: npt.NDArray[np.int64], room: int, seed: int, rows_per_step: int, epochs: float) -> int:
    """The steps that so many epochs need; the last one is filled up from the epoch that would follow."""
    return math.ceil(RowStream(lengths, room, seed).num_rows(epochs) / rows_per_step)


def digest(data: str, rows: Sequence[Row]) -> str:
    """What names the rows of a step for ever; `data` is the digest of the examples."""
    return hashlib.sha256(f"{data} {list(rows)}".encode()).hexdigest()
