"""Strict YAML to a Config: read, checked, written.

A key that is no setting is an error that names the nearest one. `load` reads a person's file, or the resolved copy in a
run directory, which is all that workers read.

Does not know: what the settings do. Invariant: what `load` returns has passed `check`.
"""

import dataclasses
import typing
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from grhpc.config import Config
from grhpc.errors import ConfigError
from grhpc.strict import apply_override, build, read_yaml


def load(path: Path | str, overrides: typing.Sequence[str] = ()) -> Config:
    """Read and check a YAML file; `overrides` are "section.key=value" with YAML values. Raises ConfigError."""
    tree = read_yaml(Path(path))
    for override in overrides:
        apply_override(tree, override)
    config = build(Config, tree, "")
    check(config)
    return config


def with_absolute_paths(config: Config) -> Config:
    """The same with every folder that exists here spelt absolutely, for jobs that may start elsewhere. Hub ids stay."""
    c = config
    return replace(
        c,
        run=replace(c.run, dir=str(Path(c.run.dir).absolute())),
        policy=replace(c.policy, model=_absolute(c.policy.model)),
        verifier=replace(c.verifier, model=_absolute(c.verifier.model), template=_absolute(c.verifier.template)),
        data=replace(c.data, prepared=str(Path(c.data.prepared).absolute())),
    )


def _absolute(path: str) -> str:
    return str(Path(path).absolute()) if Path(path).exists() else path


def dump(config: Any) -> str:
    """The configuration as YAML, every setting written out."""
    return yaml.safe_dump(dataclasses.asdict(config), sort_keys=False, allow_unicode=True)


def check(config: Config) -> None:
    """Refuse settings that contradict each other. Raises ConfigError."""
    c, problems = config, []
    for where, value, allowed in (
        ("policy.dtype", c.policy.dtype, ("bfloat16", "float32")),
        ("verifier.dtype", c.verifier.dtype, ("bfloat16", "float32")),
        ("verifier.endpoint.api", c.verifier.endpoint.api, ("chat", "completions")),
        ("verify.mode", c.verify.mode, ("generative", "hybrid", "rule", "exact")),
        ("grpo.old_logprobs", c.grpo.old_logprobs, ("recompute", "sampler")),
        ("grpo.zero_variance", c.grpo.zero_variance, ("keep", "drop")),
        ("cluster.executor", c.cluster.executor, ("slurm", "local")),
        ("evaluate.oracle", c.evaluate.oracle, ("", "tiny")),
    ):
        if value not in allowed:
            problems.append((f"{where} is {value!r}", f"choose one of: {', '.join(a or '(empty)' for a in allowed)}"))
    for where, number in (
        ("rollout.group_size", c.rollout.group_size - 1),
        ("rollout.groups_per_shard", c.rollout.groups_per_shard),
        ("grpo.groups_per_step", c.grpo.groups_per_step),
        ("grpo.updates_per_step", c.grpo.updates_per_step),
        ("train.steps", c.train.steps),
        ("train.micro_batch_size", c.train.micro_batch_size),
        ("train.checkpoint_every", c.train.checkpoint_every),
        ("train.checkpoint_keep", c.train.checkpoint_keep),
        ("store.keep_weights", c.store.keep_weights),
        ("verifier.endpoint.concurrency", c.verifier.endpoint.concurrency),
        ("verifier.endpoint.timeout_s", c.verifier.endpoint.timeout_s),
        ("store.lease_s", c.store.lease_s),
        ("rollout.temperature", c.rollout.temperature),
    ):
        if number <= 0:
            problems.append((f"{where} is too small", "give a larger value (group_size must be at least 2)"))
    problems += _divisibility(config)
    problems += _contexts(config)
    if c.verifier.endpoint.url and (c.verifier.endpoint.api, c.verifier.template) == ("chat", "general-verifier"):
        problems.append(
            (
                "verifier.template general-verifier writes the turns of a chat itself, and would stand inside a turn",
                "set verifier.template: chat, or verifier.endpoint.api: completions",
            )
        )
    if problems:
        raise ConfigError(*problems[0])


def _contexts(c: Config) -> list[tuple[str, str]]:
    """What an engine is told to hold must hold what its role will ask of it."""
    needs = (
        ("rollout", c.rollout.engine, c.data.max_prompt_tokens + c.rollout.max_response_tokens),
        ("verify", c.verify.engine, c.verifier.max_input_tokens + c.verifier.max_new_tokens),
    )
    return [
        (
            f"{role}.engine.max_model_tokens is {engine.max_model_tokens}, but a prompt and its answer may have {need}",
            "raise it, leave it out, or allow fewer tokens",
        )
        for role, engine, need in needs
        if engine.max_model_tokens is not None and engine.max_model_tokens < need
    ]


def _divisibility(c: Config) -> list[tuple[str, str]]:
    """The arithmetic of parallel sizes: world = TP x PP x DP, and every update's share divides over DP."""
    world = c.cluster.train.nodes * c.cluster.train.tasks_per_node
    model_parallel = c.train.tensor_parallel * c.train.pipeline_parallel
    if world % model_parallel:
        return [
            (
                f"the trainer has {world} ranks, not a multiple of "
                f"tensor_parallel x pipeline_parallel = {model_parallel}",
                "change cluster.train.nodes x tasks_per_node, or the parallel sizes",
            )
        ]
    if c.grpo.groups_per_step % c.grpo.updates_per_step:
        return [
            (
                f"grpo.groups_per_step {c.grpo.groups_per_step} is not a multiple of "
                f"updates_per_step {c.grpo.updates_per_step}",
                "make every update use the same number of groups",
            )
        ]
    if c.train.sequence_parallel and c.train.tensor_parallel == 1:
        return [("train.sequence_parallel needs tensor_parallel > 1", "set it to false, or raise tensor_parallel")]
    return []
