import pytest
from random_models import random_model
from rollout_bench import Bench, make_run

from grhpc.lifetime import Lifetime
from grhpc.rollout.worker import RolloutWorker


@pytest.fixture(scope="session")
def policies(tmp_path_factory):
    folder = tmp_path_factory.mktemp("policies")
    return [random_model(folder / str(seed), seed) for seed in range(2)]


@pytest.fixture(scope="module")
def engines():
    """The engine host of the module's first worker, handed on to the others: one start for the whole module."""
    hosts: list = []
    yield hosts
    for host in hosts:
        host.close()


@pytest.fixture
def bench(tmp_path, policies, engines):
    run = make_run(tmp_path, policies[0])
    life = Lifetime(job="local-1")
    worker = RolloutWorker(run, run.config(), life, run.events("rollout", "local-1"))
    if engines:
        worker._host = engines[0]
    else:
        engines.append(worker._host)
    return Bench(run, life, worker, policies)
