"""A process may hold one engine at a time: the fixture `engine_of` hands out the one there is, or replaces it."""

import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from random_models import random_model

from grhpc.config import EngineConfig
from grhpc.engine.vllm import VllmEngine

SETTINGS = EngineConfig(kv_cache_mb=64, max_num_seqs=32, enforce_eager=True)


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Folders `tied_a`, `tied_b`, `own_a`, `own_b`: two weights each, with and without an output layer of its own."""
    folder = tmp_path_factory.mktemp("models")
    kinds = {"tied_a": (0, True), "tied_b": (1, True), "own_a": (2, False), "own_b": (3, False)}
    made = {name: random_model(folder / name, seed, tied=tied) for name, (seed, tied) in kinds.items()}
    return SimpleNamespace(**made)


@pytest.fixture
def short_tmp(monkeypatch):
    """A folder for temporary files, of a path as short as a node's."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr(tempfile, "tempdir", None)
        yield Path(folder)


@pytest.fixture(scope="module")
def engine_of():
    current: dict = {}

    def get(model) -> VllmEngine:
        engine = current.get(model)
        if engine is None or engine.closed:
            for other in current.values():
                other.close()
            current.clear()
            engine = VllmEngine(str(model), dtype="float32", settings=SETTINGS, max_model_tokens=384)
            current[model] = engine
        return engine

    yield get
    for engine in current.values():
        engine.close()
