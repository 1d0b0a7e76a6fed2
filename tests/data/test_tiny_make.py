"""The one command that makes the tiny models again, shortened."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from grhpc.data.tiny import MODELS_DIR, ROLES
from grhpc.data.tiny_measure import Model

COMMAND = [sys.executable, "-m", "grhpc.data.tiny", "make", "--short"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with work/ and models/ of a shortened make."""
    folder = tmp_path_factory.mktemp("make")
    done = _make(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def _make(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, "--models", str(folder / "models"), "--work", str(folder / "work")]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False
    )


def test_short_make_gives_models_that_generate(made: Path) -> None:
    for role in ROLES:
        model = Model(made / "models" / role)
        assert len(model.complete(["Question: 1"], num_tokens=4)) == 1
    assert (made / "models" / "verifier" / "template.txt").exists()


def test_make_builds_the_shipped_tokenizer_again(made: Path) -> None:
    for role in ROLES:
        for name in ("tokenizer.json", "chat_template.jinja"):
            assert (made / "models" / role / name).read_bytes() == (MODELS_DIR / role / name).read_bytes()


def test_every_phase_trains(made: Path) -> None:
    for role in ROLES:
        phases = sorted(p for p in (made / "work" / role).iterdir() if p.is_dir())
        assert len(phases) == 3
        weights = [load_file(next(p.glob("*.safetensors")))["model.norm.weight"] for p in phases]
        assert not weights[0].equal(weights[1]) and not weights[1].equal(weights[2])


def test_make_goes_on_from_finished_phases(made: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in (made / "work").rglob("*.safetensors")}
    assert _make(made).returncode == 0
    assert {p: p.stat().st_mtime_ns for p in (made / "work").rglob("*.safetensors")} == before


def test_failed_training_is_told_in_two_lines(tmp_path: Path) -> None:
    broken = tmp_path / "work" / "policy" / "0-initial"
    broken.mkdir(parents=True)
    (broken / "config.json").write_text("{}")
    done = _make(tmp_path)
    assert done.returncode == 2
    assert "error: training 1-skill failed" in done.stderr
    assert not (tmp_path / "models" / "policy").exists()
