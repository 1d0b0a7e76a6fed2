"""What a start would do, before anything is done: jobs, GPUs, the trainer's layout, memory, disk, length.

Does not know: SLURM; nothing is asked of it. Invariant: reads small files only, writes none.
"""

import json
from pathlib import Path

from grhpc.cluster import footprint
from grhpc.cluster.footprint import Shape, human
from grhpc.cluster.sbatch import ONE_JOB, directives, python_command, role_config, setup_lines
from grhpc.config import AnyConfig, Config, EngineConfig, RoleConfig


def plan(config: Config) -> str:
    """The plan as text for people."""
    policy, verifier = read_shape(config.policy.model), read_shape(config.verifier.model)
    lines = [f"run {config.run.name} in {config.run_dir}, executor {config.cluster.executor}", ""]
    lines += [*_jobs(config), *_layout(config), *_length(config), *_training(config, policy)]
    lines += _engine("rollout", config.policy.model, config.policy.dtype, config.rollout.engine, policy)
    if config.verify.asks_a_model:
        lines += _engine("verify", config.verifier.model, config.verifier.dtype, config.verify.engine, verifier)
    return "\n".join([*lines, *_disk(config, policy)])


def read_shape(model: str) -> Shape | None:
    """From the config.json in a model's folder; None for a model that is not a folder here."""
    try:
        return Shape.of(json.loads((Path(model) / "config.json").read_text()))
    except (OSError, ValueError, KeyError):
        return None


def gpus(config: AnyConfig, role: str) -> int:
    """How many GPUs a role has when all its tasks run."""
    asked = role_config(config, role)
    return gpus_a_job(asked) * (1 if role in ONE_JOB else asked.tasks)


def gpus_a_job(asked: RoleConfig) -> int:
    """On all the nodes of one job; `gres` stands in the place of `gpus_per_node`, as in what SLURM is asked for."""
    on_a_node = asked.gpus_per_node
    for part in asked.gres.split(","):
        words = part.split(":")
        if words[0] == "gpu":
            on_a_node = int(words[-1]) if words[-1].isdigit() else 1
    return on_a_node * asked.nodes


def _jobs(config: Config) -> list[str]:
    lines = []
    for role in config.roles:
        asked = role_config(config, role)
        tasks = 1 if role == "train" else asked.tasks
        ranks = asked.nodes * asked.tasks_per_node
        what = f"one job of {ranks} ranks" if role == "train" else f"{tasks} tasks"
        lines.append(f"{role}: {what} on {asked.nodes * tasks} nodes, {gpus(config, role)} GPUs")
        if config.cluster.executor == "slurm":
            lines += [f"  #SBATCH {d}" for d in directives(f"{config.run.name}-{role}", "RUN_ID", asked, tasks)]
        lines += [f"  {line}" for line in setup_lines(asked)] + [f"  {python_command(asked)} ...", ""]
    return [*lines, f"GPUs in all: {sum(gpus(config, role) for role in config.roles)}"]


def _layout(config: Config) -> list[str]:
    asked, train = config.cluster.train, config.train
    world = asked.nodes * asked.tasks_per_node
    data = world // (train.tensor_parallel * train.pipeline_parallel)
    across = " (tensor parallelism crosses nodes: slow)" if train.tensor_parallel > asked.tasks_per_node else ""
    return [
        f"trainer: {world} ranks = TP {train.tensor_parallel} x PP {train.pipeline_parallel} x DP {data}, "
        f"{asked.tasks_per_node} a node on {asked.nodes} nodes{across}"
    ]


def _length(config: Config) -> list[str]:
    grpo, rollouts = config.grpo, config.grpo.groups_per_step * config.rollout.group_size
    text = (
        f"steps: {config.train.steps}, each {grpo.groups_per_step} groups of {config.rollout.group_size} = {rollouts} "
        f"rollouts in {grpo.updates_per_step} updates; at most {config.max_in_flight} groups in flight"
    )
    total = config.train.steps * grpo.groups_per_step
    num_prompts = _num_prompts(config)
    epochs = f"{total / num_prompts:.2f} epochs of {num_prompts} prompts" if num_prompts else "not prepared yet"
    return [text, f"groups in all: {total}, {epochs}"]


def _num_prompts(config: Config) -> int:
    try:
        manifest = json.loads((Path(config.data.prepared) / "manifest.json").read_text())
        return int(manifest["prompts"]["train"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _training(config: Config, shape: Shape | None) -> list[str]:
    if shape is None:
        return [f"trainer memory: unknown, {config.policy.model} is no folder here"]
    train, world = config.train, config.cluster.train.nodes * config.cluster.train.tasks_per_node
    data = world // (train.tensor_parallel * train.pipeline_parallel)
    a_rank = footprint.trainer_bytes_a_rank(
        shape, config.policy.dtype, train.tensor_parallel, train.pipeline_parallel, data
    )
    return [
        f"trainer memory: {human(a_rank)} a rank for weights, gradients, optimizer of {shape.parameters / 1e6:.1f} M "
        "parameters; activations come on top"
    ]


def _engine(role: str, model: str, dtype: str, engine: EngineConfig, shape: Shape | None) -> list[str]:
    if shape is None:
        return [f"{role} memory: unknown, {model} is no folder here"]
    weights = footprint.weights_bytes(shape, dtype) / engine.tensor_parallel
    a_token = shape.kv_bytes_a_token * footprint.BYTES[dtype] // 2
    text = f"{role} memory: {human(weights)} weights a GPU, {human(a_token)} of KV cache a token"
    if engine.kv_cache_mb:
        text += f", so {engine.kv_cache_mb * 2**20 // a_token} tokens in {engine.kv_cache_mb} MiB"
    return [text]


def _disk(config: Config, shape: Shape | None) -> list[str]:
    if shape is None:
        return [f"disk: unknown, {config.policy.model} is no folder here"]
    versions, kept = config.store.keep_weights + 1, config.train.checkpoint_keep + 1  # one more while it is written
    weights = versions * footprint.weights_bytes(shape, config.policy.dtype)
    checkpoints = kept * footprint.checkpoint_bytes(shape, config.policy.dtype)
    return [f"disk: {human(weights)} for {versions} weight versions, {human(checkpoints)} for {kept} checkpoints"]
