"""A Hugging Face model folder's config.json -> a Megatron-Core GPTModel of the same architecture.

Qwen2, Qwen2.5 and Qwen3 (dense), tied and untied. What the trainer cannot compute exactly (scaled rotary embeddings,
sliding windows, mixtures of experts) is refused, never approximated.

Does not know: weights (weight_map.py), optimizers, losses.
Invariant: the padded vocabulary does not depend on the layout, so that a checkpoint can be read under another one.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from grhpc.errors import ConfigError, DataError
from grhpc.train.mcore import GPTModel, TransformerConfig, finalize_model_grads
from grhpc.train.parallel import Parallel
from grhpc.train.spec import block_spec

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
_SUPPORTED = ("qwen2", "qwen3")


@dataclass(frozen=True)
class Architecture:
    """What of config.json decides the computation. `head_size` is per attention head."""

    family: str
    vocab_size: int
    hidden_size: int
    ffn_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_size: int
    norm_eps: float
    rope_theta: float
    max_positions: int
    tied: bool

    @property
    def padded_vocab_size(self) -> int:
        return -(-self.vocab_size // 128) * 128


def read_architecture(model_dir: Path) -> Architecture:
    """The architecture of a model folder. Raises DataError where it is missing or not supported."""
    path = model_dir / "config.json"
    try:
        tree: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        raise DataError(f"{model_dir} holds no config.json", "name a Hugging Face model folder") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}", "download the model again") from None
    family = str(tree.get("model_type", ""))
    if family not in _SUPPORTED:
        raise DataError(
            f"{model_dir} is of model type {family!r}, which the trainer does not support",
            f"use a model of type {' or '.join(_SUPPORTED)} (Qwen2, Qwen2.5, Qwen3)",
        )
    _refuse_unsupported(model_dir, tree)
    try:
        heads = int(tree["num_attention_heads"])
        return Architecture(
            family=family,
            vocab_size=int(tree["vocab_size"]),
            hidden_size=int(tree["hidden_size"]),
            ffn_size=int(tree["intermediate_size"]),
            num_layers=int(tree["num_hidden_layers"]),
            num_heads=heads,
            num_kv_heads=int(tree.get("num_key_value_heads") or heads),
            head_size=int(tree.get("head_dim") or tree["hidden_size"] // heads),
            norm_eps=float(tree.get("rms_norm_eps", 1e-6)),
            rope_theta=float(_rope(tree).get("rope_theta") or tree.get("rope_theta") or 10000.0),
            max_positions=int(tree.get("max_position_embeddings", 32768)),
            tied=bool(tree.get("tie_word_embeddings", False)),
        )
    except KeyError as error:
        raise DataError(f"{path} lacks {error.args[0]!r}", "download the model again") from None


def _rope(tree: dict[str, Any]) -> dict[str, Any]:
    return tree.get("rope_parameters") or tree.get("rope_scaling") or {}


def _refuse_unsupported(model_dir: Path, tree: dict[str, Any]) -> None:
    rope_type = _rope(tree).get("rope_type", _rope(tree).get("type", "default"))
    for present, what in (
        (rope_type != "default", f"rotary scaling of type {rope_type!r}"),
        (bool(tree.get("use_sliding_window")), "a sliding attention window"),
        (tree.get("hidden_act", "silu") != "silu", f"the activation {tree.get('hidden_act')!r}"),
        (tree["model_type"] == "qwen3" and bool(tree.get("attention_bias")), "attention biases in a Qwen3 model"),
    ):
        if present:
            raise DataError(f"{model_dir} uses {what}, which the trainer does not support", "use another base model")


def check_layout(arch: Architecture, tensor: int, pipeline: int) -> None:
    """Raise ConfigError where the layout does not divide the architecture."""
    for number, what, size, setting in (
        (arch.num_heads, "attention heads", tensor, "tensor_parallel"),
        (arch.num_kv_heads, "key-value heads", tensor, "tensor_parallel"),
        (arch.ffn_size, "feed-forward columns", tensor, "tensor_parallel"),
        (arch.padded_vocab_size, "vocabulary rows", tensor, "tensor_parallel"),
        (arch.num_layers, "layers", pipeline, "pipeline_parallel"),
    ):
        if number % size:
            fitting = [str(n) for n in range(1, size) if number % n == 0]
            raise ConfigError(
                f"train.{setting} {size} does not divide the model's {number} {what}",
                f"set train.{setting} to one of: {', '.join(fitting)}",
            )


def transformer_config(
    arch: Architecture, parallel: Parallel, dtype: torch.dtype, *, sequence_parallel: bool, recompute: bool
) -> TransformerConfig:
    """Megatron-Core's settings for this architecture and layout; every fusion that needs CUDA extensions is off."""
    on_cpu = parallel.device.type == "cpu"
    return TransformerConfig(
        num_layers=arch.num_layers,
        hidden_size=arch.hidden_size,
        ffn_hidden_size=arch.ffn_size,
        num_attention_heads=arch.num_heads,
        num_query_groups=arch.num_kv_heads,
        kv_channels=arch.head_size,
        normalization="RMSNorm",
        layernorm_epsilon=arch.norm_eps,
        qk_layernorm=arch.family == "qwen3",
        add_qkv_bias=arch.family == "qwen2",
        add_bias_linear=False,
        gated_linear_unit=True,
        activation_func=F.silu,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        attention_softmax_in_fp32=True,
        tensor_model_parallel_size=parallel.tensor_size,
        pipeline_model_parallel_size=parallel.pipeline_size,
        sequence_parallel=sequence_parallel and parallel.tensor_size > 1,
        params_dtype=dtype,
        pipeline_dtype=dtype,
        bf16=dtype == torch.bfloat16,
        use_cpu_initialization=on_cpu,
        perform_initialization=True,  # also marks the weights that are cut, by which the gradient norm counts them
        gradient_accumulation_fusion=False,
        masked_softmax_fusion=False,
        bias_activation_fusion=False,
        bias_dropout_fusion=False,
        apply_rope_fusion=False,
        persist_layer_norm=False,
        batch_p2p_comm=False,
        variable_seq_lengths=True,
        moe_token_dispatcher_type="alltoall",  # asked for by variable_seq_lengths, in dense models too
        calculate_per_token_loss=True,
        finalize_model_grads_func=finalize_model_grads,
        recompute_granularity="full" if recompute else None,
        recompute_method="uniform" if recompute else None,
        recompute_num_layers=1 if recompute else None,
    )


