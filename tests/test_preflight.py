"""Whether each rank has a GPU and each engine as many as it needs, before SLURM is asked for any."""

from pathlib import Path

import pytest

from grhpc import preflight
from grhpc.config_file import load_any
from grhpc.errors import ConfigError

CONFIGS = Path(preflight.__file__).parents[1] / "configs"


def checked(name: str, *settings: str) -> None:
    preflight._check_gpus(load_any(CONFIGS / name, list(settings)))


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_our_own_configurations_have_gpus_enough(path: Path) -> None:
    checked(path.name)


@pytest.mark.parametrize(
    ("name", "settings", "problem"),
    [
        ("general-reasoner-7b.yaml", ["cluster.train.gpus_per_node=2"], "train role has 2 GPUs a node, and needs 4"),
        ("general-reasoner-7b.yaml", ["rollout.engine.tensor_parallel=2"], "rollout role has 1 GPU a node, .* with 2"),
        ("general-reasoner-7b.yaml", ["verify.engine.tensor_parallel=2"], "verify role has 1 GPU a node, .* with 2"),
        ("eval.yaml", ["sample.engine.tensor_parallel=2"], "evaluate role has 1 GPU a node"),
        ("eval.yaml", ["verify.engine.tensor_parallel=2"], "evaluate role has 1 GPU a node"),
        ("verifier-1.5b.yaml", ["cluster.train.tasks_per_node=16"], "sft role has 8 GPUs a node, and needs 16"),
    ],
)
def test_too_few_gpus_are_refused(name: str, settings: list[str], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        checked(name, *settings)


@pytest.mark.parametrize(
    "settings",
    [
        ["cluster.rollout.gres=gpu:h100:2"],
        ["cluster.rollout.extra={gpus_per_task: 2}"],  # beside what is counted here
        ["cluster.rollout.gpus_per_node=0"],  # a site may give GPUs by the partition
    ],
)
def test_gpus_may_be_asked_for_in_other_words(settings: list[str]) -> None:
    checked("general-reasoner-7b.yaml", "rollout.engine.tensor_parallel=2", *settings)


def test_a_judge_that_no_task_starts_needs_none() -> None:
    checked("general-reasoner-7b.yaml", "verify.engine.tensor_parallel=2", "verify.mode=rule")
    checked("eval.yaml", "verify.engine.tensor_parallel=2", "verify.mode=rule")
