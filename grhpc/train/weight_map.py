"""Hugging Face weights <-> the shards of a Megatron-Core model, bit for bit, for Qwen2 and Qwen3.

Every local parameter corresponds to one, two or three Hugging Face tensors and one of five ways of cutting them over
the tensor-parallel ranks. Loading reads from safetensors only what this pipeline stage holds; exporting shares the
gathering and the writing among all ranks, data-parallel replicas included.

Does not know: optimizers, where exported folders are published.
Invariant: load followed by export gives back the same bits, where the file's type is the model's.
"""

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from grhpc.errors import DataError
from grhpc.store.transfer import Described, sync_and_describe
from grhpc.train.mcore import GPTModel
from grhpc.train.mcore import parallel_state as mpu
from grhpc.train.model import Architecture
from grhpc.train.parallel import Parallel

WHOLE, ROWS, COLUMNS, QKV, GATE_UP = "whole", "rows", "columns", "qkv", "gate_up"

_TOP = {
    "embedding.word_embeddings.weight": (("model.embed_tokens.weight",), ROWS),
    "output_layer.weight": (("lm_head.weight",), ROWS),
    "decoder.final_layernorm.weight": (("model.norm.weight",), WHOLE),
}
_LAYER = {
    "input_layernorm.weight": (("input_layernorm.weight",), WHOLE),
    "pre_mlp_layernorm.weight": (("post_attention_layernorm.weight",), WHOLE),
    "self_attention.q_layernorm.weight": (("self_attn.q_norm.weight",), WHOLE),
    "self_attention.k_layernorm.weight": (("self_attn.k_norm.weight",), WHOLE),
    "self_attention.linear_qkv.weight": (tuple(f"self_attn.{c}_proj.weight" for c in "qkv"), QKV),
    "self_attention.linear_qkv.bias": (tuple(f"self_attn.{c}_proj.bias" for c in "qkv"), QKV),
    "self_attention.linear_proj.weight": (("self_attn.o_proj.weight",), COLUMNS),
    "mlp.linear_fc1.weight": (("mlp.gate_proj.weight", "mlp.up_proj.weight"), GATE_UP),
    "mlp.linear_fc2.weight": (("mlp.down_proj.weight",), COLUMNS),
}
_LAYER_NAME = re.compile(r"decoder\.layers\.(\d+)\.(.+)")
_COMPANIONS = ("*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken")  # tokenizer and generation settings
_NOT_COMPANIONS = ("model.safetensors.index.json", "manifest.json")


@dataclass(frozen=True)
class Entry:
    """One local parameter and the Hugging Face tensors it is made of."""

    param: torch.nn.Parameter
    hf_names: tuple[str, ...]
    kind: str


def entries(model: GPTModel, arch: Architecture) -> list[Entry]:
    """The local parameters in a fixed order; a tied head on the last stage is the embedding's copy."""
    first_layer = model.decoder.layers[0].layer_number - 1
    found = []
    for name, param in model.named_parameters():
        layer = _LAYER_NAME.fullmatch(name)
        if layer:
            names, kind = _LAYER[layer[2]]
            prefix = f"model.layers.{int(layer[1]) + first_layer}."
            names = tuple(prefix + n for n in names)
        else:
            names, kind = _TOP[name]
            if name == "output_layer.weight" and arch.tied:
                names = ("model.embed_tokens.weight",)
        found.append(Entry(param, names, kind))
    return found


def split(kind: str, tensors: list[torch.Tensor], arch: Architecture, size: int, rank: int) -> torch.Tensor:
    """The shard of tensor-parallel rank `rank` of `size`, from whole Hugging Face tensors."""
    if kind == WHOLE:
        return tensors[0]
    if kind == COLUMNS:
        return tensors[0].chunk(size, 1)[rank]
    if kind == GATE_UP:
        return torch.cat([t.chunk(size, 0)[rank] for t in tensors])
    if kind == QKV:  # the queries of each key-value head stand beside it: [group, queries + key + value, ...]
        groups = [t.reshape(arch.num_kv_heads, -1, *t.shape[1:]) for t in tensors]
        return torch.cat(groups, 1).flatten(0, 1).chunk(size, 0)[rank]
    whole = tensors[0]
    missing = arch.padded_vocab_size - whole.shape[0]
    padded = torch.cat([whole, whole.new_zeros(missing, *whole.shape[1:])]) if missing else whole
    return padded.chunk(size, 0)[rank]


def merge(kind: str, shards: list[torch.Tensor], arch: Architecture) -> list[torch.Tensor]:
    """Whole Hugging Face tensors from the shards of all tensor-parallel ranks: the inverse of `split`."""
    if kind == WHOLE:
        return [shards[0]]
    if kind == COLUMNS:
        return [torch.cat(shards, 1)]
    if kind == GATE_UP:
        gates, ups = zip(*(s.chunk(2, 0) for s in shards), strict=True)
        return [torch.cat(gates), torch.cat(ups)]
    if kind == QKV:
        whole = torch.cat(shards)
        grouped = whole.reshape(arch.num_kv_heads, -1, *whole.shape[1:])
        queries = arch.num_heads // arch.num_kv_heads * arch.head_size
        parts = grouped.split([queries, arch.head_size, arch.head_size], 1)
        return [p.flatten(0, 1) for p in parts]
    return [torch.cat(shards)[: arch.vocab_size]]