class HeadlessModel(GPTModel):  # type: ignore[misc]
    """Ends in hidden states, [length (/ TP under sequence parallelism), batch, hidden size], on the last stage too:
    logprobs.py takes the output layer's weight and makes the logits of a few tokens at a time."""

    def _postprocess(self, hidden_states: torch.Tensor, **_unused: Any) -> torch.Tensor:
        return hidden_states

    @property
    def output_weight(self) -> torch.Tensor:
        """[padded vocabulary / TP, hidden size], of the last stage."""
        tied = self.share_embeddings_and_output_weights
        weight: torch.Tensor = self.shared_embedding_or_output_weight() if tied else self.output_layer.weight
        return weight


def build_model(arch: Architecture, config: TransformerConfig, parallel: Parallel) -> HeadlessModel:
    """This rank's part of the model, on its device, weights not yet set."""
    model = HeadlessModel(
        config=config,
        transformer_layer_spec=block_spec(config),
        vocab_size=arch.padded_vocab_size,
        max_sequence_length=arch.max_positions,
        pre_process=parallel.is_first_stage,
        post_process=parallel.is_last_stage,
        fp16_lm_cross_entropy=False,
        parallel_output=True,
        share_embeddings_and_output_weights=arch.tied,
        position_embedding_type="rope",
        rotary_base=arch.rope_theta,
    )
    model.to(parallel.device)
    return model
