"""One real SLURM for the session, and runs whose roles cost nothing (stub_roles/)."""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from grhpc.cluster import control
from grhpc.cluster.submissions import read_submissions
from grhpc.config import (
    ClusterConfig,
    Config,
    DataConfig,
    ModelConfig,
    RoleConfig,
    RunConfig,
    TrainConfig,
    VerifierConfig,
)
from grhpc.eval_config import EvalClusterConfig, EvalConfig, EvalDataConfig
from grhpc.store import code
from grhpc.store.events import read_events
from grhpc.store.rundir import RunDir

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.cluster.lab import Lab
from tests.cluster.lab_host import LabError, install

STUBS = str(Path(__file__).parent / "stub_roles")
WAIT_S = 240.0  # for what comes within seconds on an idle machine


@pytest.fixture(scope="session")
def slurm_cluster() -> Iterator[Lab]:
    """Four nodes, partitions prod and spot; the environment of this process speaks to them."""
    try:
        install()
    except LabError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"no SLURM: {error}")
        pytest.skip(f"no SLURM here: {error}")
    lab = Lab(Path(tempfile.mkdtemp(prefix="grhpc-lab-", dir="/tmp")))
    lab.up(say=lambda text: None)
    before = dict(os.environ)
    os.environ.update({key: value for key, value in lab.env.items() if key in ("SLURM_CONF", "PATH")})
    try:
        yield lab
    finally:
        os.environ.clear()
        os.environ.update(before)
        lab.down()


def stub(role: str, does: str = "linger", **asked: Any) -> RoleConfig:
    """What a role asks for; it runs the stub instead of the role."""
    env = {"PYTHONPATH": STUBS, "STUB_ROLE": role, "STUB": does, "OMP_NUM_THREADS": "1"}
    return RoleConfig(env=env, **{"time_min": 10, "signal_s": 60, **asked})


def new_run(folder: Path, executor: str, name: str = "stub", **roles: RoleConfig) -> RunDir:
    """A run directory in `folder`, with its own code: an evaluation, if `evaluate` is the role that it has."""
    ours = code.present()
    if "evaluate" in roles:
        evaluation = EvalConfig(
            run=RunConfig(name=name, dir=str(folder)),
            benchmarks=["tiny"],
            data=EvalDataConfig("none"),
            cluster=EvalClusterConfig(executor=executor, **roles),
        )
        extent = {"questions": {}, "samples": {}, "per_shard": 1}
        return RunDir.create(folder / name, evaluation, ours.begin, code=ours.first(), extent=extent)
    config = Config(
        run=RunConfig(name=name, dir=str(folder)),
        policy=ModelConfig("none"),
        verifier=VerifierConfig("none"),
        data=DataConfig("none"),
        train=TrainConfig(steps=1),
        cluster=ClusterConfig(executor=executor, **roles),
    )
    return RunDir.create(folder / name, config, ours.begin, code=ours.first())


MakeRun = Callable[..., RunDir]


@pytest.fixture
def make_run(tmp_path: Path) -> Iterator[MakeRun]:
    """`make_run("slurm", rollout=stub("rollout", tasks=3))`: a run directory; its jobs are ended after the test."""
    made: list[RunDir] = []

    def make(executor: str, name: str = "stub", **roles: RoleConfig) -> RunDir:
        made.append(new_run(tmp_path, executor, name, **roles))
        return made[-1]

    yield make
    for run in made:
        if read_submissions(run.jobs_dir):
            control.stop(run, now=True, wait_s=0)


def until(what: str, found: Callable[[], Any], seconds: float = WAIT_S) -> Any:
    """Poll until `found()` is true, and give it back; the failure says what did not come."""
    end = time.monotonic() + seconds
    while True:
        got = found()
        if got:
            return got
        if time.monotonic() > end:
            pytest.fail(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.2)


def events(run: RunDir, kind: str, role: str = "", restart: int | None = None) -> list[dict[str, Any]]:
    """The run's events of one kind."""
    return [
        event
        for event in read_events(run.events_dir)
        if event["event"] == kind
        and role in ("", event["role"])
        and (restart is None or event.get("restart") == restart)
    ]


def ready(run: RunDir, count: int, role: str = "", restart: int | None = None, seconds: float = WAIT_S) -> list[Any]:
    """Wait until so many processes of the run said that they are ready; all run the run's own code."""
    what = f"{count} ready {role} tasks (restart {restart})"
    said = until(what, lambda: (e := events(run, "ready", role, restart)) and len(e) >= count and e, seconds)
    assert {event["code"] for event in said} == {str(run.code_dir / "grhpc" / "__init__.py")}
    return list(said)
