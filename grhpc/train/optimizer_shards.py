"""The distributed optimizer's state in a checkpoint: every rank writes and reads its own part, and no other.

Megatron-Core cuts a parameter's state over the data-parallel ranks as ranges of the flattened parameter. Its format
that any layout can read (`fully_reshardable`) gathers them on the first replica to save, 12 bytes a parameter in host
memory over gloo, and makes every rank hold as much to load. But a range of a flattened matrix is at most three
rectangles of it: the end of a row, whole rows, the beginning of one; and rectangles a checkpoint can hold as they are.
Its content is the same: whole tensors by the parameter's name, whoever wrote which part.

Does not know: checkpoints' folders, the optimizer's other settings.
Invariant: the rectangles of all data-parallel ranks cover each parameter once.
"""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from megatron.core.dist_checkpointing.dict_utils import extract_matching_values, nested_values
from megatron.core.dist_checkpointing.mapping import ShardedTensor, ShardedTensorFactory

STATES = ("param", "exp_avg", "exp_avg_sq")


def save_own_part(cls: Any) -> None:
    """Let the optimizer class `cls` describe and load the state of `fully_reshardable` by these rectangles."""

    def describe(self: Any, model_state: dict[str, Any], *_settings: Any) -> dict[str, ShardedTensor]:
        kinds = (ShardedTensor, ShardedTensorFactory)
        tensors, _ = extract_matching_values(model_state, lambda value: isinstance(value, kinds))
        return dict(_own_parts(self, {tensor.data: tensor for tensor in nested_values(tensors)}))

    # The rectangles are views of the state itself, so that reading them is loading it.
    cls.sharded_param_state_fully_reshardable = describe
    cls.load_parameter_state_from_fully_reshardable = lambda _self, _state: None


def _own_parts(optimizer: Any, sharded: dict[torch.Tensor, Any]) -> Iterator[tuple[str, ShardedTensor]]:
    number = itertools.count()
    buckets = itertools.chain.from_iterable(part for buffer in optimizer.gbuf_ranges for part in buffer.values())
    for param, where in itertools.chain.from_iterable(bucket["param_map"].items() for bucket in buckets):
        whole, own = sharded[param], where["param"]  # own: the range of the flattened parameter
        parts = nested_values(whole.build()) if isinstance(whole, ShardedTensorFactory) else [whole]
        tensors = optimizer._get_main_param_and_optimizer_states(param)
        for part, state in itertools.product(parts, STATES):
            begin = part.data.storage_offset() - param.data.storage_offset()
            first, end = max(own.start - begin, 0), min(own.end - begin, part.data.numel())
            for cut, stop in rectangles(first, end, part.data.shape):
                flat = tensors[state].detach()[begin + cut - own.start : begin + stop - own.start]
                yield str(next(number)), _rectangle(part, state, flat, cut)


def rectangles(first: int, end: int, shape: torch.Size | tuple[int, ...]) -> list[tuple[int, int]]:
    """The range first..end of a flattened tensor of one or two dimensions, cut into those that are rectangles of it."""
    if first >= end:
        return []
    width = shape[1] if len(shape) > 1 else 1
    inner = {edge for edge in (-(-first // width) * width, end // width * width) if first < edge < end}
    return list(itertools.pairwise(sorted({first, end} | inner)))


def _rectangle(part: ShardedTensor, state: str, flat: torch.Tensor, first: int) -> ShardedTensor:
    """`flat`, which begins at element `first` of the flattened `part`, as a piece of the whole tensor of all ranks."""
    ahead = part.prepend_axis_num
    offset = list(part.global_offset)
    if part.data.dim() == 1:
        shape, place = [len(flat)], [first]
    else:
        width = part.data.shape[1]
        rows = len(flat) // width
        shape, place = [max(1, rows), width if rows else len(flat)], [first // width, first % width]
    offset[ahead:] = [own + extra for own, extra in zip(offset[ahead:], place, strict=True)]
    shape = [1] * ahead + shape
    return replace(
        part,
        key=f"optimizer.state.{state}.{part.key}",
        data=flat.view(shape),
        dtype=flat.dtype,
        local_shape=tuple(shape),
        global_offset=tuple(offset),
        axis_fragmentations=None,
        replica_id=(*part.replica_id[:2], 0),
        prepend_axis_num=0,
    )
