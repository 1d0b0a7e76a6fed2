"""Strict YAML to the configuration of a kind of run: read, checked, written.

A key that is no setting is an error that names the nearest one. `load` reads a person's file, or the resolved copy in a
run directory, which is all that workers read.

Does not know: what the settings do. Invariant: what `load` returns has passed `check`.
"""

import dataclasses
import re
import typing
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import yaml

from grhpc.config import Config
from grhpc.errors import ConfigError
from grhpc.eval_config import BATCHING, INVARIANT, EvalConfig
from grhpc.kinds import KINDS, Settings, Training
from grhpc.ranges import EVAL_RANGES, RANGES, SFT_RANGES, outside
from grhpc.sft_config import SftConfig
from grhpc.strict import apply_override, build, read_yaml

Kind = TypeVar("Kind", bound=Settings)
RUN_NAME = re.compile(r"\w[\w.-]*")
Problem = tuple[str, str]  # what is wrong, what to do


def load(path: Path | str, overrides: typing.Sequence[str] = ()) -> Config:
    """Read and check a YAML file; `overrides` are "section.key=value" with YAML values. Raises ConfigError."""
    return load_as(Config, path, overrides)


def load_as(kind: type[Kind], path: Path | str, overrides: typing.Sequence[str] = ()) -> Kind:
    """`load` for the configuration of any kind of run."""
    tree = read_yaml(Path(path))
    for override in overrides:
        apply_override(tree, override)
    _refuse_other_kind(kind, tree, path)
    config = build(kind, tree, "")
    check(config)
    return config


def load_any(path: Path | str, overrides: typing.Sequence[str] = ()) -> Settings:
    """`load` for a file of any kind of run: its sections say which; what fits none is taken for a run of GRPO."""
    sections = set(read_yaml(Path(path)))
    for kind in KINDS.values():
        fields = dataclasses.fields(kind)
        required = {f.name for f in fields if f.default is f.default_factory is dataclasses.MISSING}
        if required <= sections <= {f.name for f in fields}:
            return load_as(kind, path, overrides)
    return load(path, overrides)


def _refuse_other_kind(kind: type[Kind], tree: dict[str, Any], path: Path | str) -> None:
    """Say so where a file, as a whole, is a configuration of another kind of run."""
    sections = {name: {field.name for field in dataclasses.fields(known)} for name, known in KINDS.items()}
    fitting = [name for name in KINDS if set(tree) <= sections[name]]
    if fitting and kind not in [KINDS[name] for name in fitting]:
        verbs = {"sft": "submit.py sft", "eval": "submit.py evaluate"}.get(fitting[0], "submit.py prepare, plan, start")
        raise ConfigError(f"{path} is a configuration of {fitting[0]}", f"its verbs: {verbs}")


def with_absolute_paths(config: Kind) -> Kind:
    """The same with every folder that exists here spelt absolutely, for jobs that may start elsewhere. Hub ids stay."""
    absolute: dict[type, Any] = {Config: _grpo_absolute, SftConfig: _sft_absolute, EvalConfig: _eval_absolute}
    changed: Any = absolute[type(config)](config)
    same_kind: Kind = replace(changed, run=replace(config.run, dir=str(Path(config.run.dir).absolute())))
    return same_kind


def _sft_absolute(c: SftConfig) -> SftConfig:
    prepared, template = str(Path(c.data.prepared).absolute()), _absolute(c.data.template)
    model = replace(c.model, model=_absolute(c.model.model))
    return replace(c, model=model, data=replace(c.data, prepared=prepared, template=template))


def _eval_absolute(c: EvalConfig) -> EvalConfig:
    sources = {name: _absolute_source(source) for name, source in c.data.sources.items()}
    entries = {
        name: entry | {"source": _absolute_source(str(entry["source"]))}
        if isinstance(entry, dict) and "source" in entry
        else entry
        for name, entry in c.entries.items()
    }
    return replace(
        c,
        model=replace(c.model, model=_absolute(c.model.model)),
        verifier=replace(c.verifier, model=_absolute(c.verifier.model), template=_absolute(c.verifier.template)),
        data=replace(c.data, prepared=str(Path(c.data.prepared).absolute()), sources=sources),
        entries=entries,
    )


