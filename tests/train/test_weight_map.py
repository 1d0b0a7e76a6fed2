"""Hugging Face weights survive the way into the trainer and out again, bit for bit, under every layout."""

import json

import pytest
import rank_tasks
import torch
from safetensors.torch import load_file, save_file
from tiny_models import KINDS, make_model
from trainer_cases import make_config
from transformers import AutoModelForCausalLM

from grhpc.errors import DataError
from grhpc.store.transfer import describe
from grhpc.train.weight_map import SafetensorsFolder

LAYOUTS = [(1, 1, 1), (2, 2, 4), (2, 1, 4), (1, 2, 2)]  # TP, PP, ranks


def read_all(folder):
    return {name: t for path in folder.glob("*.safetensors") for name, t in load_file(path).items()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("tensor", "pipeline", "ranks"), LAYOUTS)
def test_round_trip_is_bit_equal(pool, model_of, tmp_path, kind, tensor, pipeline, ranks):
    config = make_config(train={"tensor_parallel": tensor, "pipeline_parallel": pipeline})
    pool.run(ranks, rank_tasks.export, config, model_of(kind), tmp_path)
    before, after = read_all(model_of(kind)), read_all(tmp_path)
    assert after.keys() == before.keys()
    for name, tensor_before in before.items():
        assert torch.equal(after[name], tensor_before), name


def test_exported_folder_loads_in_transformers(pool, model_of, tmp_path):
    config = make_config(train={"tensor_parallel": 2, "pipeline_parallel": 2})
    (model_of("qwen3") / "tokenizer_config.json").write_text("{}")
    named = pool.run(4, rank_tasks.export, config, model_of("qwen3"), tmp_path)
    described = {path.name: describe(path) for path in tmp_path.glob("*.safetensors")}
    assert named == [described] * 4, "every rank knows every file, as its writer described it"
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    for name, file in index["weight_map"].items():
        assert name in load_file(tmp_path / file)
    assert len(set(index["weight_map"].values())) == 4, "every rank writes its share"
    assert (tmp_path / "tokenizer_config.json").exists()
    ids = torch.arange(20)[None]
    ours = AutoModelForCausalLM.from_pretrained(tmp_path)(ids).logits
    theirs = AutoModelForCausalLM.from_pretrained(model_of("qwen3"))(ids).logits
    assert torch.equal(ours, theirs)


def test_bfloat16_round_trip_is_bit_equal(pool, model_of, tmp_path):
    source, out = tmp_path / "source", tmp_path / "out"
    make_model(source, "qwen3")
    weights = {name: t.bfloat16() for name, t in read_all(source).items()}
    save_file(weights, source / "model.safetensors", metadata={"format": "pt"})
    out.mkdir()
    pool.run(2, rank_tasks.export, make_config(dtype="bfloat16", train={"tensor_parallel": 2}), source, out)
    after = read_all(out)
    assert all(torch.equal(after[name], t) and after[name].dtype == torch.bfloat16 for name, t in weights.items())
    config = json.loads((out / "config.json").read_text())
    assert config.get("dtype", config.get("torch_dtype")) == "bfloat16"


def test_missing_weight_is_named(model_of, tmp_path):
    weights = read_all(model_of("qwen3"))
    del weights["model.norm.weight"]
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(DataError, match=r"model\.norm\.weight"):
        SafetensorsFolder(tmp_path)["model.norm.weight"]


def test_truncated_file_is_named(model_of, tmp_path):
    whole = (model_of("qwen3") / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"model\.safetensors"):
        SafetensorsFolder(tmp_path)


def test_folder_without_weights_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no \*\.safetensors"):
        SafetensorsFolder(tmp_path)
