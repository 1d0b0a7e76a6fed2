"""What sbatch is handed, seen by a pretended one: no SLURM is needed."""

import os
import stat
from pathlib import Path

import pytest

from grhpc.cluster import launch, role
from grhpc.cluster.job import SLURM, Job, without_allocation
from grhpc.errors import ClusterError
from tests.cluster.conftest import new_run, stub

OF_THE_ALLOCATION = {
    "SLURM_JOB_ID": "4711",
    "SLURM_MEM_PER_CPU": "4096",
    "SLURM_NTASKS": "16",
    "SBATCH_CPU_BIND": "quiet",
    "SRUN_DEBUG": "3",
    "CUDA_VISIBLE_DEVICES": "5",
}
OUR_OWN = {"SLURM_CONF": __file__, "SBATCH_ACCOUNT": "physics", "HF_HOME": "/big/hub"}


@pytest.fixture
def handed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with the environment of the last sbatch; `srun`, `scancel` and `scontrol` are there and do nothing."""
    programs, seen = tmp_path / "programs", tmp_path / "environment"
    programs.mkdir()
    for name, does in {"sbatch": f'env > "{seen}"; echo Submitted batch job 42', "srun": "", "scancel": ""}.items():
        (programs / name).write_text(f"#!/bin/sh\n{does}\n")
        (programs / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    for key in [key for key in os.environ if key.startswith(("SLURM", "SBATCH_", "SRUN_"))]:
        monkeypatch.delenv(key)
    return seen


def environment(seen: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in seen.read_text().splitlines() if "=" in line)


@pytest.mark.parametrize("name", ["train", "rollout"])
def test_a_job_submitted_inside_an_allocation_gets_nothing_of_it(
    handed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for key, value in (OF_THE_ALLOCATION | OUR_OWN).items():
        monkeypatch.setenv(key, value)
    run = new_run(tmp_path, "slurm", **{name: stub(name, tasks=2)})
    launch.start(run, run.config(), [name])
    seen = environment(handed)
    assert not OF_THE_ALLOCATION.keys() & seen.keys() and seen.items() >= OUR_OWN.items()
    assert os.environ.items() >= OF_THE_ALLOCATION.items()  # this process keeps what it had


def test_outside_an_allocation_a_persons_settings_for_sbatch_stay(
    handed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SBATCH_RESERVATION", "night")
    run = new_run(tmp_path, "slurm", rollout=stub("rollout"))
    launch.start(run, run.config(), ["rollout"])
    assert environment(handed)["SBATCH_RESERVATION"] == "night"


def test_the_trainers_refill_inherits_nothing_of_its_allocation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run(tmp_path, "slurm", train=stub("train"))
    given: list[dict[str, str]] = []
    monkeypatch.setattr(role.subprocess, "Popen", lambda words, env: given.append(env))
    for key, value in (OF_THE_ALLOCATION | OUR_OWN | {"STUB": "x", "STUBBORN": "kept"}).items():
        monkeypatch.setenv(key, value)
    assert role._helpers("train", run, Job(SLURM, "7", "7-0")) == []
    (env,) = given
    assert not OF_THE_ALLOCATION.keys() & env.keys() and env.items() >= OUR_OWN.items()
    assert "STUB" not in env and env["STUBBORN"] == "kept"  # what only the trainer's settings put there goes
    assert env.keys() <= without_allocation(os.environ).keys() | {"PYTHONPATH"}  # the run's own code


def test_a_slurm_that_is_not_there_is_not_the_configurations_fault(
    handed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run(tmp_path, "slurm", train=stub("train"))
    sbatch = tmp_path / "programs" / "sbatch"
    sbatch.write_text("#!/bin/sh\necho sbatch: error: Unable to contact slurm controller >&2; exit 1\n")
    with pytest.raises(ClusterError, match=r"SLURM is not reachable from this shell: .*Unable to contact") as caught:
        launch.start(run, run.config(), ["train"])
    assert "cluster.train" not in caught.value.remedy
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "nowhere"))
    with pytest.raises(ClusterError, match=r"SLURM_CONF names .*nowhere, which is not there"):
        launch.require(run.config())
