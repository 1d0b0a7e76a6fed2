"""`submit.py sft` as a person meets it: a model at the end, every verb on the way, refusals in two lines."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from sft_cases import make_run, write_lessons

from grhpc.cli import main
from grhpc.cluster.amend import amended
from grhpc.data.tiny import MODELS_DIR
from grhpc.errors import ConfigError
from grhpc.store.rundir import RunDir

ROOT = Path(__file__).parents[2]


Submit = Callable[..., str]


@pytest.fixture
def submit(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Submit:
    """A function: what `submit.py WORDS...` prints on either stream, run in this process."""
    monkeypatch.chdir(ROOT)

    def run(*words: str, code: int = 0) -> str:
        capfd.readouterr()
        try:
            ended = main(words)
        except SystemExit as done:
            ended = int(done.code or 0)
        said = "".join(capfd.readouterr())
        assert ended == code, said
        return said

    return run


def words_of(folder: Path, **settings: Any) -> list[str]:
    """CONFIG and --set words: two steps on a few dozen lessons, by two ranks on this machine."""
    chosen = {
        "run.dir": folder / "runs",
        "data.source": folder / "lessons.jsonl",
        "data.prepared": folder / "prepared",
        "data.max_tokens": 200,
        "data.heldout_share": 0.2,
        "data.limit": 36,
        "train.epochs": 1,
        "train.rows_per_step": 4,
        "train.tensor_parallel": 2,
        "train.checkpoint_margin_s": 0,
        "cluster.train": "{tasks_per_node: 2, env: {OMP_NUM_THREADS: '1'}}",
        **settings,
    }
    return ["configs/tiny-verifier.yaml", *(w for key, value in chosen.items() for w in ("--set", f"{key}={value}"))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sft")
    write_lessons(folder / "lessons.jsonl", 50, verification="I cannot say.")
    return folder


@pytest.fixture(scope="module")
def finished(folder: Path) -> tuple[Path, str]:
    """The folder of a run that went from lessons to a model, and what was printed."""
    command = [sys.executable, "submit.py", "sft", *words_of(folder), "--watch"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "runs" / "tiny-verifier", done.stdout


def test_lessons_become_a_model(finished: tuple[Path, str]) -> None:
    run, said = finished
    assert "left out: 1 (the verification does not end in a decision)" in said
    assert "step    1 of 2: loss" in said and "held-out loss" in said
    assert said.splitlines()[-1] == f"the model: {run}/model"
    assert json.loads((run / "finished.json").read_text())["step"] == 2
    names = {name for path in (run / "model").glob("*.safetensors") for name in safe_open(path, "pt").keys()}  # noqa: SIM118
    with safe_open(MODELS_DIR / "policy" / "model.safetensors", "pt") as base:
        assert names == set(base.keys())
    assert {"config.json", "tokenizer.json", "template.txt"} <= {path.name for path in (run / "model").iterdir()}


def test_the_runs_own_configuration_has_the_steps_of_its_epochs(finished: tuple[Path, str]) -> None:
    assert "\n  steps: 2\n" in (finished[0] / "config.yaml").read_text()


def test_every_verb_on_it(submit: Submit, finished: tuple[Path, str], folder: Path) -> None:
    run = str(finished[0])
    found = json.loads(submit("status", run, "--json"))
    assert (found["state"], found["step"], found["steps"], found["model"]) == ("finished", 2, 2, f"{run}/model")
    assert found["last_step"]["loss"] > 0 and found["heldout"]["step"] == 2 and list(found["roles"]) == ["sft"]
    text = submit("status", run)
    assert "finished, step 2 of 2" in text and "held-out loss" in text and f"next: use {run}/model" in text
    assert "== " in submit("logs", run) and "roles: sft" in submit("logs", run, "rollout", code=2)
    assert f"its result: {run}/model" in submit("resume", run)
    assert "is finished" in submit("sft", *words_of(folder))
    assert "its tasks end by themselves" in submit("stop", run)
    assert "cannot be scaled" in submit("scale", run, "rollout", "1", code=2)
    told = submit("report", run).splitlines()
    assert told[0].startswith("tiny-verifier: step 2 of 2") and told[-1] == f"the model: {run}/model"
    for verb, *more in (("audit",), ("replay", "1"), ("why", "1.0")):
        refused = submit(verb, run, *more, code=2).splitlines()
        assert len(refused) == 2 and "is a run of sft" in refused[0]


def test_a_stopped_run_goes_on_with_other_means(submit: Submit, tmp_path: Path) -> None:
    write_lessons(tmp_path / "lessons.jsonl", 30)
    shutil.copytree(MODELS_DIR / "policy", tmp_path / "model")
    run = make_run(tmp_path, tmp_path / "run")
    run.request_stop("enough")
    assert "stopped (enough), step 0 of 6" in submit("status", str(run.root))
    said = submit("resume", str(run.root), "--set", "cluster.train.cpus_per_task=2", "--watch")
    assert "cluster.train.cpus_per_task: 1 -> 2\n" in said and f"the model: {run.model_dir}" in said
    assert (run.finished() or {})["step"] == 6


def test_settings_that_make_another_model_cannot_change_once_it_has_begun(finished: tuple[Path, str]) -> None:
    run = RunDir.open(finished[0])
    with pytest.raises(ConfigError, match=r"train\.lr cannot change once a run has begun"):
        amended(run, ["train.lr=1.0"])
    _, changes = amended(run, ["cluster.train.time_min=77", "train.heldout_every=9"])
    assert sorted(changes) == ["cluster.train.time_min", "train.heldout_every"]


def test_without_submitit_a_batch_script_stands_in_the_run(submit: Submit, folder: Path, tmp_path: Path) -> None:
    words = words_of(folder, **{"run.dir": tmp_path / "runs", "cluster.executor": "slurm"})
    said = submit("sft", *words, "--no-launch")
    script = tmp_path / "runs" / "tiny-verifier" / "jobs" / "sft.sbatch"
    assert f"sbatch {script}\n" in said and "#SBATCH --ntasks-per-node=2\n" in script.read_text()
    assert "grhpc.cluster.role sft " in script.read_text()


@pytest.mark.parametrize(
    ("settings", "problem", "remedy"),
    [
        ({"data.source": "nowhere.jsonl"}, "no such dataset file: nowhere.jsonl", "mend data.source"),
        ({"data.columns": "{verification: why}"}, "no column 'why'", "columns there: question"),
        ({"data.template": "nowhere.txt"}, "'nowhere.txt' cannot be read", "name a file"),
        ({"model.model": "nowhere"}, "no such model folder: nowhere", "name a folder"),
        ({"train.tensor_parallel": 4, "cluster.train": "{tasks_per_node: 4}"}, "does not divide", "use one of: 1, 2"),
        ({"data.max_tokens": 4096}, "an example may have 4096 tokens, but", "lower data.max_tokens"),
        ({"train.lrr": 1}, "unknown setting 'train.lrr'", "did you mean 'train.lr'?"),
    ],
)
def test_what_is_wrong_is_said_in_two_lines_and_nothing_is_made(
    submit: Submit, folder: Path, tmp_path: Path, settings: dict[str, Any], problem: str, remedy: str
) -> None:
    places = {"run.dir": tmp_path / "runs", "data.prepared": tmp_path / "prepared"}
    said = submit("sft", *words_of(folder, **places, **settings), code=2).splitlines()
    *_, first, second = said
    assert first.startswith("error: ") and problem in first
    assert second.startswith("  do: ") and remedy in second
    assert not (tmp_path / "runs").exists() and not (tmp_path / "prepared").exists()


def test_a_configuration_of_the_other_kind_is_refused(submit: Submit) -> None:
    assert "tiny.yaml is a configuration of grpo" in submit("sft", "configs/tiny.yaml", code=2)
    assert submit("start", "configs/tiny-verifier.yaml", code=2).splitlines()[-2:] == [
        "error: configs/tiny-verifier.yaml is a configuration of sft",
        "  do: its verbs: submit.py sft",
    ]
