"""How much memory and disk a run will take, from the models' own config.json.

Does not know: where models lie, who asks. Invariant: arithmetic only. Activations are not counted: they depend on
micro_batch_size and recomputation, and are what the rest of the GPU is for.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

BYTES = {"bfloat16": 2, "float32": 4}
GRADIENT = 4  # Megatron accumulates gradients in fp32
OPTIMIZER = 12  # fp32 master weights and Adam's two moments, shared out over the data-parallel ranks


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


def trainer_bytes_a_rank(shape: Shape, dtype: str, tensor: int, pipeline: int, data: int) -> int:
    """Weights, gradients and optimizer state on one rank under the distributed optimizer."""
    own = shape.parameters / (tensor * pipeline)
    return round(own * (BYTES[dtype] + GRADIENT + OPTIMIZER / data))


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
