"""What `plan` counts, against models counted by hand."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from grhpc.cluster import footprint
from grhpc.cluster.footprint import Layout
from grhpc.cluster.plan import gpus, gpus_a_job, plan
from grhpc.config import (
    ClusterConfig,
    Config,
    DataConfig,
    GrpoConfig,
    ModelConfig,
    RoleConfig,
    RunConfig,
    TrainConfig,
    VerifierConfig,
)
from grhpc.config_file import load_any

# Qwen2.5-7B, from its config.json; its card says 7.61 B parameters.
QWEN_7B = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "tie_word_embeddings": False,
}


def make(folder: Path, **train: int) -> Config:
    model = folder / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(QWEN_7B))
    (folder / "prepared").mkdir()
    (folder / "prepared/manifest.json").write_text(json.dumps({"prompts": {"train": 3840, "heldout": 10}}))
    return Config(
        run=RunConfig("big", dir=str(folder)),
        policy=ModelConfig(str(model)),
        verifier=VerifierConfig("org/verifier"),
        data=DataConfig(str(folder / "prepared")),
        train=TrainConfig(steps=10, **train),
        grpo=GrpoConfig(groups_per_step=768, updates_per_step=4, kl_coef=1e-4),
        cluster=ClusterConfig(
            train=RoleConfig(nodes=2, tasks_per_node=8, gpus_per_node=8, partition="h100", mem_gb=20),
            rollout=RoleConfig(tasks=12, gres="gpu:h100:1", max_concurrent=6),
            verify=RoleConfig(tasks=4, gpus_per_node=1),
        ),
    )


def test_counts_a_known_model() -> None:
    shape = footprint.Shape.of(QWEN_7B)
    assert abs(shape.parameters - 7.61e9) < 0.01e9
    assert shape.kv_bytes_a_token == 57344  # 56 KiB in bf16
    assert footprint.weights_bytes(shape, "bfloat16") == 2 * shape.parameters
    whole = footprint.trainer_bytes_a_rank(shape, "bfloat16", Layout(), with_reference=False)
    assert whole == 18 * shape.parameters  # 2 weights, 4 gradients, 12 optimizer
    cut = footprint.trainer_bytes_a_rank(shape, "bfloat16", Layout(4, 2, 2), with_reference=True)
    assert cut == (2 + 2 + 4 + 6) * shape.parameters // 8


def test_activations_are_those_that_the_layout_leaves_and_hold_no_logits_of_all_tokens() -> None:
    shape, tokens = footprint.Shape.of(QWEN_7B), 4 * 5120
    layout = Layout(2, 1, 8, sequence_parallel=True, recompute=True)
    small = footprint.activation_bytes(shape, "bfloat16", layout, tokens)
    assert small < 2 * 4 * tokens * shape.vocab / 2, "the logits alone would take 5.5 times 4 bytes each"
    kept = 2 * tokens * 28 * 3584 / 2
    assert kept < small < 4 * kept
    assert small < footprint.activation_bytes(shape, "bfloat16", replace(layout, sequence_parallel=False), tokens)
    assert footprint.activation_bytes(shape, "bfloat16", replace(layout, recompute=False), tokens) > 5 * small
    few = footprint.activation_bytes(shape, "bfloat16", layout, 100)
    assert few > 6 * shape.vocab / 2 * shape.hidden, "the output layer's gradient does not shrink with the tokens"


def test_says_jobs_gpus_layout_length_memory_and_disk(tmp_path: Path) -> None:
    config = make(tmp_path, tensor_parallel=4, pipeline_parallel=2)
    assert [gpus(config, role) for role in ("train", "rollout", "verify")] == [16, 12, 4]
    text = plan(config)
    for line in (
        "train: one job of 16 ranks, on 2 nodes, 16 GPUs",
        "rollout: 12 tasks, each within one node, 12 GPUs",
        "  #SBATCH --partition=h100",
        "  #SBATCH --array=0-11%6",
        "GPUs in all: 32",
        "trainer: 16 ranks = TP 4 x PP 2 x DP 2, 8 a node on 2 nodes",
        "groups in all: 7680, 2.00 epochs of 3840 prompts",
        "trainer memory: 12.4 GiB a rank for weights, gradients, optimizer and the KL term's reference of 7615.3 M",
        "trainer host memory: about 43.2 GiB a node, but mem_gb is 20",
        "rollout memory: 14.2 GiB weights a GPU, 56.0 KiB of KV cache a token",
        "verify memory: unknown: org/verifier is not on this machine; download it, or name its folder in verifier.m",
        "disk: 56.7 GiB for 4 weight versions",
        "disk for the batches, which are all kept: at most 2.3 GiB, 9.8 bytes a token of responses of up to 4096",
    ):
        assert line in text, text
    assert [path.name for path in tmp_path.iterdir()] != ["big"]  # nothing was made


@pytest.mark.parametrize(
    ("asked", "count"),
    [
        ({"gres": "gpu:2"}, 2),
        ({"gres": "gpu"}, 1),
        ({"gres": "shard:3,gpu:h100:4", "gpus_per_node": 1, "nodes": 2}, 8),
        ({"gpus_per_node": 3, "nodes": 2}, 6),
        ({}, 0),
    ],
)
def test_gpus_are_counted_however_they_are_asked_for(asked: dict[str, Any], count: int) -> None:
    assert gpus_a_job(RoleConfig(**asked)) == count


def test_a_model_of_the_hub_is_read_from_its_cache_and_else_missed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    config = make(tmp_path)
    config = replace(config, policy=ModelConfig("org/policy"))
    assert plan(config).count("org/policy is not on this machine") == 1
    folder = tmp_path / "hub" / "models--org--policy"
    (folder / "snapshots" / "abc").mkdir(parents=True)
    (folder / "snapshots" / "abc" / "config.json").write_text(json.dumps(QWEN_7B))
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    assert "rollout memory: 14.2 GiB weights a GPU" in plan(config)


@pytest.mark.parametrize("path", sorted(Path("configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_configuration_has_a_plan_whatever_kind_of_run_it_is(path: Path) -> None:
    config = load_any(path)
    told = plan(config)
    for role in config.roles:
        assert f"\n{role}: " in told
    if "train" in config.roles or "sft" in config.roles:
        assert "\ntrainer: " in told


def test_a_run_of_fine_tuning_counts_its_one_job_its_model_and_its_checkpoints() -> None:
    told = plan(load_any("configs/tiny-verifier.yaml"))
    assert "sft: one job of 1 ranks" in told and "length: 2 epochs" in told
    assert "4.6 MiB for the model, 54.8 MiB for 3 checkpoints" in told


def test_the_evaluations_that_a_run_starts_are_told() -> None:
    told = plan(load_any("configs/tiny.yaml", ["evaluate.every=10", "evaluate.config=configs/eval.yaml"]))
    assert "evaluations: 4, of every 10. version and the last, each with 8 tasks and 8 GPUs: configs/eval.yaml" in told
    assert "evaluations: " not in plan(load_any("configs/tiny.yaml"))


def test_an_evaluation_names_its_benchmarks_its_model_and_its_judge() -> None:
    model = "grhpc/data/tiny_models/policy"
    judge = ["verify.mode=generative", f"verifier.model={model}"]
    told = plan(load_any("configs/eval-tiny.yaml", [f"model.model={model}", *judge]))
    assert (
        "benchmarks: tiny" in told and "model memory: 4.6 MiB weights" in told and "judge memory: 2.3 MiB" in told
    )  # in bfloat16
