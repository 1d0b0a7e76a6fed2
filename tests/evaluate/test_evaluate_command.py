"""The verb `evaluate`: which model, where it stands, what is refused, what comes again."""

import errno
import os
import shutil
from pathlib import Path

import huggingface_hub
import pytest
from eval_bench import POLICY, Scripted, Task, configured

from grhpc import evaluation
from grhpc.cli import main
from grhpc.config import Config, DataConfig, ModelConfig, RunConfig, TrainConfig, VerifierConfig
from grhpc.config_file import dump
from grhpc.errors import ConfigError, DataError, Pruned
from grhpc.evaluate import measured
from grhpc.evaluate.measured import Measured
from grhpc.sft_config import SftConfig, SftDataConfig
from grhpc.store.model_digest import model_digest
from grhpc.store.rundir import RunDir

CONFIG = str(Path(__file__).parents[2] / "configs" / "eval-tiny.yaml")
NEEDED = ["--set", "cluster.executor=slurm", "--no-launch"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))


@pytest.fixture
def submit(capfd):
    """`submit("evaluate", ...)`: exit code, output and errors."""

    def run(*words: object):
        code = main([str(word) for word in words])
        said = capfd.readouterr()
        return code, said.out, said.err

    return run


def evaluate(model, *words):
    return ["evaluate", model, CONFIG, *NEEDED, "--set", "data.limit=8", *words]


def publish(run: RunDir, version: int) -> None:
    staging = run.weights.begin(1, version)
    for path in POLICY.iterdir():
        shutil.copy(path, staging / path.name)
    run.weights.commit(1, version, base="policy", extra={})


@pytest.fixture
def trained():
    """A run of training that has published versions 3 and 7."""
    config = Config(
        run=RunConfig("trained"),
        policy=ModelConfig(str(POLICY), "float32"),
        verifier=VerifierConfig(str(POLICY), "float32"),
        data=DataConfig("none"),
        train=TrainConfig(steps=9),
    )
    run = RunDir.create(config.run_dir, config)
    for version in (3, 7):
        publish(run, version)
    return run


def test_a_runs_version_is_linked_and_outlives_its_pruning(submit, trained):
    code, out, err = submit(*evaluate("trained", "--version", 3))
    assert code == 0, err
    run = RunDir.open(trained.evaluation_dir("eval-tiny", 3))
    assert (run.about["model"], run.about["version"]) == ("trained v3", 3)
    assert run.about["weight_digest"] == model_digest(str(POLICY)), "equal bytes have one digest"
    assert run.queue("questions").counts()["ready"] == 1 and run.name == "trained/eval/eval-tiny/v000003"
    script = (run.jobs_dir / "evaluate.sbatch").read_text()
    assert "#SBATCH --job-name=trained-eval-eval-tiny-v000003-evaluate\n" in script
    linked = run.root / "weights" / "g0001-v000003" / "model.safetensors"
    original = trained.weights.find(3).path / "model.safetensors"
    assert os.path.samefile(linked, original)
    assert trained.weights.prune(1, set()) == ["g0001-v000003"]
    model = Measured(run, run.evaluation())
    folder = Path(model.fetch())
    assert (folder / "model.safetensors").read_bytes() == (POLICY / "model.safetensors").read_bytes()
    model.leave()
    model.remove()
    assert not linked.exists()
    # Again, with other settings, of a version that is no more, and of the newest by default.
    assert submit(*evaluate("trained", "--version", 3))[1].splitlines() == out.splitlines()[-3:]
    code, _, err = submit(*evaluate("trained", "--version", 3, "--set", "sample.max_response_tokens=9"))
    assert code == 2 and "is a run with other settings: sample.max_response_tokens (48 there, 9 here)" in err
    assert "begin another run: --set run.name=eval-tiny-2" in err
    code, _, err = submit(*evaluate("trained", "--version", 4))
    assert (code, err.splitlines()[0]) == (2, "error: trained does not, or no longer, keep version 4; kept: 7")
    assert submit(*evaluate("trained"))[0] == 0
    assert trained.evaluations() == [("eval-tiny", 3), ("eval-tiny", 7)]


@pytest.mark.parametrize("refusal", [errno.EXDEV, errno.EPERM, errno.EMLINK])
def test_where_nothing_can_be_linked_it_is_copied(submit, trained, monkeypatch, refusal):
    def refuse(*_):
        raise OSError(refusal, os.strerror(refusal))

    monkeypatch.setattr(measured.os, "link", refuse)
    assert submit(*evaluate("trained"))[0] == 0
    run = RunDir.open(trained.evaluation_dir("eval-tiny", 7))
    copied = run.root / "weights" / "g0001-v000007" / "model.safetensors"
    assert copied.read_bytes() == (POLICY / "model.safetensors").read_bytes() and copied.stat().st_nlink == 1


