"""What a start would do, before anything is done: jobs, GPUs, the trainer's layout, memory, disk, length.

Does not know: SLURM; nothing is asked of it. Invariant: reads small files only, writes none.
"""

import json
import re
from pathlib import Path

from grhpc.cluster import footprint
from grhpc.cluster.footprint import Layout, Shape, human
from grhpc.cluster.sbatch import ONE_JOB, directives, python_command, role_config, setup_lines
from grhpc.config import AnyConfig, Config, EngineConfig, RoleConfig
from grhpc.config_file import load_as
from grhpc.eval_config import EvalConfig
from grhpc.kinds import Settings, Training
from grhpc.sft_config import SftConfig

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")


def plan(config: Settings) -> str:
    """The plan as text for people."""
    lines = [f"run {config.run.name} in {config.run_dir}, executor {config.cluster.executor}", "", *_jobs(config)]
    if isinstance(config, SftConfig):
        return "\n".join(lines + _sft(config))
    return "\n".join(lines + (_eval(config) if isinstance(config, EvalConfig) else _grpo(config)))


def _grpo(config: Config) -> list[str]:
    policy, lines = read_shape(config.policy.model), [*_layout(config), *_length(config), *_evaluations(config)]
    if policy is None:
        return [
            *lines,
            _unknown("trainer and rollout memory, disk", config.policy.model, "policy.model"),
            *_judge(config, "verify"),
        ]
    num_tokens = config.train.micro_batch_size * (config.data.max_prompt_tokens + config.rollout.max_response_tokens)
    lines += _training(config, config.policy.dtype, policy, num_tokens, with_reference=config.grpo.kl_coef > 0)
    lines += [_engine("rollout", config.policy.dtype, config.rollout.engine, policy), *_judge(config, "verify")]
    versions, kept = config.store.keep_weights + 1, config.train.checkpoint_keep + 1  # one more while it is written
    weights = versions * footprint.weights_bytes(policy, config.policy.dtype)
    checkpoints = kept * footprint.checkpoint_bytes(policy, config.policy.dtype)
    rollouts = config.train.steps * config.grpo.groups_per_step * config.rollout.group_size
    recorded = footprint.recorded_bytes(rollouts * config.rollout.max_response_tokens)
    return [
        *lines,
        f"disk: {human(weights)} for {versions} weight versions, {human(checkpoints)} for {kept} checkpoints",
        f"disk for the batches, which are all kept: at most {human(recorded)}, {footprint.RECORDED_A_TOKEN} bytes a "
        f"token of responses of up to {config.rollout.max_response_tokens}",
    ]


def _sft(config: SftConfig) -> list[str]:
    model, train = read_shape(config.model.model), config.train
    length = f"{train.steps} steps" if train.steps else f"{train.epochs:g} epochs; `sft` counts their steps"
    lines = [*_layout(config), f"length: {length}, each {train.rows_per_step} rows of {config.data.max_tokens} tokens"]
    if model is None:
        return [*lines, _unknown("trainer memory, disk", config.model.model, "model.model")]
    kept = train.checkpoint_keep + 1
    checkpoints = kept * footprint.checkpoint_bytes(model, config.model.dtype)
    weights = footprint.weights_bytes(model, config.model.dtype)
    disk = f"disk: {human(weights)} for the model, {human(checkpoints)} for {kept} checkpoints"
    return [*lines, *_training(config, config.model.dtype, model, config.data.max_tokens, with_reference=False), disk]


def _eval(config: EvalConfig) -> list[str]:
    lines = [f"benchmarks: {', '.join(config.benchmarks)}"]
    if config.sample.endpoint.url:
        lines.append(f"the model answers at {config.sample.endpoint.url}")
    elif model := read_shape(config.model.model):
        lines.append(_engine("model", config.model.dtype, config.sample.engine, model))
    else:
        lines.append("the model's memory: unknown: `evaluate` names the model")
    return lines + _judge(config, "judge")


def _judge(config: Config | EvalConfig, name: str) -> list[str]:
    if not config.verify.asks_a_model:
        return []
    if config.verifier.endpoint.url:
        return [f"the judge answers at {config.verifier.endpoint.url}"]
    shape = read_shape(config.verifier.model)
    if shape is None:
        return [_unknown(f"{name} memory", config.verifier.model, "verifier.model")]
    return [_engine(name, config.verifier.dtype, config.verify.engine, shape)]


def model_file(model: str) -> Path | None:
    """The config.json of a model's folder, or of a Hub id in the Hub's cache here; None where there is neither."""
    path = Path(model) / "config.json"
    if path.is_file():
        return path
    if not HUB_ID.fullmatch(model):
        return None
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(model, "config.json")
    return Path(cached) if isinstance(cached, str) else None


