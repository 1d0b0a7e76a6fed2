"""Strict configuration: every shipped file loads; a wrong setting is one line that names the nearest right one."""

import dataclasses
import typing
from pathlib import Path

import pytest

from grhpc.config import Config
from grhpc.config_file import check, dump, load, load_as
from grhpc.errors import ConfigError
from grhpc.eval_config import EvalConfig
from grhpc.evaluate.benchmarks import load_benchmarks
from grhpc.ranges import RANGES, SFT_RANGES
from grhpc.sft_config import SftConfig
from grhpc.strict import build

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))
MINIMAL = """
run: {name: t}
policy: {model: p}
verifier: {model: v}
data: {prepared: d}
train: {steps: 3}
"""
SFT = ("verifier-1.5b", "tiny-verifier")
EVAL = ("eval", "eval-tiny")
SFT_MINIMAL = """
run: {name: t}
model: {model: p}
data: {source: s, prepared: d}
"""
# The paper's table, and what its text adds.
PAPER = {
    "general-reasoner-4b": ("Qwen/Qwen3-4B-Base", 1024, 0.2, 0.7, 400),
    "general-reasoner-7b": ("Qwen/Qwen2.5-7B", 768, 0.3, 1.0, 700),
    "general-reasoner-14b": ("Qwen/Qwen2.5-14B", 768, 0.3, 1.0, 700),
    "general-reasoner-qwen3-14b": ("Qwen/Qwen3-14B-Base", 1024, 0.2, 0.7, 400),
}
HEADS = {"Qwen/Qwen3-4B-Base": 8, "Qwen/Qwen2.5-7B": 4, "Qwen/Qwen2.5-14B": 8, "Qwen/Qwen3-14B-Base": 8}  # key-value


@pytest.fixture
def write(tmp_path):
    """A function: text -> path of a config file."""

    def make(text: str) -> Path:
        path = tmp_path / "c.yaml"
        path.write_text(text)
        return path

    return make


def kind_of(path: Path) -> type[Config] | type[SftConfig] | type[EvalConfig]:
    if path.stem in EVAL:
        return EvalConfig
    return SftConfig if path.stem in SFT else Config


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_shipped_config_loads_and_survives_a_round_trip(path, write):
    config = load_as(kind_of(path), path)
    assert load_as(kind_of(path), write(dump(config))) == config


def test_the_papers_evaluation():
    config = load_as(EvalConfig, Path(__file__).parent.parent / "configs" / "eval.yaml")
    entries = load_benchmarks(config)
    assert len(entries) == 12 and config.sample.max_response_tokens == 8192 and config.sample.few_shot == 0
    assert {n: (e.samples, e.temperature) for n, e in entries.items() if e.samples > 1 or e.temperature} == {
        "aime24": (32, 1.0),
        "aime25": (32, 1.0),
    }
    assert not config.sample.engine.extra, "no prefix cache: the bytes of a shard depend on the shard alone"


@pytest.mark.parametrize(
    ("setting", "problem", "remedy"),
    [
        ("benchmarks=[]", "benchmarks is empty", "name one"),
        ("benchmarks=[tiny, tiny]", "benchmarks names one twice", "each once"),
        (
            "sample.engine.max_model_tokens=100",
            "max_model_tokens is 100, but a prompt and its answer may have 112",
            "raise",
        ),
        ("verify.mode=generative", "asks a judge, and there is none", "set verifier.model"),
        ("sample.questions_per_shard=0", "questions_per_shard is 0", "at least 1"),
        ("run.name=a/b", "run.name is 'a/b'", "letters"),
        ("sample.stop=['\n\n', '']", "sample.stop holds an empty string", "[] for none"),
    ],
)
def test_what_an_evaluation_may_not_be(setting, problem, remedy):
    with pytest.raises(ConfigError) as caught:
        load_as(EvalConfig, Path(__file__).parent.parent / "configs" / "eval-tiny.yaml", [setting])
    assert problem in caught.value.problem and remedy in caught.value.remedy


