"""What can be refused before anything is made: models, parallel sizes, GPUs, prepared data that lack what is asked.

Does not know: how a run is made or launched. Invariant: writes nothing.
"""

import json
import re
from pathlib import Path
from typing import Any

from grhpc.cluster.plan import gpus_a_job
from grhpc.cluster.sbatch import role_config
from grhpc.config import Config
from grhpc.data import hub
from grhpc.data.manifest import read_manifest
from grhpc.errors import ConfigError, DataError
from grhpc.eval_config import EvalConfig
from grhpc.kinds import Settings, Training
from grhpc.sft_config import SftConfig

TINY = "tiny"  # the world and its oracle
ARCHITECTURES = ("Qwen2ForCausalLM", "Qwen3ForCausalLM")  # what train/ can map to Megatron-Core


def check(config: Settings) -> None:
    """Raise ConfigError or DataError for the first thing that cannot work."""
    _check_gpus(config)
    if isinstance(config, SftConfig):
        _check_trained(model_config(config.model.model, "model.model"), "model.model", config)
    elif isinstance(config, EvalConfig):
        _check_evaluated(config)
    else:
        _check_grpo(config)


def prepared_digest(config: Settings) -> str:
    """Of the rows that the run trains on; "" where there are none."""
    if isinstance(config, EvalConfig):  # it holds its questions itself
        return ""
    manifest = read_manifest(Path(config.data.prepared))
    return "" if manifest is None else str(manifest["sha256"]["train"])


def few_heldout(config: Settings) -> str:
    """In words, that fewer held-out prompts are prepared than the configuration asks for; empty where all are there.

    Raises ConfigError where there is none at all to evaluate on."""
    if not isinstance(config, Config) or not config.evaluate.heldout_every:
        return ""
    asked, folder = config.evaluate, config.data.prepared
    manifest, wanted = read_manifest(Path(folder)), asked.heldout_prompts
    there = manifest["prompts"]["heldout"] if manifest else 0
    if not there:
        raise ConfigError(
            f"evaluate.heldout_every is {asked.heldout_every}, and {folder} holds no held-out prompt",
            "name data.heldout_source and another data.prepared; or --set evaluate.heldout_every=0",
        )
    few = f"held-out: all {there} prompts that there are, fewer than evaluate.heldout_prompts, which is {wanted}"
    return few if there < wanted else ""


def _check_gpus(config: Settings) -> None:
    """A rank without a GPU of its own, or an engine with too few, would say so only after its time in the queue."""
    for role in config.roles:
        asked, each = role_config(config, role), _gpus_a_task(config, role)
        have, needed = gpus_a_job(asked) // asked.nodes, asked.tasks_per_node * each
        if have and have < needed and not any(key.startswith(("gpu", "gres", "tres")) for key in asked.extra):
            raise ConfigError(
                f"the {role} role has {have} GPU{'s' * (have > 1)} a node, and needs {needed}: "
                f"tasks_per_node {asked.tasks_per_node}, each with {each}",
                "raise gpus_per_node (or gres) in its section of cluster, or lower tasks_per_node or tensor_parallel",
            )


def _gpus_a_task(config: Settings, role: str) -> int:
    """A rank trains on one; of the engines that a task may start, one lives at a time."""
    if isinstance(config, SftConfig) or role == "train":
        return 1
    asks_engine = config.verify.asks_a_model and not config.verifier.endpoint.url
    judge = config.verify.engine.tensor_parallel if asks_engine else 0
    if isinstance(config, EvalConfig):
        return max(judge, 0 if config.sample.endpoint.url else config.sample.engine.tensor_parallel)
    return config.rollout.engine.tensor_parallel if role == "rollout" else judge


def _check_evaluated(config: EvalConfig) -> None:
    asks_engine = config.verify.asks_a_model and not config.verifier.endpoint.url
    if asks_engine:
        _check_judge(config, model_config(config.verifier.model, "verifier.model"))
    if not config.sample.endpoint.url:
        model = model_config(config.model.model, "the model")
        _check_positions(
            model,
            config.data.max_prompt_tokens + config.sample.max_response_tokens,
            "prompt + response",
            "the model",
            "lower data.max_prompt_tokens or sample.max_response_tokens",
        )
        _check_heads(model, config.sample.engine.tensor_parallel, "the model", "sample.engine.tensor_parallel")