def read_shape(model: str) -> Shape | None:
    """From the model's config.json; None for a model that is not on this machine."""
    path = model_file(model)
    try:
        return Shape.of(json.loads(path.read_text())) if path else None
    except (OSError, ValueError, KeyError):
        return None


def _unknown(what: str, model: str, where: str) -> str:
    return f"{what}: unknown: {model} is not on this machine; download it, or name its folder in {where}"


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


def _jobs(config: AnyConfig) -> list[str]:
    lines = []
    for role in config.roles:
        asked, is_one = role_config(config, role), role in ONE_JOB
        tasks = 1 if is_one else asked.tasks
        ranks = asked.nodes * asked.tasks_per_node
        what = f"one job of {ranks} ranks" if is_one else f"{tasks} tasks"
        on = f"on {asked.nodes} nodes" if is_one else f"each on {asked.nodes} nodes"
        if asked.nodes == 1:  # whether tasks share a node is SLURM's choice
            on = "on 1 node" if is_one else "each within one node"
        lines.append(f"{role}: {what}, {on}, {gpus(config, role)} GPUs")
        if config.cluster.executor == "slurm":
            lines += [f"  #SBATCH {d}" for d in directives(f"{config.run.name}-{role}", "RUN_ID", asked, tasks)]
        lines += [f"  {line}" for line in setup_lines(asked)] + [f"  {python_command(asked)} ...", ""]
    return [*lines, f"GPUs in all: {sum(gpus(config, role) for role in config.roles)}"]


def _layout(config: Training) -> list[str]:
    asked, layout = config.cluster.train, _cut(config)
    across = " (tensor parallelism crosses nodes: slow)" if layout.tensor > asked.tasks_per_node else ""
    return [
        f"trainer: {asked.nodes * asked.tasks_per_node} ranks = TP {layout.tensor} x PP {layout.pipeline} x "
        f"DP {layout.data}, {asked.tasks_per_node} a node on {asked.nodes} nodes{across}"
    ]


def _cut(config: Training) -> Layout:
    train, world = config.train, config.cluster.train.nodes * config.cluster.train.tasks_per_node
    tensor, pipeline = train.tensor_parallel, train.pipeline_parallel
    data = max(1, world // (tensor * pipeline))
    return Layout(tensor, pipeline, data, train.sequence_parallel and tensor > 1, train.recompute)


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


def _evaluations(config: Config) -> list[str]:
    """Those that the run will start by itself."""
    every, steps = config.evaluate.every, config.train.steps
    if not every:
        return []
    num, asked = steps // every + 1 + (steps % every > 0), load_as(EvalConfig, config.evaluate.config)
    tasks = f"{asked.cluster.evaluate.tasks} tasks and {gpus(asked, 'evaluate')} GPUs"
    return [f"evaluations: {num}, of every {every}. version and the last, each with {tasks}: {config.evaluate.config}"]


def _training(config: Training, dtype: str, shape: Shape, num_tokens: int, *, with_reference: bool) -> list[str]:
    """`num_tokens`: of the longest micro-batch."""
    layout, asked = _cut(config), config.cluster.train
    model = footprint.trainer_bytes_a_rank(shape, dtype, layout, with_reference=with_reference)
    activations = footprint.activation_bytes(shape, dtype, layout, num_tokens)
    host = footprint.host_bytes_a_node(shape, dtype, layout, asked.tasks_per_node)
    reference = " and the KL term's reference" if with_reference else ""
    given = "" if asked.mem_gb is None or asked.mem_gb * 2**30 >= host else f", but mem_gb is {asked.mem_gb:g}"
    return [
        f"trainer memory: {human(model)} a rank for weights, gradients, optimizer{reference} of "
        f"{shape.parameters / 1e6:.1f} M parameters, at most {human(activations)} for the activations of {num_tokens} "
        f"tokens: {human(model + activations)}, and what CUDA and NCCL take",
        f"trainer host memory: about {human(host)} a node{given}",
    ]


def _engine(role: str, dtype: str, engine: EngineConfig, shape: Shape) -> str:
    weights = footprint.weights_bytes(shape, dtype) / engine.tensor_parallel
    a_token = shape.kv_bytes_a_token * footprint.BYTES[dtype] // 2
    text = f"{role} memory: {human(weights)} weights a GPU, {human(a_token)} of KV cache a token"
    if engine.kv_cache_mb:
        text += f", so {engine.kv_cache_mb * 2**20 // a_token} tokens in {engine.kv_cache_mb} MiB"
    return text