def test_a_version_that_is_pruned_meanwhile_leaves_nothing(submit, trained, monkeypatch):
    def pruned(*_):
        raise FileNotFoundError("gone")

    monkeypatch.setattr(measured.os, "link", pruned)
    code, _, err = submit(*evaluate("trained"))
    assert code == 2 and "was pruned while it was linked" in err and Pruned.__name__ not in err
    above = trained.root / "eval" / "eval-tiny"
    assert list(above.iterdir()) == []


def test_a_models_folder(submit):
    code, out, err = submit(*evaluate(POLICY))
    assert code == 0 and "sbatch" in out, err
    run = RunDir.open(Path("runs/eval-tiny"))
    assert run.about["model"] == "policy" and not (run.root / "weights").exists()
    assert run.evaluation().model.model == str(POLICY)


def test_a_folder_that_holds_other_weights_by_now_is_not_measured(submit, tmp_path):
    """By no task, and under the same name it shows no table of what it was."""
    folder = tmp_path / "policy"
    shutil.copytree(POLICY, folder)
    assert submit(*evaluate(folder))[0] == 0
    run = RunDir.open(Path("runs/eval-tiny"))
    assert Measured(run, run.evaluation()).fetch() == str(folder)
    with open(folder / "model.safetensors", "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"y")
    with pytest.raises(ConfigError, match=r"the files in .* are not those with which eval-tiny was made"):
        Measured(run, run.evaluation()).fetch()
    for finished in (False, True):
        if finished:
            Task(run, sampler=Scripted(0, lambda q, k: "\\boxed{1}")).serve()
        code, out, err = submit(*evaluate(folder))
        assert code == 2 and "is not what eval-tiny measures: its files, or its commit, changed" in err and not out
        assert "--set run.name=" in err


def test_a_hub_id_is_measured_at_the_commit_that_it_had(submit, tmp_path, monkeypatch):
    old, new = "a" * 40, "b" * 40
    repo = tmp_path / "hub" / "models--org--tiny"
    (repo / "refs").mkdir(parents=True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    for commit in (old, new):
        shutil.copytree(POLICY, repo / "snapshots" / commit)
    (repo / "refs" / "main").write_text(old)
    code, _, err = submit(*evaluate("org/tiny"))
    assert code == 0, err
    run = RunDir.open(Path("runs/eval-tiny"))
    assert (run.about["weight_digest"], run.about["model"]) == (old, "org/tiny")
    assert submit(*evaluate("org/tiny"))[0] == 0
    (repo / "refs" / "main").write_text(new)
    assert Measured(run, run.evaluation()).fetch() == str(repo / "snapshots" / old)
    code, _, err = submit(*evaluate("org/tiny"))
    assert code == 2 and "org/tiny is not what eval-tiny measures" in err
    shutil.rmtree(repo / "snapshots" / old)
    with pytest.raises(DataError, match="org/tiny at commit aaaaaaaaaaaa cannot be had"):
        Measured(run, run.evaluation()).fetch()


def test_a_large_model_is_looked_through_with_a_word(submit, monkeypatch):
    monkeypatch.setattr(evaluation, "LARGE_BYTES", 1000)
    assert "reading parts of the 0 GiB in" in submit(*evaluate(POLICY))[1]


def test_a_finished_one_shows_its_table(submit):
    assert submit(*evaluate(POLICY))[0] == 0
    run = RunDir.open(Path("runs/eval-tiny"))
    Task(run, sampler=Scripted(0, lambda q, k: f"\\boxed{{{q.gold}}}")).serve()
    code, out, _ = submit(*evaluate(POLICY))
    assert code == 0 and "eval-tiny is finished" in out and "100.0" in out
    code, out, _ = submit("status", "eval-tiny")
    assert out.splitlines()[0] == "eval-tiny: finished, 1 of 1 shards done"
    code, out, _ = submit("stop", "eval-tiny")
    assert code == 0 and "its result: python submit.py report eval-tiny" in out
    code, out, _ = submit("resume", "eval-tiny")
    assert code == 0 and "is finished" in out
    code, _, err = submit("scale", "eval-tiny", "rollout", 2)
    assert code == 2 and "rollout of eval-tiny cannot be scaled" in err and "these can: evaluate" in err
    code, _, err = submit("audit", "eval-tiny")
    assert code == 2 and "is a run of eval" in err and "summary.json" in err


def test_status_tells_shards_and_samples_of_each_stage(submit):
    assert submit(*evaluate(POLICY, "--set", "sample.questions_per_shard=3"))[0] == 0
    run = RunDir.open(Path("runs/eval-tiny"))
    task = Task(run, sampler=Scripted(0, lambda q, k: "\\boxed{1}"))
    for _ in range(4):  # three shards asked, one graded
        task.step()
    run.queue("samples").claim("x").fail("no room")
    out = submit("status", "eval-tiny")[1]
    assert "asked: 8 of 8 samples in 3 of 3 shards" in out and "graded: 3 of 8 samples in 1 of 3 shards" in out
    for _ in range(4):
        run.queue("samples").claim("x").fail("no room")
    out = submit("status", "eval-tiny")[1]
    assert "failed shards of samples: 1" in out and "attempt 5: no room" in out


@pytest.mark.parametrize(
    ("words", "problem", "remedy"),
    [
        (["traind"], "no run 'traind', and the model: no such model folder: traind", "did you mean 'trained'?"),
        (["traind"], "no run 'traind'", "for a model, name a folder that exists, or a Hub id; for a run: "),
        ([POLICY, "--set", "entries.tiny={prompt: math}"], "entries.tiny.prompt is 'math'", "'maths'"),
        (["trained", "--version", "99"], "keep version 99; kept: 3, 7", "--version"),
        ([POLICY, "--version", "3"], "--version is of a run of GRPO", "leave it out"),
        ([POLICY, "--set", "benchmarks=[tiny, nonesuch]"], "benchmarks names 'nonesuch'", ""),
        ([POLICY, "--set", "sample.max_response_tokens=5000"], "may have 5064 tokens, but the model has 1024", "lower"),
        ([POLICY, "--set", "data.sources={tiny: nowhere.jsonl}"], "tiny: no such dataset file", "data.sources.tiny: "),
        (["trained", "--set", "run.name=heldout"], "run.name heldout is that of", "--set run.name"),
        ([POLICY, "--set", "verify.mode=hybrid"], "verify.mode hybrid asks a judge, and there is none", "set verifier"),
        (["lessons"], "lessons has not made its model yet", "status lessons"),
    ],
)
def test_what_is_refused_is_refused_before_anything_is_made(submit, trained, words, problem, remedy, capfd):
    sft = SftConfig(RunConfig("lessons"), ModelConfig(str(POLICY)), SftDataConfig("s", "p"))
    RunDir.create(Path("runs/lessons"), sft)
    try:
        code, _, err = submit(*evaluate(*words))
    except SystemExit as ended:  # the preparation, in a child process, said it
        code, err = ended.code, capfd.readouterr().err
    assert code == 2 and problem in err and remedy in err
    assert sorted(path.name for path in Path("runs").iterdir()) == ["lessons", "trained"] and not trained.evaluations()


def test_an_evaluation_is_not_evaluated(submit):
    assert submit(*evaluate(POLICY))[0] == 0
    code, _, err = submit(*evaluate("eval-tiny"))
    assert code == 2 and "eval-tiny is an evaluation itself" in err


def test_a_training_configuration_is_none_of_an_evaluation(submit):
    config = Path(CONFIG).with_name("tiny.yaml")
    code, _, err = submit("evaluate", POLICY, config)
    assert code == 2 and "is a configuration of grpo" in err


def test_a_benchmark_of_ones_own(submit, tmp_path):
    """The thirteenth: an entry in the configuration, and a file."""
    (tmp_path / "own.jsonl").write_text('{"q": "What is 2 + 3?", "a": "5", "kind": "sum"}\n' * 3)
    entry = {"source": str(tmp_path / "own.jsonl"), "fields": {"question": "q", "gold": "a"}, "scorer": "math"}
    config = configured(tmp_path, "own.sums")
    path = tmp_path / "own.yaml"
    path.write_text(dump(config.__class__(**{**vars(config), "entries": {"own.sums": entry}})))
    code, _, err = submit("evaluate", POLICY, path, *NEEDED)
    assert code == 0, err
    run = RunDir.open(tmp_path / "e")
    Task(run, sampler=Scripted(3, lambda q, k: "\\boxed{5.0}")).serve()
    assert "own.sums" in submit("evaluate", POLICY, path, *NEEDED)[1]


def test_one_that_another_call_is_starting_is_not_submitted_twice(submit, monkeypatch):
    """Between its directory, which appears whole, and its tasks."""
    assert submit(*evaluate(POLICY))[0] == 0
    run = RunDir.open(Path("runs/eval-tiny"))
    shutil.rmtree(run.jobs_dir)
    run.jobs_dir.mkdir()
    resumed = []
    monkeypatch.setattr(evaluation.control, "resume", lambda run: resumed.append(run) or [])
    monkeypatch.setattr(evaluation.control, "live_jobs", lambda run: [])
    words = [word for word in evaluate(POLICY) if word != "--no-launch"]
    code, out, _ = submit(*words)
    assert code == 0 and "is being started by another call" in out and not resumed
    monkeypatch.setattr(evaluation, "STARTING_S", 0.0)
    assert submit(*words)[0] == 0 and resumed
