"""Ragged sequences -> padded micro-batches, shared out over data-parallel replicas; or several packed into one row.

Sequences are sorted by length, so that little is padding, and cut into as many micro-batches as every replica needs the
same number of; where there are too few sequences some micro-batches hold one empty row. A packed row is a micro-batch.

Does not know: what the per-token columns mean, models.
Invariant: the plan depends on the lengths, the micro-batch size and the number of replicas alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch


@dataclass
class MicroBatch:
    """Inputs and the tokens they predict, [batch, length]; `mask` is 1 where a prediction counts.

    `columns` are further per-token numbers, aligned with `targets`; `rows` says which sequence each row is. In a packed
    row, the only one of its micro-batch, `bounds` are where each sequence begins, and the end; else it is empty.
    """

    inputs: torch.Tensor
    targets: torch.Tensor
    mask: torch.Tensor
    rows: list[int]
    columns: dict[str, torch.Tensor] = field(default_factory=dict)
    bounds: list[int] = field(default_factory=list)

    @property
    def num_tokens(self) -> torch.Tensor:
        return self.mask.sum().to(torch.int)


def plan(lengths: Sequence[int], micro_batch_size: int, num_replicas: int) -> list[list[list[int]]]:
    """For each replica its micro-batches, each a list of sequence numbers; equally many for every replica."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    num = max(1, -(-len(order) // micro_batch_size))
    num = -(-num // num_replicas) * num_replicas
    chunks = [[int(i) for i in chunk] for chunk in np.array_split(np.asarray(order, dtype=np.int64), num)]
    return [chunks[replica::num_replicas] for replica in range(num_replicas)]


def pad(
    rows: list[int],
    token_ids: Sequence[npt.NDArray[np.int64]],
    prompt_lengths: Sequence[int] | npt.NDArray[np.int64],
    columns: dict[str, Sequence[npt.NDArray[np.float32]]],
    *,
    multiple: int,
    device: torch.device,
) -> MicroBatch:
    """The sequences `rows` padded to their longest (rounded up to a multiple of `multiple`).

    token_ids[i]: prompt and completion; columns[name][i]: one number for each completion token of sequence i.
    """
    longest = max([len(token_ids[i]) - 1 for i in rows], default=1)
    length = max(1, -(-longest // multiple)) * multiple
    shape = (max(1, len(rows)), length)
    inputs, targets = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    mask = np.zeros(shape, dtype=np.float32)
    filled = {name: np.zeros(shape, dtype=np.float32) for name in columns}
    for row, i in enumerate(rows):
        tokens, first = token_ids[i], int(prompt_lengths[i]) - 1
        last = len(tokens) - 1
        inputs[row, :last], targets[row, :last] = tokens[:-1], tokens[1:]
        mask[row, first:last] = 1.0
        for name, values in columns.items():
            filled[name][row, first:last] = values[i]
    return MicroBatch(
        inputs=torch.from_numpy(inputs).to(device),
        targets=torch.from_numpy(targets).to(device),
        mask=torch.from_numpy(mask).to(device),
        rows=rows,
        columns={name: torch.from_numpy(values).to(device) for name, values in filled.items()},
    )


def pack_row(
    rows: Sequence[int],
    token_ids: Mapping[int, npt.NDArray[np.int64]],
    prompt_lengths: Sequence[int] | npt.NDArray[np.int64],
    *,
    multiple: int,
    device: torch.device,
) -> MicroBatch:
    """The sequences `rows` one after the other; what fills up to a multiple of `multiple` is a sequence of its own."""
    parts = [token_ids[i] for i in rows]
    bounds = [0, *np.cumsum([len(tokens) - 1 for tokens in parts], dtype=np.int64).tolist()]
    length = max(1, -(-bounds[-1] // multiple)) * multiple
    inputs, targets = np.zeros((1, length), dtype=np.int64), np.zeros((1, length), dtype=np.int64)
    mask = np.zeros((1, length), dtype=np.float32)
    for i, tokens, first, end in zip(rows, parts, bounds, bounds[1:], strict=False):
        inputs[0, first:end], targets[0, first:end] = tokens[:-1], tokens[1:]
        mask[0, first + int(prompt_lengths[i]) - 1 : end] = 1.0
    return MicroBatch(
        inputs=torch.from_numpy(inputs).to(device),
        targets=torch.from_numpy(targets).to(device),
        mask=torch.from_numpy(mask).to(device),
        rows=list(rows),
        bounds=bounds if length == bounds[-1] else [*bounds, length],
    )
