"""What may change in a run's life, what may not, and that every change is written down."""

import getpass
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from prompts import prompt

from grhpc.cluster import amend, control
from grhpc.cluster.job import start_ticks
from grhpc.cluster.submissions import Submission, record
from grhpc.config import EndpointConfig, RunConfig, VerifierConfig
from grhpc.errors import ClusterError, ConfigError, OtherVersion
from grhpc.eval_config import EvalClusterConfig, EvalConfig, EvalDataConfig, SampleConfig
from grhpc.records import GroupPrompt, Trained
from grhpc.store import code
from grhpc.store.ledger import Ledger
from grhpc.store.queue import Queue
from grhpc.store.rundir import RunDir
from grhpc.store.shard import write_shard
from tests.cluster.conftest import new_run


def begin(run: RunDir) -> None:
    """As the trainer does first."""
    Ledger.open_next(run.ledger_dir, run_id=run.run_id)


def change(run: RunDir, *overrides: str) -> amend.Changes:
    config, changes = amend.amended(run, overrides)
    amend.amend(run, config, changes)
    return changes


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = new_run(tmp_path, "local")
    begin(run)
    return run


def test_what_a_run_asks_for_may_change_and_says_who_when_and_what(run: RunDir) -> None:
    change(run, "cluster.train.time_min=2880", "cluster.rollout.env={A: b}")
    change(run, "train.checkpoint_every=5", "rollout.engine.gpu_memory_utilization=0.8", "store.lease_s=60")
    again = RunDir.open(run.root)
    config, (first, second) = again.config(), again.about["changes"]
    assert (config.cluster.train.time_min, config.cluster.rollout.env) == (2880, {"A": "b"})
    assert (config.train.checkpoint_every, config.rollout.engine.gpu_memory_utilization) == (5, 0.8)
    assert first["settings"]["cluster.train.time_min"] == [60, 2880]
    assert sorted(second["settings"]) == [
        "rollout.engine.gpu_memory_utilization",
        "store.lease_s",
        "train.checkpoint_every",
    ]
    assert first["by"] == getpass.getuser() and again.about["created"] <= first["t"] <= second["t"]
    assert again.run_id == run.run_id


@pytest.mark.parametrize(
    "override",
    [
        "grpo.clip_high=0.3",
        "grpo.groups_per_step=4",
        "rollout.temperature=0.5",
        "rollout.group_size=4",
        "train.lr=1",
        "train.steps=9",
        "train.weight_decay=0.2",
        "data.instruction=think",
        "verify.mode=rule",
        "verifier.template=x",
        "policy.dtype=float32",
        "run.seed=1",
        "run.name=other",
    ],
)
def test_what_a_run_is_may_not_change(run: RunDir, override: str) -> None:
    before = run.config_path.read_bytes()
    with pytest.raises(ConfigError) as caught:
        amend.amended(run, [override])
    assert override.partition("=")[0] in caught.value.problem
    assert run.config_path.read_bytes() == before and "changes" not in RunDir.open(run.root).about


@pytest.fixture
def evaluation(tmp_path: Path) -> Callable[..., RunDir]:
    def make(url: str = "") -> RunDir:
        config = EvalConfig(
            RunConfig("e", str(tmp_path)),
            ["tiny"],
            EvalDataConfig(str(tmp_path / "prepared")),
            sample=SampleConfig(endpoint=EndpointConfig(url=url)),
            verifier=VerifierConfig("", template="chat"),
            cluster=EvalClusterConfig("local"),
        )
        return RunDir.create(tmp_path / "e", config)

    return make


@pytest.mark.parametrize(
    "override",
    [
        "sample.engine.extra={quantization: fp8}",
        "sample.engine.tensor_parallel=2",
        "sample.engine.max_num_seqs=8",
        "verify.engine.extra={quantization: fp8}",
        "sample.endpoint.url=http://elsewhere/v1",
        "sample.endpoint.model=another",
        "verifier.endpoint.url=http://elsewhere/v1",
        "sample.max_response_tokens=5",
        "verifier.max_attempts=1",
    ],
)
def test_what_an_evaluation_computes_may_not_change_on_its_way(evaluation, override: str) -> None:
    run = evaluation()
    with pytest.raises(ConfigError) as caught:
        amend.amended(run, [override])
    setting = override.partition("=")[0]
    assert f"{setting} cannot change once a run has begun" in caught.value.problem
    begin, allowed = caught.value.remedy.split("; these may change: ")
    assert begin == "begin one: evaluate MODEL CONFIG --set run.name=..."
    assert allowed.startswith("cluster.*, store.*, ") and ", parts of " in allowed
    sizes = "sample.engine.{gpu_memory_utilization,kv_cache_mb,stall_s}"
    assert (sizes in allowed) == setting.startswith("sample.engine.")
    assert len(allowed) < 200, "short enough to be read"
    assert not amend.may_change(run, {setting: ["", "x"]})


def test_where_and_how_fast_an_evaluation_runs_may_change(evaluation) -> None:
    run = evaluation("http://here/v1")
    change(run, "cluster.evaluate.time_min=99", "store.lease_s=77", "verify.engine.kv_cache_mb=128")
    change(run, "sample.endpoint.url=http://there/v1", "sample.endpoint.concurrency=3", "verifier.endpoint.timeout_s=9")
    config = RunDir.open(run.root).evaluation()
    assert (config.sample.endpoint.url, config.sample.endpoint.concurrency) == ("http://there/v1", 3)
    assert amend.may_change(run, {"sample.endpoint.url": ["http://there/v1", "http://here/v1"]})
    with pytest.raises(ConfigError, match=r"sample\.endpoint\.url cannot change"):
        amend.amended(run, ["sample.endpoint.url="])


