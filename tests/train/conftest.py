"""Models, batches and one shared pool of ranks for the trainer's tests."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from ranks import RankPool
from small_run import make_policy, make_prepared
from tiny_models import make_model
from trainer_cases import make_batch

from grhpc.grpo.batch import Batch


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def pool() -> Iterator[RankPool]:
    """Four processes, started at the first use."""
    ranks = RankPool(4)
    yield ranks
    ranks.stop()


@pytest.fixture(scope="session")
def model_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a random model of a kind (tiny_models.KINDS), made once."""
    made: dict[str, Path] = {}

    def get(kind: str) -> Path:
        if kind not in made:
            made[kind] = make_model(tmp_path_factory.mktemp(kind), kind)
        return made[kind]

    return get


@pytest.fixture(scope="session")
def batches_of(model_of: Callable[[str], Path]) -> Callable[[str], list[Batch]]:
    """Four batches for a model kind: three to train on, the last to probe with."""
    made: dict[str, list[Batch]] = {}

    def get(kind: str) -> list[Batch]:
        if kind not in made:
            made[kind] = [make_batch(model_of(kind), seed) for seed in range(4)]
        return made[kind]

    return get


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the runs of small_run.make_run stand on: a policy and prepared prompts."""
    folder = tmp_path_factory.mktemp("base")
    make_policy(folder / "policy")
    make_prepared(folder / "prepared")
    return folder