def _check_grpo(config: Config) -> None:
    if config.evaluate.oracle == TINY and (config.data.source or TINY) != TINY:
        raise ConfigError(
            f"evaluate.oracle tiny knows the answers of the tiny world alone, and data.source is {config.data.source}",
            "--set evaluate.oracle= (or `oracle: ''` in the file): held-out answers are then judged, and no more",
        )
    policy = model_config(config.policy.model, "policy.model")
    verifier = model_config(config.verifier.model, "verifier.model") if config.verify.asks_a_model else {}
    _check_policy(config, policy)
    _check_heads(verifier, config.verify.engine.tensor_parallel, "verifier.model", "verify.engine.tensor_parallel")
    if not config.verifier.endpoint.url:
        _check_judge(config, verifier)


def model_config(model: str, where: str) -> dict[str, Any]:
    """The model's config.json, from its folder or the Hub (or the Hub's local cache). Raises DataError."""
    folder = Path(model)
    if folder.is_dir():
        path = folder / "config.json"
        if not path.is_file():
            raise DataError(f"{where}: {model} has no config.json", "name a Hugging Face model folder")
    elif re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", model):
        path = _from_hub(model, where)
    else:
        raise DataError(f"{where}: no such model folder: {model}", "name a folder that exists, or a Hub id")
    try:
        config: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise DataError(f"{where}: {path} is not valid JSON: {error}", "download the model again") from None
    return config


def _from_hub(model: str, where: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        hub.answers()
        return Path(hf_hub_download(model, "config.json"))
    except hub.errors() as error:
        raise DataError(
            f"{where}: neither a folder nor a Hub model that can be had: {model} ({hub.reason(error)})",
            f"{hub.REMEDY}; or name a model's folder",
        ) from None


def _check_policy(config: Config, policy: dict[str, Any]) -> None:
    _check_trained(policy, "policy.model", config)
    _check_heads(policy, config.rollout.engine.tensor_parallel, "policy.model", "rollout.engine.tensor_parallel")


def _check_trained(model: dict[str, Any], where: str, config: Training) -> None:
    """Whether the trainer can build the model, cut it as it is told, and train on sequences of this length."""
    architecture = (model.get("architectures") or ["unknown"])[0]
    if architecture not in ARCHITECTURES:
        raise DataError(
            f"{where} is a {architecture}, which the trainer cannot build",
            f"use one of: {', '.join(ARCHITECTURES)}",
        )
    _check_heads(model, config.train.tensor_parallel, where, "train.tensor_parallel")
    layers, stages = model["num_hidden_layers"], config.train.pipeline_parallel
    if layers % stages:
        raise ConfigError(
            f"train.pipeline_parallel {stages} does not divide {where}'s {layers} layers", _divisors(layers)
        )
    if isinstance(config, SftConfig):
        longest, what, remedy = config.data.max_tokens, "an example", "lower data.max_tokens"
    else:
        longest, what = config.data.max_prompt_tokens + config.rollout.max_response_tokens, "prompt + response"
        remedy = "lower data.max_prompt_tokens or rollout.max_response_tokens"
    _check_positions(model, longest, what, where, remedy)


def _check_positions(model: dict[str, Any], longest: int, what: str, where: str, remedy: str) -> None:
    positions = model.get("max_position_embeddings", longest)
    if longest > positions:
        raise ConfigError(f"{what} may have {longest} tokens, but {where} has {positions} positions", remedy)


def _check_judge(config: Config | EvalConfig, verifier: dict[str, Any]) -> None:
    """A judge that holds less than the settings allow would leave every longer question without a verdict."""
    longest = config.verifier.max_input_tokens + config.verifier.max_new_tokens
    positions = verifier.get("max_position_embeddings", longest)
    if longest > positions:
        raise ConfigError(
            f"the judge's question + reason may have {longest} tokens, but verifier.model has {positions} positions",
            "lower verifier.max_input_tokens or verifier.max_new_tokens",
        )


def _check_heads(model: dict[str, Any], parallel: int, where: str, setting: str) -> None:
    """Tensor parallelism cuts the attention heads; the key-value heads too where the trainer cuts them."""
    heads = model.get("num_attention_heads", parallel)
    groups = model.get("num_key_value_heads", heads) if setting.startswith("train.") else heads
    for name, count in (("attention heads", heads), ("key-value heads", groups)):
        if count % parallel:
            raise ConfigError(f"{setting} {parallel} does not divide {where}'s {count} {name}", _divisors(count))


def _divisors(count: int) -> str:
    return f"use one of: {', '.join(str(n) for n in range(1, count + 1) if count % n == 0)}"