def test_what_yaml_makes_of_a_backslash_is_not_taken_for_a_prompt(write):
    entry = "entries: {mine: {source: x.jsonl, fields: {question: q, gold: a}, scorer: math, prompt: %s}}"
    text = "benchmarks: [mine]\nrun: {name: e}\nmodel: {model: m}\ndata: {prepared: p}\n" + entry
    path = write(text % r'"{question} within \boxed{}"')
    with pytest.raises(ConfigError) as caught:
        load_benchmarks(load_as(EvalConfig, path))
    assert r"entries.mine.prompt holds the control character '\x08'" in caught.value.problem
    assert "two backslashes" in caught.value.remedy
    path = write(text % r"'{question} within \boxed{}'")
    assert load_benchmarks(load_as(EvalConfig, path))["mine"].prompt == r"{question} within \boxed{}"


def test_a_file_that_is_not_there_may_be_one_beside_it():
    configs = Path(__file__).parent.parent / "configs"
    with pytest.raises(ConfigError, match="no such config file") as caught:
        load_as(EvalConfig, configs / "eval-tny.yaml")
    assert caught.value.remedy == f"did you mean {configs}/eval-tiny.yaml?"


def test_evaluations_of_a_run_need_a_configuration(write):
    with pytest.raises(ConfigError, match=r"evaluate\.every is set and evaluate\.config is not"):
        load(write(MINIMAL + "evaluate: {every: 5}\n"))


def test_a_verifier_of_ones_own():
    """What the paper says of its verifier, and arithmetic that fits one node of eight GPUs."""
    config = load_as(SftConfig, Path(__file__).parent.parent / "configs" / "verifier-1.5b.yaml")
    assert (config.model.model, config.data.source) == ("Qwen/Qwen2.5-Math-1.5B", "TIGER-Lab/verifier-sft-data")
    assert config.data.template == "general-verifier" and config.data.max_tokens == 4096
    train = config.cluster.train
    assert (train.nodes, train.tasks_per_node, train.gpus_per_node) == (1, 8, 8)
    assert config.train.rows_per_step % 8 == 0 and config.roles == ("sft",)


@pytest.mark.parametrize(
    ("extra", "problem", "remedy"),
    [
        ("train: {row_per_step: 4}", "unknown setting 'train.row_per_step'", "did you mean 'train.rows_per_step'?"),
        ("train: {schedule: linear}", "train.schedule is 'linear'", "cosine, constant"),
        ("train: {rows_per_step: 0}", "train.rows_per_step is 0", "it must be at least 1"),
        ("train: {steps: -1}", "train.steps is -1", "it must be at least 1, or 0"),
        ("train: {tensor_parallel: 0}", "train.tensor_parallel is 0", "it must be at least 1"),
        ("train: {tensor_parallel: 2}", "1 ranks, not a multiple", ""),
        ("train: {sequence_parallel: true}", "needs tensor_parallel > 1", ""),
        ("cluster: {train: {tasks_per_node: 3}}", "rows_per_step 64 is not a multiple of the 3 replicas", "as many"),
        ("grpo: {groups_per_step: 3}", "unknown setting 'grpo'", "run"),
    ],
)
def test_a_wrong_setting_of_fine_tuning_is_named(write, extra, problem, remedy):
    with pytest.raises(ConfigError) as caught:
        load_as(SftConfig, write(SFT_MINIMAL + extra))
    assert problem in caught.value.problem and remedy in caught.value.remedy


@pytest.mark.parametrize(
    ("override", "problem"),
    [("data.template=chat", "a turn of a chat"), ("data.heldout_share=1.5", "heldout_share is 1.5")],
)
def test_wrong_data_of_fine_tuning_is_named(write, override, problem):
    with pytest.raises(ConfigError, match=problem):
        load_as(SftConfig, write(SFT_MINIMAL), [override])


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_table(name):
    config = load(Path(__file__).parent.parent / "configs" / f"{name}.yaml")
    model, groups, clip_low, temperature, steps = PAPER[name]
    assert config.policy.model == model and config.verifier.model == "TIGER-Lab/general-verifier"
    assert (config.grpo.groups_per_step, config.grpo.groups_per_step // config.grpo.updates_per_step) == (
        groups,
        groups // 4,
    )
    assert (config.grpo.clip_low, config.grpo.clip_high, config.grpo.dual_clip) == (clip_low, 0.3, 10.0)
    assert (config.rollout.temperature, config.rollout.group_size) == (temperature, 8)
    assert (config.train.lr, config.grpo.kl_coef, config.train.steps) == (5e-7, 1e-4, steps)
    assert (config.data.max_prompt_tokens, config.rollout.max_response_tokens) == (1024, 4096)
    assert config.train.micro_batch_size == 4 and config.train.warmup_steps == 0
    assert (config.train.adam_beta1, config.train.adam_beta2, config.train.weight_decay) == (0.9, 0.999, 0.01)
    assert config.train.grad_clip == 1.0 and config.verify.mode == "generative"
    assert config.data.source == "TIGER-Lab/WebInstruct-verified"


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_gpus(name):
    """4 nodes of 8: 6 a node for the policy, 2 for the verifier; and the parallel sizes fit the model and the batch."""
    config = load(Path(__file__).parent.parent / "configs" / f"{name}.yaml")
    trainer, rollout, verify = config.cluster.train, config.cluster.rollout, config.cluster.verify
    policy_gpus = trainer.nodes * trainer.gpus_per_node + rollout.tasks * rollout.gpus_per_node
    assert (policy_gpus, verify.tasks * verify.gpus_per_node) == (4 * 6, 4 * 2)
    assert trainer.tasks_per_node == trainer.gpus_per_node
    assert HEADS[config.policy.model] % config.train.tensor_parallel == 0
    data_parallel = trainer.nodes * trainer.tasks_per_node // config.train.tensor_parallel
    per_update = config.grpo.groups_per_step // config.grpo.updates_per_step * config.rollout.group_size
    assert per_update % (data_parallel * config.train.micro_batch_size) == 0


