"""A model named by its Hub id is found in the local cache by jobs that have no network, or refused in words."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from grhpc.config import EngineConfig
from grhpc.engine import host, snapshot
from grhpc.engine.snapshot import model_folder
from grhpc.errors import DataError, EngineError

POLICY = Path(host.__file__).parents[1] / "data" / "tiny_models" / "policy"
ASK = "import sys; from grhpc.engine.snapshot import model_folder; print(model_folder(sys.argv[1]))"
COUNT = """
import sys
from grhpc.engine.tokenizer import load_tokenizer, num_tokens
print(num_tokens(load_tokenizer(sys.argv[1]), ["17"]))
"""


def ask(model: str, home: Path, script: str = ASK, **settings: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    words = [sys.executable, "-c", script, model]
    return subprocess.run(words, env=env | settings, capture_output=True, text=True, timeout=300)


def cache(home: Path, files: Path | None = None) -> Path:
    """The Hub's cache under `home` with one snapshot of `some/model`, a copy of `files`."""
    cached = home / "hub" / "models--some--model"
    folder = cached / "snapshots" / "0123abc"
    if files is None:
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
    else:
        shutil.copytree(files, folder)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("0123abc")
    return folder


def test_a_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert model_folder(str(tmp_path)) == tmp_path


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no config\.json"):
        model_folder(str(tmp_path))


def test_an_id_in_the_cache_is_found_offline(tmp_path: Path) -> None:
    folder = cache(tmp_path)
    asked = ask("some/model", tmp_path)
    assert asked.stdout.strip() == str(folder), asked.stderr


def test_a_node_without_a_network_takes_the_tokenizer_of_the_cache_at_once(tmp_path: Path) -> None:
    """Nobody told it that it has none; transformers alone asks for each file that a model may have for minutes."""
    cache(tmp_path, POLICY)
    nowhere = {"HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"}
    asked = ask("some/model", tmp_path, COUNT, **nowhere, no_proxy="127.0.0.1")
    assert asked.stdout == "[1]\n", asked.stderr


@pytest.mark.parametrize(("weights", "given"), [("model.safetensors", "folder"), ("pytorch_model.bin", "id")])
def test_an_engine_is_given_the_folder_of_an_id(tmp_path, monkeypatch, weights, given) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / weights).touch()
    loaded: list[str] = []
    monkeypatch.setattr(snapshot, "snapshot_download", lambda model, **settings: str(tmp_path))
    monkeypatch.setattr(host, "VllmEngine", lambda model, **settings: loaded.append(model))
    host.engine_starter("some/model", "float32", EngineConfig(), 128, 0)()
    assert loaded == [str(tmp_path) if given == "folder" else "some/model"]


def test_an_engine_without_its_model_does_not_start(tmp_path) -> None:
    with pytest.raises(EngineError, match=r"did not start .*no config\.json"):
        host.engine_starter(str(tmp_path), "float32", EngineConfig(), 128, 0)()


def test_an_id_that_is_nowhere_is_refused_in_words(tmp_path: Path) -> None:
    asked = ask("some/model", tmp_path)
    assert (
        asked.returncode == 1 and "DataError: no model 'some/model'" in asked.stderr and "hf download" in asked.stderr
    )
