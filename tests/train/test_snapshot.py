"""A model named by its Hub id is found in the local cache by jobs that have no network, or refused in words."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from grhpc.errors import DataError
from grhpc.train.snapshot import model_folder

ASK = "import sys; from grhpc.train.snapshot import model_folder; print(model_folder(sys.argv[1]))"


def ask(model: str, home: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run([sys.executable, "-c", ASK, model], env=env, capture_output=True, text=True, timeout=120)


def test_a_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert model_folder(str(tmp_path)) == tmp_path


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no config\.json"):
        model_folder(str(tmp_path))


def test_an_id_in_the_cache_is_found_offline(tmp_path: Path) -> None:
    cached = tmp_path / "hub" / "models--some--model"
    snapshot = cached / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("0123abc")
    asked = ask("some/model", tmp_path)
    assert asked.stdout.strip() == str(snapshot), asked.stderr


def test_an_id_that_is_nowhere_is_refused_in_words(tmp_path: Path) -> None:
    asked = ask("some/model", tmp_path)
    assert (
        asked.returncode == 1 and "DataError: no model 'some/model'" in asked.stderr and "hf download" in asked.stderr
    )