@pytest.mark.parametrize(
    ("extra", "problem", "remedy"),
    [
        ("rollot: {group_size: 4}", "unknown setting 'rollot'", "did you mean 'rollout'?"),
        ("rollout: {groupsize: 4}", "unknown setting 'rollout.groupsize'", "did you mean 'rollout.group_size'?"),
        ("rollout: {engine: {kv_cache: 4}}", "unknown setting 'rollout.engine.kv_cache'", "kv_cache_mb"),
        (
            "rollout: {group_size: four}",
            "rollout.group_size must be a whole number, not 'four'",
            "write a whole number, e.g. 8",
        ),
        ("rollout: {group_size: true}", "rollout.group_size must be a whole number, not True", ""),
        ("grpo: {clip_low: fast}", "grpo.clip_low must be a number, not 'fast'", "e.g. 0.5 or 5e-7"),
        ("rollout: {group_size: 1}", "rollout.group_size is 1", "it must be at least 2"),
        ("rollout: [1]", "rollout must be a mapping", ""),
        ("rollout: {engine: {max_model_tokens: 512}}", "rollout.engine.max_model_tokens is 512, but", "raise it"),
        ("verify: {engine: {max_model_tokens: 512}}", "verify.engine.max_model_tokens is 512, but", "raise it"),
        ("store: {keep_weights: 0}", "store.keep_weights is 0", "it must be at least 1"),
        ("verify: {mode: generatve}", "verify.mode is 'generatve'", "generative"),
        ("grpo: {groups_per_step: 10, updates_per_step: 4}", "not a multiple of updates_per_step", ""),
        ("cluster: {train: {tasks_per_node: 3}}\ngrpo: {}", "", None),
    ],
)
def test_a_wrong_setting_is_named_with_what_to_do(write, extra, problem, remedy):
    if remedy is None:
        load(write(MINIMAL + extra))
        return
    with pytest.raises(ConfigError) as caught:
        load(write(MINIMAL + extra))
    assert problem in caught.value.problem and remedy in caught.value.remedy
    assert "\n" not in caught.value.problem


@pytest.mark.parametrize("verifier", ["", "verifier: {endpoint: {url: http://x/v1}, template: chat}\n"])
def test_only_rules_need_no_verifier(write, verifier):
    text = MINIMAL.replace("verifier: {model: v}\n", verifier)
    for mode in ("rule", "exact"):
        config = load(write(f"{text}verify: {{mode: {mode}, engine: {{max_model_tokens: 9}}}}"))  # which there is not
        assert config.verifier.model == "" and config.counted_by == config.policy.model
    for mode in ("generative", "hybrid"):
        with pytest.raises(ConfigError, match=f"verify.mode {mode} needs a verifier.model: .* counts the lengths"):
            load(write(f"{text}verify: {{mode: {mode}}}"))


def test_parallel_sizes_that_do_not_divide_are_refused(write):
    text = MINIMAL.replace("{steps: 3}", "{steps: 3, tensor_parallel: 2}") + "cluster: {train: {tasks_per_node: 3}}"
    with pytest.raises(ConfigError, match="3 ranks, not a multiple"):
        load(write(text))


