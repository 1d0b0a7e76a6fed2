"""What the trainer cannot compute exactly is refused in words, and the CPU platform leaves torch alone."""

import json
import subprocess
import sys

import pytest

from grhpc.errors import DataError
from grhpc.train.model import read_architecture


def changed(model_of, tmp_path, kind="qwen3", **changes):
    tree = json.loads((model_of(kind) / "config.json").read_text())
    tree.update(changes)
    (tmp_path / "config.json").write_text(json.dumps({k: v for k, v in tree.items() if v is not None}))
    return tmp_path


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "llama"}, "model type 'llama'"),
        ({"model_type": "qwen3_moe"}, "model type 'qwen3_moe'"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e6}}, "rotary scaling of type 'yarn'"),
        ({"use_sliding_window": True}, "sliding attention window"),
        ({"hidden_act": "gelu"}, "activation 'gelu'"),
        ({"attention_bias": True}, "attention biases"),
        ({"hidden_size": None}, "lacks 'hidden_size'"),
    ],
)
def test_unsupported_model_is_refused_in_words(model_of, tmp_path, changes, words):
    with pytest.raises(DataError, match=words):
        read_architecture(changed(model_of, tmp_path, **changes))


def test_missing_or_broken_config_is_named(tmp_path):
    with pytest.raises(DataError, match=r"holds no config\.json"):
        read_architecture(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        read_architecture(tmp_path)


def test_rope_base_is_read_in_old_and_new_spelling(model_of, tmp_path):
    assert read_architecture(model_of("qwen3")).rope_theta == 1_000_000
    old = changed(model_of, tmp_path, rope_parameters=None, rope_theta=5e5, rope_scaling=None)
    assert read_architecture(old).rope_theta == 5e5


def test_megatron_sees_a_cpu_where_everybody_else_sees_torch():
    """In a process of its own: the shim must not leak into torch.cuda, where other libraries look."""
    program = """
import torch
before = {name: getattr(torch.cuda, name) for name in ("current_device", "synchronize", "Stream", "get_rng_state")}
zeros = torch.zeros
from grhpc.train import mcore, platform
from megatron.core.pipeline_parallel import schedules
if not torch.cuda.is_available():
    assert schedules.torch is not torch
    assert schedules.torch.zeros(2, device="cuda", pin_memory=True).device.type == "cpu"
    assert str(schedules.torch.cuda.current_device()) == "cpu"
    assert torch.ones(2).type() == "torch.FloatTensor"
    assert not platform.install(), "a second call does nothing"
assert {name: getattr(torch.cuda, name) for name in before} == before
assert torch.zeros is zeros
print("fine")
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=800)
    assert result.stdout.strip().endswith("fine"), result.stderr
