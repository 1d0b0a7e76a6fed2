import pytest


@pytest.fixture(scope="module")
def engine():
    """The sampler of the module's first task, handed on: one engine start for the whole module."""
    kept: list = []
    yield kept
    for sampler in kept:
        sampler.close()
