"""Random models of the supported families, small enough to train in milliseconds; written by transformers itself."""

from pathlib import Path

import torch
import transformers

VOCAB = 500  # not a multiple of 128: the vocabulary is padded
KINDS = ("qwen2", "qwen2-tied", "qwen3", "qwen3-tied")


def make_model(folder: Path, kind: str) -> Path:
    """A model folder of `kind`, its norms and biases moved away from one and zero so that a mix-up shows."""
    settings = {
        "vocab_size": VOCAB,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "tie_word_embeddings": kind.endswith("tied"),
        "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
        "initializer_range": 0.06,
    }
    if kind.startswith("qwen3"):
        model = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**settings, head_dim=32))
    else:
        model = transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**settings))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for param in model.parameters():
            noise = torch.randn(param.shape, generator=generator)
            param.copy_(param + 0.1 * noise if param.ndim == 1 else 0.06 * noise)
    model.float().save_pretrained(folder)
    return folder
