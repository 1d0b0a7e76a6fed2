"""Evaluations that a run of training starts by itself: each due version once, and never in the training's way."""

import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from eval_bench import POLICY, configured

from grhpc.cluster import role
from grhpc.cluster.job import LOCAL, SLURM, Job
from grhpc.config import (
    Config,
    DataConfig,
    EndpointConfig,
    EvaluateConfig,
    ModelConfig,
    RunConfig,
    TrainConfig,
    VerifierConfig,
)
from grhpc.config_file import dump
from grhpc.errors import ConfigError, StoreError
from grhpc.eval_config import EvalClusterConfig
from grhpc.evaluate import online
from grhpc.evaluate.online import MOST_TRIES, Online
from grhpc.evaluate.prepare import prepare
from grhpc.lifetime import Lifetime
from grhpc.store.events import read_events
from grhpc.store.rundir import RunDir

ROOT = Path(__file__).parents[2]


def training(folder: Path, every: int = 2, **changes) -> Config:
    """A run that evaluates by `folder`/eval.yaml."""
    config = configured(folder, "tiny")
    config = replace(config, cluster=EvalClusterConfig(executor="local"))
    (folder / "eval.yaml").write_text(dump(replace(config, run=RunConfig("small"))))
    evaluate = EvaluateConfig(every=every, config=str(folder / "eval.yaml"))
    found = Config(
        run=RunConfig("r", str(folder)),
        policy=ModelConfig(str(POLICY), "float32"),
        verifier=VerifierConfig(str(POLICY)),
        data=DataConfig("none"),
        train=TrainConfig(steps=9),
        evaluate=evaluate,
    )
    return replace(found, cluster=replace(found.cluster, executor="local"), **changes)


@pytest.fixture
def run(tmp_path):
    config = training(tmp_path)
    evaluated = online.load(config)
    prepare(evaluated)
    run = RunDir.create(tmp_path / "r", config, lambda new: new.online_path.write_text(dump(evaluated)))
    publish(run, 0)
    return run


@pytest.fixture
def launched(monkeypatch):
    """The evaluations that were launched; an error in `launched.refusals` is raised in the place of the next one."""

    class Launched(list):
        refusals: list = []  # noqa: RUF012

    them = Launched()

    def launch(root):
        if them.refusals:
            raise them.refusals.pop(0)
        jobs = RunDir.open(root).jobs_dir
        (jobs / "1-evaluate-7.json").write_text("{}")
        them.append(root.name)

    monkeypatch.setattr(online, "_launch", launch)
    monkeypatch.setattr(online, "FIRST_PAUSE_S", 0.0)
    return them


def publish(run: RunDir, version: int) -> None:
    staging = run.weights.begin(1, version)
    for path in POLICY.iterdir():
        shutil.copy(path, staging / path.name)
    run.weights.commit(1, version, base="policy", extra={})
    run.weights.prune(1, run.awaiting_evaluation(run.config().evaluate.every))


def errors(run: RunDir) -> list[str]:
    return [e["problem"] for e in read_events(run.events_dir, "online") if e["event"] == "error"]


def test_every_due_version_once_and_the_last(run, launched):
    watcher = Online(run, "t-1")
    for version in range(6):
        publish(run, version) if version else None
        watcher.look(over=False)
        watcher.look(over=False)
    assert launched == ["v000000", "v000002", "v000004"]
    watcher.look(over=True)
    assert launched == ["v000000", "v000002", "v000004", "v000005"]
    Online(run, "t-2").look(over=True)
    assert len(launched) == 4, "a requeued trainer's watcher finds them started"
    assert run.evaluations() == [("small", 0), ("small", 2), ("small", 4), ("small", 5)]
    about = RunDir.open(run.evaluation_dir("small", 4)).about
    assert (about["version"], about["model"]) == (4, "r v4")
    assert [e["version"] for e in read_events(run.events_dir) if e["event"] == "evaluation"] == [0, 2, 4, 5]


def test_weights_that_wait_for_their_evaluation_are_kept_but_not_for_ever(run):
    """No watcher looks, as where it cannot even start."""
    for version in range(1, 12):
        publish(run, version)
    assert run.weights.versions() == [6, 8, 10, 11]


def test_a_place_that_refuses_is_asked_again_and_not_for_ever(run, launched):
    launched.refusals += [StoreError("sbatch: error: no partition eval (exit 2)")] * 2
    watcher = Online(run, "t-1")
    for _ in range(4):
        watcher.look(over=False)
    assert launched == ["v000000"]
    assert (
        errors(run)
        == [
            "the evaluation of version 0 was not started: sbatch: error: no partition eval (exit 2)",
        ]
        * 2
    )
    publish(run, 2)
    launched.refusals += [subprocess.TimeoutExpired("sbatch", 300.0)] * 99
    for _ in range(3):
        watcher.look(over=False)
    reborn = Online(run, "t-2")  # tries are counted over all lives
    for _ in range(9):
        reborn.look(over=False)
    assert len(errors(run)) == 2 + MOST_TRIES and launched == ["v000000"]
    assert RunDir.open(run.evaluation_dir("small", 2)).queue("questions").counts()["ready"] == 3, (
        "a person may resume it"
    )