def test_a_moved_model_is_known_by_what_it_is(tmp_path: Path) -> None:
    old, moved, other = (tmp_path / name for name in ("old", "moved", "other"))
    old.mkdir()
    (old / "config.json").write_text("{}")
    (old / "model.safetensors").write_bytes(b"x" * 5_000_000)
    shutil.copytree(old, other)
    with (other / "model.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"y")
    run = new_run(tmp_path, "local")
    config, changes = amend.amended(run, [f"policy.model={old}"])
    amend.amend(run, config, changes, models=amend.model_digests(config))
    begin(run)
    old.rename(moved)
    with pytest.raises(ConfigError, match="is not the model that this run began with"):
        amend.amended(run, [f"policy.model={other}"])
    assert change(run, f"policy.model={moved}") == {"policy.model": [str(old), str(moved)]}
    with pytest.raises(ConfigError, match="is not the model"):  # was no folder: nobody knows what it was
        amend.amended(run, [f"verifier.model={moved}"])


def test_a_run_that_trained_nothing_may_change_in_everything_but_its_name(tmp_path: Path) -> None:
    run = new_run(tmp_path, "local")
    change(run, "policy.model=some/model", "grpo.clip_high=0.3", "train.steps=7")
    assert (run.config().policy.model, run.config().train.steps) == ("some/model", 7)
    with pytest.raises(ConfigError, match=r"run\.name is the run's identity"):
        amend.amended(run, ["run.name=other"])


def test_nothing_changes_under_a_live_task(run: RunDir) -> None:
    record(run.jobs_dir, Submission("local", "rollout", str(os.getpid()), started=start_ticks(os.getpid())))
    with pytest.raises(ClusterError, match="1 tasks of stub live") as caught:
        amend.amended(run, ["cluster.train.time_min=2880"])
    assert "submit.py stop stub" in caught.value.remedy
    assert amend.amended(run, ["cluster.train.time_min=60"])[1] == {}  # says what is so already


def test_a_changed_number_of_tasks_outdoes_what_scale_said(run: RunDir) -> None:
    control.record_target(run.jobs_dir, "rollout", 9)
    change(run, "cluster.rollout.tasks=3")
    assert control.wanted_tasks(run, run.config(), "rollout") == 3


def of_another_version(row_type: type) -> object:
    made = dataclass(frozen=True)(type(row_type.__name__, (), {"__annotations__": {"why": str}}))
    return made("")


def other_code() -> code.Code:
    return code.Code(code.present().files | {"new.py": b""}, {**code.present().about, "sha256": "another"})


@pytest.mark.parametrize("state", ["ready", "leased"])
def test_code_that_cannot_read_the_runs_rows_does_not_become_its_code(run: RunDir, state: str) -> None:
    row, ours = of_another_version(GroupPrompt), run.queue("prompts")
    queue = Queue(ours.directory, type(row), run_id=run.run_id, lease_s=60.0, max_attempts=3)
    ours.put("g00000000-0001", [prompt()])
    if state == "leased":  # as a crash, or `stop --now`, leaves them
        assert ours.claim("7_0")
    queue.put("g00000001-0001", [row])
    lease = queue.claim("7_0") if state == "leased" else None
    before = queue.names()
    with pytest.raises(OtherVersion, match="unknown to this one: why") as caught:
        amend.take_code(run, other_code())
    assert "go on with its own code" in caught.value.remedy
    run = RunDir.open(run.root)
    assert "changes" not in run.about and len(run.about["code"]) == 1 and queue.names() == before
    if lease is None:
        assert ours.claim("7_0")
        lease = queue.claim("7_0")
    lease.done()
    (said,) = amend.take_code(run, other_code())
    assert said.startswith("code: ") and [c["settings"].keys() for c in run.about["changes"]] == [{"code"}]
    assert amend.take_code(run, other_code()) == []


def test_code_that_cannot_replay_the_runs_steps_does_not_become_its_code(run: RunDir) -> None:
    ledger = Ledger.open_next(run.ledger_dir, run_id=run.run_id)
    ledger.append({"kind": "admit", "first": 0, "count": 3, "version": 0})
    for step in (1, 2, 3):  # the last is gone, the first of another version, which a resume replays
        path = run.batch_path(step, ledger.generation)
        if step < 3:
            write_shard(path, [of_another_version(Trained)], run_id=run.run_id)
        entry = {"kind": "step", "step": step, "version": step - 1, "batch": path.name, "sha256": ""}
        ledger.append({**entry, "groups": [step - 1]})
    with pytest.raises(OtherVersion, match=r"s000001-g0002\.parquet was written by another version"):
        amend.take_code(run, other_code())
    run.checkpoint_dir(1).mkdir()
    ledger.append({"kind": "checkpoint", "step": 1})
    ledger.append({"kind": "checkpoint", "step": 3})  # removed since
    with pytest.raises(OtherVersion, match="s000002"):
        amend.take_code(run, other_code())
    run.checkpoint_dir(2).mkdir()
    ledger.append({"kind": "checkpoint", "step": 2})
    assert amend.take_code(run, other_code())


def test_the_same_code_again_mends_what_a_death_left(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(code, "_point", lambda *words: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            amend.take_code(run, other_code())
    run = RunDir.open(run.root)
    assert not code.is_linked(run) and not (run.code_dir / "grhpc" / "new.py").exists()
    assert amend.take_code(run, other_code()) == []
    assert code.is_linked(run) and (run.code_dir / "grhpc" / "new.py").exists()
    assert len(RunDir.open(run.root).about["code"]) == 2
