"""The layer specification: RMSNorm and attention in plain torch, so that CPUs and GPUs run the same code.

Megatron-Core's own specifications either need Transformer Engine or lack sequence parallelism (its torch norm) and
grouped-query scaled-dot-product attention (its own core attention builds the whole score matrix).

Does not know: weights, process groups beyond the tensor-parallel size.
Invariant: sequences are padded at the end, and attention is causal, so padding never reaches a real token; of several
in one packed row each is attended to apart, so none can reach another.
"""

import itertools
import math
from typing import Any

import torch
import torch.nn.functional as F

from grhpc.train.mcore import (
    MegatronModule,
    ProcessGroupCollection,
    TransformerBlockSubmodules,
    TransformerConfig,
    get_gpt_layer_local_spec,
    get_num_layers_to_build,
)


class RMSNorm(torch.nn.Module):  # type: ignore[misc]
    """Root-mean-square norm; its weight carries the mark by which sequence parallelism sums the gradient."""

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float = 1e-6, **_unused: Any) -> None:
        super().__init__()
        self.eps = eps
        self.weight = torch.nn.Parameter(torch.ones(hidden_size, dtype=config.params_dtype))
        self.weight.sequence_parallel = config.sequence_parallel

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(hidden, self.weight.shape, self.weight, self.eps)


class CausalAttention(MegatronModule):  # type: ignore[misc]
    """Causal scaled-dot-product attention over [sequence, batch, heads, head size], with grouped queries.

    Packed, over [tokens of the row, heads, head size]: what a mask of blocks would give, without its square of memory.
    """

    def __init__(
        self,
        config: TransformerConfig,
        layer_number: int,
        attn_mask_type: Any,
        attention_type: str,
        attention_dropout: float | None = None,
        softmax_scale: float | None = None,
        cp_comm_type: str | None = None,
        pg_collection: ProcessGroupCollection | None = None,
        **_unused: Any,
    ) -> None:
        super().__init__(config=config)
        self.scale = softmax_scale or 1.0 / math.sqrt(config.kv_channels)
        self.grouped = config.num_attention_heads != config.num_query_groups

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        attn_mask_type: Any = None,
        attention_bias: torch.Tensor | None = None,
        packed_seq_params: Any = None,
    ) -> torch.Tensor:
        if packed_seq_params is None:
            length, batch = query.shape[:2]
            return self._attend(query, key, value).reshape(length, batch, -1)
        row = [x.unsqueeze(1) for x in (query, key, value)]
        bounds = itertools.pairwise(packed_seq_params.cu_seqlens_q.tolist())
        return torch.cat([self._attend(*(x[first:end] for x in row)) for first, end in bounds]).squeeze(1)

    def _attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        q, k, v = (x.permute(1, 2, 0, 3) for x in (query, key, value))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=self.scale, enable_gqa=self.grouped)
        return out.permute(2, 0, 1, 3)


def block_spec(config: TransformerConfig) -> TransformerBlockSubmodules:
    """This pipeline stage's decoder layers and the final norm."""
    layer = get_gpt_layer_local_spec(qk_layernorm=config.qk_layernorm, normalization="RMSNorm")
    parts = layer.submodules
    parts.input_layernorm = parts.pre_mlp_layernorm = RMSNorm
    attention = parts.self_attention.submodules
    attention.core_attention = CausalAttention
    if config.qk_layernorm:
        attention.q_layernorm = attention.k_layernorm = RMSNorm
    return TransformerBlockSubmodules(layer_specs=[layer] * get_num_layers_to_build(config), layer_norm=RMSNorm)