def test_the_last_version_is_tried_again_too(run, launched):
    run.finish({})
    launched.refusals += [StoreError("sbatch: error: Socket timed out (exit 1)")] * 2
    assert online.main([str(run.root), "t-1", str(os.getppid())]) == 0
    assert launched == ["v000000"] and len(errors(run)) == 2


def test_a_trainer_that_comes_back_to_a_finished_run_has_its_evaluations_started(run, monkeypatch):
    """Killed between the end of the run and its last look."""
    waited = []

    class Helper:
        def wait(self, timeout):
            waited.append(timeout)

    monkeypatch.setattr(role.subprocess, "Popen", lambda words, env: Helper())
    run.finish({})
    life = Lifetime(job="local-7")
    assert role._run("train", run, Job(LOCAL, "7", "local-7-7"), life) == 0
    assert waited == [role.LET_END_S]


def test_a_version_that_cannot_be_linked_is_told_and_the_others_go_on(run, launched):
    (run.weights.find(0).path / "model.safetensors").unlink()
    publish(run, 2)
    Online(run, "t").look(over=False)
    assert launched == ["v000002"] and "version 0 was not started" in errors(run)[0]
    assert run.evaluations() == [("small", 2)]


def test_who_finds_it_made_a_moment_ago_leaves_it_to_its_maker(run, launched, monkeypatch):
    def slow(root):
        Online(run, "zombie").look(over=False)
        (RunDir.open(root).jobs_dir / "1-evaluate-7.json").write_text("{}")

    real = online._launch
    monkeypatch.setattr(online, "_launch", slow)
    Online(run, "t-1").look(over=False)
    assert launched == [] and not errors(run)
    # One that was left by a process that died is launched by the next.
    monkeypatch.setattr(online, "_launch", real)
    publish(run, 2)
    launched.refusals.append(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        Online(run, "t-1").look(over=False)
    Online(run, "t-2").look(over=False)
    assert launched == []
    monkeypatch.setattr(online, "LAUNCH_S", 0.0)
    Online(run, "t-3").look(over=False)
    assert launched == ["v000002"]


def test_the_trainer_starts_it_only_where_it_is_asked_for(run, tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(role.subprocess, "Popen", lambda words, env: started.append((words[2], env)))
    monkeypatch.setenv("GRHPC_GPUS", "0,1,2,3")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    job = Job(LOCAL, "7", "local-7-7")
    role._helpers("train", run, job)
    [(module, env)] = started
    assert module == "grhpc.evaluate.online" and env["CUDA_VISIBLE_DEVICES"] == "0,1,2,3", "the others' GPUs too"
    role._helpers("rollout", run, job)
    role._helpers("train", run, replace(job, rank=1))
    never = RunDir.create(tmp_path / "never", training(tmp_path, every=0))
    role._helpers("train", never, job)
    assert len(started) == 1
    role._helpers("train", run, Job(SLURM, "7", "7-0"))
    assert [module for module, _ in started[1:]] == ["grhpc.cluster.refill", "grhpc.evaluate.online"]


@pytest.mark.parametrize("over", [True, False])
def test_it_ends_with_the_run_or_with_the_trainer(run, over):
    """Its own process; with nothing due that is not started."""
    evaluation = run.evaluation_dir("small", 0)
    evaluation.mkdir(parents=True)
    for name in ("run.json", "config.yaml"):
        shutil.copy(run.root / name, evaluation / name)
    (evaluation / "jobs").mkdir()
    (evaluation / "jobs" / "1-evaluate-7.json").write_text("{}")
    code = "import os, subprocess, sys; words = [sys.executable, '-m', *sys.argv[1:], str(os.getpid())]\n"
    code += "print(subprocess.Popen(words).pid, flush=True); input()"
    words = [sys.executable, "-c", code, "grhpc.evaluate.online", str(run.root), "t"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    trainer = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
    watcher = int(trainer.stdout.readline())
    if over:
        run.finish({})
    else:
        trainer.kill()
    deadline_s = time.monotonic() + 300
    while is_alive(watcher):
        assert time.monotonic() < deadline_s
        time.sleep(0.1)
    trainer.kill()
    trainer.wait()
    assert not errors(run)


def is_alive(process_id: int) -> bool:
    try:
        return psutil.Process(process_id).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            lambda c: replace(c, cluster=EvalClusterConfig(executor="slurm")),
            "cluster.executor is slurm in .*, and local",
        ),
        (lambda c: replace(c, sample=replace(c.sample, endpoint=EndpointConfig("http://x/v1"))), "has an endpoint"),
        (lambda c: replace(c, benchmarks=["nonesuch"]), "nonesuch"),
    ],
)
def test_what_cannot_measure_a_runs_weights_is_refused_at_its_start(tmp_path, change, problem):
    config = training(tmp_path)
    local = replace(configured(tmp_path, "tiny"), cluster=EvalClusterConfig(executor="local"))
    (tmp_path / "eval.yaml").write_text(dump(change(local)))
    with pytest.raises(ConfigError, match=problem):
        online.load(config)