def _absolute_source(source: str) -> str:
    """Also of a pattern of files."""
    return str(Path(source).absolute()) if "*" in source else _absolute(source)


def _grpo_absolute(c: Config) -> Config:
    return replace(
        c,
        policy=replace(c.policy, model=_absolute(c.policy.model)),
        verifier=replace(c.verifier, model=_absolute(c.verifier.model), template=_absolute(c.verifier.template)),
        data=replace(c.data, prepared=str(Path(c.data.prepared).absolute())),
        evaluate=replace(c.evaluate, config=_absolute(c.evaluate.config)),
    )


def _absolute(path: str) -> str:
    return str(Path(path).absolute()) if path and Path(path).exists() else path


def dump(config: Any) -> str:
    """The configuration as YAML, every setting written out."""
    return yaml.safe_dump(dataclasses.asdict(config), sort_keys=False, allow_unicode=True)


def check(config: Settings) -> None:
    """Refuse numbers outside their range, and settings that contradict each other. Raises ConfigError."""
    if not RUN_NAME.fullmatch(config.run.name):
        rule = "a run's name is letters, digits, `_`, `-` and `.`, and begins with a letter, a digit or `_`"
        raise ConfigError(f"run.name is {config.run.name!r}, and a run is a folder and a job of that name", rule)
    if isinstance(config, SftConfig):
        problems = outside(config, SFT_RANGES, unused=("cluster.rollout", "cluster.verify")) or _check_sft(config)
    elif isinstance(config, EvalConfig):
        problems = outside(config, EVAL_RANGES) or _check_eval(config)
    else:
        problems = outside(config, RANGES) or _check_grpo(config)
    if problems:
        raise ConfigError(*problems[0])


def _check_grpo(c: Config) -> list[Problem]:
    problems = _words(
        ("policy.dtype", c.policy.dtype, ("bfloat16", "float32")),
        ("verifier.dtype", c.verifier.dtype, ("bfloat16", "float32")),
        ("verifier.endpoint.api", c.verifier.endpoint.api, ("chat", "completions")),
        ("verify.mode", c.verify.mode, ("generative", "hybrid", "rule", "exact")),
        ("grpo.old_logprobs", c.grpo.old_logprobs, ("recompute", "sampler")),
        ("grpo.zero_variance", c.grpo.zero_variance, ("keep", "drop")),
        ("cluster.executor", c.cluster.executor, ("slurm", "local")),
        ("evaluate.oracle", c.evaluate.oracle, ("", "tiny")),
    )
    if c.evaluate.every and not c.evaluate.config:
        problems.append(("evaluate.every is set and evaluate.config is not", "name a file, e.g. configs/eval.yaml"))
    if c.verify.asks_a_model and not c.verifier.model:
        why = "with an endpoint too, its tokenizer counts the lengths"
        problems.append((f"verify.mode {c.verify.mode} needs a verifier.model: {why}", "set verifier.model"))
    return problems + _layout(c) + _divisibility(c) + _contexts(c) + _chat_template(c)


def _chat_template(c: Config | EvalConfig) -> list[Problem]:
    if not c.verifier.endpoint.url or (c.verifier.endpoint.api, c.verifier.template) != ("chat", "general-verifier"):
        return []
    return [
        (
            "verifier.template general-verifier writes the turns of a chat itself, and would stand inside a turn",
            "set verifier.template: chat, or verifier.endpoint.api: completions",
        )
    ]


def _check_sft(c: SftConfig) -> list[Problem]:
    problems = _words(
        ("model.dtype", c.model.dtype, ("bfloat16", "float32")),
        ("train.schedule", c.train.schedule, ("cosine", "constant")),
        ("cluster.executor", c.cluster.executor, ("slurm", "local")),
    )
    problems += _layout(c)
    replicas = 1 if problems else _world(c) // (c.train.tensor_parallel * c.train.pipeline_parallel)
    if c.train.rows_per_step % replicas:
        rows = f"train.rows_per_step {c.train.rows_per_step} is not a multiple of the {replicas} replicas"
        problems.append((rows, "a replica without a row would only wait: give every one as many"))
    if c.data.template == "chat":
        what = "data.template chat is a turn of a chat, for judges behind an endpoint"
        problems.append((what, "use general-verifier, or a file: the text before the verification"))
    return problems