@torch.no_grad()  # type: ignore[untyped-decorator]
def load(model: GPTModel, arch: Architecture, source: Mapping[str, torch.Tensor], parallel: Parallel) -> None:
    """Set every local parameter from Hugging Face tensors by name. Raises DataError on absence or a wrong shape."""
    for entry in entries(model, arch):
        tensors = [source[name] for name in entry.hf_names]
        shard = split(entry.kind, tensors, arch, parallel.tensor_size, parallel.tensor_rank)
        if shard.shape != entry.param.shape:
            raise DataError(
                f"the weight {entry.hf_names[0]} has a shape that does not fit config.json",
                "download the model again",
            )
        entry.param.copy_(shard)


def load_folder(model: GPTModel, arch: Architecture, folder: Path, parallel: Parallel) -> None:
    """`load` from a folder of safetensors files."""
    load(model, arch, SafetensorsFolder(folder), parallel)


class SafetensorsFolder(Mapping[str, torch.Tensor]):
    """A model folder's tensors by name, read when asked for. Raises DataError where a name or file is missing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file_of: dict[str, Path] = {}
        self._open: dict[Path, Any] = {}
        files = sorted(folder.glob("*.safetensors"))
        if not files:
            raise DataError(f"{folder} holds no *.safetensors", "name a Hugging Face model folder with safetensors")
        for path in files:
            for name in self._handle(path).keys():  # noqa: SIM118  (not a dict)
                self._file_of[name] = path

    def _handle(self, path: Path) -> Any:
        if path not in self._open:
            try:
                self._open[path] = safe_open(path, framework="pt")
            except (OSError, SafetensorError) as error:
                raise DataError(f"{path} cannot be read: {error}", "download the model again") from None
        return self._open[path]

    def __getitem__(self, name: str) -> torch.Tensor:
        path = self._file_of.get(name)
        if path is None:
            raise DataError(f"{self.folder} lacks the weight {name}", "download the model again")
        tensor: torch.Tensor = self._handle(path).get_tensor(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._file_of)

    def __len__(self) -> int:
        return len(self._file_of)


@torch.no_grad()  # type: ignore[untyped-decorator]
def export(model: GPTModel, arch: Architecture, parallel: Parallel) -> dict[str, torch.Tensor]:
    """This rank's share of the whole Hugging Face tensors, on the CPU; all ranks together hold each name once.

    The i-th parameter of a stage is gathered by data-parallel replica i mod replicas, and kept there by one of its
    tensor ranks in turn, so that neither memory nor writing falls on one rank.
    """
    share = {}
    for number, entry in enumerate(entries(model, arch)):
        copied_head = arch.tied and not parallel.is_first_stage and entry.kind == ROWS
        if copied_head or number % parallel.data_size != parallel.data_rank:
            continue
        keeper = number // parallel.data_size % parallel.tensor_size
        shards = [entry.param.detach()]
        if parallel.tensor_size > 1 and entry.kind != WHOLE:
            shards = [torch.empty_like(entry.param) for _ in range(parallel.tensor_size)]
            dist.all_gather(shards, entry.param.detach().contiguous(), group=mpu.get_tensor_model_parallel_group())
        if keeper == parallel.tensor_rank:
            for name, tensor in zip(entry.hf_names, merge(entry.kind, shards, arch), strict=True):
                share[name] = tensor.to("cpu", copy=True).contiguous()
    return share


def write_folder(
    model: GPTModel, arch: Architecture, folder: Path, base: Path, parallel: Parallel
) -> dict[str, Described]:
    """Write the model as a Hugging Face folder (existing, empty): every rank its shard, rank 0 what stands beside them.

    `base` is the folder that config.json and the tokenizer are copied from. All ranks must call; when it returns, all
    have written and synced. Returns each weight file's size and SHA-256, by its writer, on every rank.
    """
    share = export(model, arch, parallel)
    file = f"model-{parallel.rank + 1:05d}-of-{parallel.world_size:05d}.safetensors"
    if parallel.world_size == 1:
        file = "model.safetensors"
    mine = {}
    if share:
        save_file(share, folder / file, metadata={"format": "pt"})
        mine = {file: sync_and_describe(folder / file)}
    placed = parallel.gather({name: (file, tensor.nbytes) for name, tensor in share.items()})
    where = {name: place for part in placed for name, place in part.items()}
    if parallel.is_main:
        if parallel.world_size > 1:
            index = {
                "metadata": {"total_size": sum(size for _, size in where.values())},
                "weight_map": {name: where[name][0] for name in sorted(where)},
            }
            (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))
        _copy_companions(base, folder, next(iter(share.values())).dtype if share else None)
    return {name: entry for part in parallel.gather(mine) for name, entry in sorted(part.items())}


def _copy_companions(base: Path, folder: Path, dtype: torch.dtype | None) -> None:
    for pattern in _COMPANIONS:
        for path in base.glob(pattern):
            if path.name not in _NOT_COMPANIONS:
                shutil.copyfile(path, folder / path.name)
    if dtype is not None:
        config = json.loads((folder / "config.json").read_text())
        key = "torch_dtype" if "torch_dtype" in config else "dtype"
        config[key] = str(dtype).removeprefix("torch.")
        (folder / "config.json").write_text(json.dumps(config, indent=2))