def test_a_missing_setting_is_named(write):
    with pytest.raises(ConfigError, match=r"missing setting 'train.steps'"):
        load(write(MINIMAL.replace("{steps: 3}", "{lr: 1.0}")))


@pytest.mark.parametrize(
    ("text", "problem"), [("a: [", "not valid YAML"), ("", "holds no settings"), ("- 1", "holds no")]
)
def test_what_is_no_yaml_mapping_is_refused(write, text, problem):
    with pytest.raises(ConfigError, match=problem):
        load(write(text))


@pytest.mark.parametrize(
    ("text", "problem", "remedy"),
    [
        ("run: [1, 2", "line 1, column 11, is not valid YAML: expected ',' or ']', but got '<stream end>'", "mend"),
        ("run:\n  name: x\n\tdir: y", r"line 3, column 1, is not valid YAML: found character '\t'", "not tabs"),
        ("a: 1\nb: c: d", "line 2, column 5, is not valid YAML: mapping values are not allowed here", "in quotes"),
        ('a:\n  b: "x\n', "end of stream, while scanning a quoted scalar that began in line 2", "mend"),
        ("run:\n  name: x\n dir: y", "line 3, column 2, is not valid YAML: expected <block end>", "one section alike"),
        (
            "run:\n  name: x\nrun: {name: y}",
            "line 3, column 1, is not valid YAML: 'run' stands in line 1",
            "in one place",
        ),
        ("run: {name: x, name: y}", "line 1, column 16, is not valid YAML: 'name' stands in line 1", "in one place"),
        ("a: \x01", "is not valid YAML: unacceptable character #x0001", "mend the file"),
    ],
)
def test_bad_yaml_is_named_by_its_place(write, text, problem, remedy):
    path = write(text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert caught.value.problem.startswith(str(path)) and problem in caught.value.problem
    assert remedy in caught.value.remedy and '"<unicode string>"' not in str(caught.value)


def test_a_file_that_is_no_text_is_named(write):
    path = write("")
    path.write_bytes(b"run: \xff")
    with pytest.raises(ConfigError, match="is no UTF-8 text: byte 5"):
        load(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="no such config file"):
        load(tmp_path / "nowhere.yaml")
    with pytest.raises(ConfigError, match="is a folder"):
        load(tmp_path)


def test_overrides_are_yaml_values(write):
    config = load(
        write(MINIMAL),
        [
            "train.lr=5e-7",
            "rollout.engine.kv_cache_mb=64",
            "data.columns={question: q}",
            "data.instruction=",
            "data.limit=null",
        ],
    )
    assert (config.train.lr, config.rollout.engine.kv_cache_mb) == (5e-7, 64)
    assert (config.data.instruction, config.data.limit) == ("", None)
    assert config.data.columns == {"question": "q"}


OUTSIDE = {
    "grpo": ["importance_cap=0", "importance_cap=-1", "importance_cap=.inf", "dual_clip=1", "dual_clip=0"]
    + ["clip_low=-0.1", "clip_low=1.5", "clip_high=-0.1", "kl_coef=-1e-3", "entropy_coef=-0.1", "max_staleness=-1"]
    + ["groups_per_step=0", "updates_per_step=0", "kl_coef=.nan", "clip_high=.inf"],
    "train": ["lr=0", "lr=-1", "lr=.nan", "lr=nan", "weight_decay=-0.1", "warmup_steps=-1", "grad_clip=-1", "steps=0"]
    + ["adam_beta1=1", "adam_beta2=-0.1", "adam_eps=0", "pipeline_parallel=0", "checkpoint_margin_s=-1"],
    "rollout": ["max_response_tokens=0", "temperature=0", "top_p=0", "top_p=1.1", "top_k=-2", "groups_per_shard=0"],
    "rollout.engine": [
        "gpu_memory_utilization=1.5",
        "kv_cache_mb=0",
        "max_num_seqs=0",
        "stall_s=0",
        "max_model_tokens=0",
    ],
    "data": ["max_prompt_tokens=0", "limit=0"],
    "verify": ["audit_share=-0.1", "audit_share=1.1", "audit_share=.nan", "engine.tensor_parallel=0"],
    "verifier": ["max_attempts=0", "max_new_tokens=0", "max_input_tokens=0"],
    "verifier.endpoint": ["concurrency=0", "timeout_s=0", "max_retries=-1", "requests_per_min=0", "price_in=-1"],
    "evaluate": ["heldout_every=-1", "heldout_prompts=0"],
    "store": ["max_attempts=0", "wait_s=-1", "idle_s=0", "archive_every=0", "poll_min_s=0", "poll_max_s=0", "lease_s=0"]
    + ["wait_s=.inf", "lease_s=.nan"],
    "cluster.train": ["nodes=0", "tasks_per_node=0", "time_min=0", "gpus_per_node=-1", "mem_gb=0", "signal_s=-1"],
    "cluster.rollout": ["tasks=0", "nodes=0", "max_concurrent=0", "cpus_per_task=0"],
    "cluster.verify": ["tasks=0", "tasks=-1"],
}
SFT_OUTSIDE = {
    "train": ["lr=0", "lr=.nan", "min_lr=-1", "epochs=0", "epochs=.inf", "rows_per_step=0", "weight_decay=-1"]
    + ["heldout_every=-1", "checkpoint_every=0", "checkpoint_keep=0", "steps=-1"],
    "data": ["max_tokens=0", "heldout_share=1", "heldout_share=-0.1", "heldout_share=.nan"],
    "store": ["archive_every=0", "poll_min_s=0"],
    "cluster.train": ["nodes=0", "tasks_per_node=0"],
}
WRONG = [(Config, f"{where}.{number}") for where, these in OUTSIDE.items() for number in these]
WRONG += [(SftConfig, f"{where}.{number}") for where, these in SFT_OUTSIDE.items() for number in these]


@pytest.mark.parametrize(("kind", "override"), WRONG, ids=lambda value: getattr(value, "__name__", value))
def test_a_number_outside_its_range_is_named_with_the_range(write, kind, override):
    with pytest.raises(ConfigError) as caught:
        load_as(kind, write(MINIMAL if kind is Config else SFT_MINIMAL), [override])
    assert caught.value.problem.startswith(f"{override.partition('=')[0]} is ")
    assert caught.value.remedy.startswith("it must be ") and "\n" not in caught.value.remedy


@pytest.mark.parametrize(
    "override",
    ["grpo.importance_cap=null", "grpo.clip_low=0", "grpo.max_staleness=0", "verify.audit_share=1", "rollout.top_k=5"]
    + ["train.grad_clip=0", "rollout.top_p=1", "evaluate.heldout_every=0", "verifier.endpoint.max_retries=0"],
)
def test_the_ends_of_the_ranges_are_good(write, override):
    load(write(MINIMAL), [override])


def test_what_a_kind_of_run_does_not_use_may_hold_anything(write):
    load_as(SftConfig, write(SFT_MINIMAL), ["cluster.rollout.tasks=0", "cluster.verify.nodes=0", "train.steps=0"])


@pytest.mark.parametrize(("kind", "ranges"), [(Config, RANGES), (SftConfig, SFT_RANGES)])
def test_every_number_that_can_be_set_has_a_range(kind, ranges):
    assert number_names(kind) and number_names(kind) <= set(ranges)


def number_names(cls: type) -> set[str]:
    names = set()
    for name, hint in typing.get_type_hints(cls).items():
        if dataclasses.is_dataclass(hint):
            names |= number_names(hint)
        elif {int, float} & {hint, *typing.get_args(hint)} and typing.get_origin(hint) not in (list, dict):
            names.add(name)
    return names


@pytest.mark.parametrize("override", ["train.lr", "train.stepz=3", "run.name.first=x"])
def test_wrong_overrides_are_refused(write, override):
    with pytest.raises(ConfigError):
        load(write(MINIMAL), [override])


def test_every_default_passes_the_check(write):
    config = load(write(MINIMAL))
    check(config)
    assert build(type(config), dataclasses.asdict(config), "") == config


@pytest.mark.parametrize("name", ["''", "..", "../up", "a/b", ".hidden", "-dash", "two words", '"line\\nbreak"'])
def test_a_runs_name_stays_in_its_folder(write, name):
    with pytest.raises(ConfigError, match=r"run\.name is ") as caught:
        load(write(MINIMAL), [f"run.name={name}"])
    assert "letters, digits" in caught.value.remedy


def test_ordinary_names_of_runs_are_taken(write):
    for name in ("tiny-2", "v1.5_b", "2026-01", "läufer"):
        assert load(write(MINIMAL), [f"run.name='{name}'"]).run.name == name
