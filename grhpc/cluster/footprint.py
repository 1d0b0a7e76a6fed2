"""How much memory and disk a run will take, from the models' own config.json.

The bytes of activations were counted on a CPU, tensor by tensor, for the very code that GPUs run; what CUDA, NCCL and
fragmentation take comes on top. Does not know: where models lie, who asks. Invariant: arithmetic only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

BYTES = {"bfloat16": 2, "float32": 4}
GRADIENT = 4  # Megatron accumulates gradients in fp32
OPTIMIZER = 12  # fp32 master weights and Adam's two moments, shared out over the data-parallel ranks
CHUNK = 1024  # tokens whose logits the trainer makes at a time (train/logprobs.py)
RECORDED_A_TOKEN = 9.8  # of a response in a step's recorded batch: id, log-probability, text; of long ones, measured
PROCESS_GIB = 4  # of host memory, of a rank with CUDA and NCCL: an estimate, not measured


@dataclass(frozen=True)
class Shape:
    """What counts of a Qwen2 or Qwen3 model's config.json."""

    hidden: int
    layers: int
    intermediate: int
    vocab: int
    heads: int
    kv_heads: int
    head_dim: int
    tied: bool

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Shape":
        """Raises KeyError for what is no such config."""
        heads = int(config["num_attention_heads"])
        return cls(
            hidden=int(config["hidden_size"]),
            layers=int(config["num_hidden_layers"]),
            intermediate=int(config["intermediate_size"]),
            vocab=int(config["vocab_size"]),
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads", heads)),
            head_dim=int(config.get("head_dim") or config["hidden_size"] // heads),
            tied=bool(config.get("tie_word_embeddings", False)),
        )

    @property
    def parameters(self) -> int:
        """Weights of the model, biases and norms left out (less than a thousandth)."""
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        block = attention + 3 * self.hidden * self.intermediate
        return self.layers * block + self.vocab * self.hidden * (1 if self.tied else 2)

    @property
    def kv_bytes_a_token(self) -> int:
        """Of the key-value cache, for two-byte caches."""
        return 2 * 2 * self.layers * self.kv_heads * self.head_dim


@dataclass(frozen=True)
class Layout:
    """How the trainer's ranks share a model, and what of its settings decides the activations."""

    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    sequence_parallel: bool = False
    recompute: bool = False

    @property
    def world(self) -> int:
        return self.tensor * self.pipeline * self.data


def trainer_bytes_a_rank(shape: Shape, dtype: str, layout: Layout, *, with_reference: bool) -> int:
    """Weights, gradients and optimizer state on one rank under the distributed optimizer, and the weights of the KL
    term's reference."""
    own = shape.parameters / (layout.tensor * layout.pipeline)
    return round(own * (BYTES[dtype] * (1 + with_reference) + GRADIENT + OPTIMIZER / layout.data))


def activation_bytes(shape: Shape, dtype: str, layout: Layout, num_tokens: int) -> int:
    """What a micro-batch of `num_tokens`, padding included, takes on one rank besides, at most: what every layer keeps
    for the backward pass, then the larger of one layer's computation and the output layer's. A pipeline's first stage
    holds as many micro-batches as there are stages, so its depth saves nothing here."""
    a_column = BYTES[dtype] * num_tokens
    if layout.recompute:
        kept = shape.layers * shape.hidden / (layout.tensor if layout.sequence_parallel else 1)
        computing = 7 * shape.intermediate / layout.tensor + 17 * shape.hidden
    else:
        kept = shape.layers * (5 * shape.intermediate / layout.tensor + 15 * shape.hidden)
        computing = 0.0
    rows = shape.vocab / layout.tensor
    output = 2 * 4 * min(CHUNK, num_tokens) * rows + rows * shape.hidden * (4 + BYTES[dtype])
    return round(a_column * kept + max(a_column * computing, output))


def host_bytes_a_node(shape: Shape, dtype: str, layout: Layout, ranks: int) -> int:
    """Of a node with `ranks` of the trainer's: the processes, the share of the weights that each brings to the host to
    publish them, and the largest tensor, of which a checkpoint brings one at a time."""
    share = weights_bytes(shape, dtype) / layout.world
    largest = 4 * shape.vocab * shape.hidden / layout.tensor
    return round(ranks * (PROCESS_GIB * 2**30 + share + largest))


def recorded_bytes(num_tokens: int) -> int:
    """The batches that a run keeps for good, of as many response tokens."""
    return round(RECORDED_A_TOKEN * num_tokens)


def weights_bytes(shape: Shape, dtype: str) -> int:
    """One published version on disk."""
    return shape.parameters * BYTES[dtype]


def checkpoint_bytes(shape: Shape, dtype: str) -> int:
    """One checkpoint on disk: weights and optimizer state, each once."""
    return shape.parameters * (BYTES[dtype] + OPTIMIZER)


def human(num_bytes: float) -> str:
    """1536 -> "1.5 KiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(num_bytes) < 1024:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.1f} TiB"