def _check_eval(c: EvalConfig) -> list[Problem]:
    problems = _words(
        ("model.dtype", c.model.dtype, ("bfloat16", "float32")),
        ("verifier.dtype", c.verifier.dtype, ("bfloat16", "float32")),
        ("verifier.endpoint.api", c.verifier.endpoint.api, ("chat", "completions")),
        ("sample.endpoint.api", c.sample.endpoint.api, ("chat",)),
        ("batching", c.batching, BATCHING),
        ("verify.mode", c.verify.mode, ("generative", "hybrid", "rule", "exact")),
        ("cluster.executor", c.cluster.executor, ("slurm", "local")),
    )
    if not c.benchmarks:
        problems.append(("benchmarks is empty", "name one at least, e.g. benchmarks: [math500]"))
    if len(set(c.benchmarks)) < len(c.benchmarks):
        problems.append(("benchmarks names one twice", "name each once"))
    task = c.cluster.evaluate
    if c.batching == INVARIANT and not (task.gpus_per_node or task.gres or task.extra):
        what = "batching is invariant, but cluster.evaluate asks for no GPU, and vLLM on CPUs is not batch-invariant"
        problems.append((what, "set cluster.evaluate.gpus_per_node, or batching to alone or continuous"))
    if "" in (c.sample.stop or ()):
        problems.append(("sample.stop holds an empty string, which ends every response", "write [] for none"))
    need, held = c.data.max_prompt_tokens + c.sample.max_response_tokens, c.sample.engine.max_model_tokens
    if held is not None and held < need:
        what = f"sample.engine.max_model_tokens is {held}, but a prompt and its answer may have {need}"
        problems.append((what, "raise it, leave it out, or allow fewer tokens"))
    if c.verify.asks_a_model and not (c.verifier.model or c.verifier.endpoint.url):
        problems.append((f"verify.mode {c.verify.mode} asks a judge, and there is none", "set verifier.model"))
    return problems + _chat_template(c)


def _words(*settings: tuple[str, str, tuple[str, ...]]) -> list[Problem]:
    """The settings whose value is none of those allowed."""
    return [
        (f"{where} is {value!r}", f"choose one of: {', '.join(a or '(empty)' for a in allowed)}")
        for where, value, allowed in settings
        if value not in allowed
    ]


def _contexts(c: Config) -> list[Problem]:
    """What an engine is told to hold must hold what its role will ask of it; a judge elsewhere is no engine of ours."""
    is_ours = c.verify.asks_a_model and not c.verifier.endpoint.url
    judged = c.verifier.max_input_tokens + c.verifier.max_new_tokens if is_ours else 0
    needs = (
        ("rollout", c.rollout.engine, c.data.max_prompt_tokens + c.rollout.max_response_tokens),
        ("verify", c.verify.engine, judged),
    )
    return [
        (
            f"{role}.engine.max_model_tokens is {engine.max_model_tokens}, but a prompt and its answer may have {need}",
            "raise it, leave it out, or allow fewer tokens",
        )
        for role, engine, need in needs
        if engine.max_model_tokens is not None and engine.max_model_tokens < need
    ]


def _world(c: Training) -> int:
    return c.cluster.train.nodes * c.cluster.train.tasks_per_node


def _layout(c: Training) -> list[Problem]:
    """The arithmetic of parallel sizes: world = TP x PP x DP."""
    model_parallel = c.train.tensor_parallel * c.train.pipeline_parallel
    if _world(c) % model_parallel:
        return [
            (
                f"the trainer has {_world(c)} ranks, not a multiple of "
                f"tensor_parallel x pipeline_parallel = {model_parallel}",
                "change cluster.train.nodes x tasks_per_node, or the parallel sizes",
            )
        ]
    if c.train.sequence_parallel and c.train.tensor_parallel == 1:
        return [("train.sequence_parallel needs tensor_parallel > 1", "set it to false, or raise tensor_parallel")]
    return []


def _divisibility(c: Config) -> list[Problem]:
    if c.grpo.groups_per_step % c.grpo.updates_per_step:
        return [
            (
                f"grpo.groups_per_step {c.grpo.groups_per_step} is not a multiple of "
                f"updates_per_step {c.grpo.updates_per_step}",
                "make every update use the same number of groups",
            )
        ]
    return []
