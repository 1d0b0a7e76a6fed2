"""A run of several people: who may write into its folder steers it, others look on. SLURM's programs are pretended."""

import contextlib
import os
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from grhpc.cluster import control
from grhpc.cluster.submissions import Submission, read_submissions, record
from grhpc.errors import StoreError
from grhpc.report import audit, logs, report, status
from grhpc.store.ledger import Ledger
from grhpc.store.rundir import RunDir
from tests.cluster.conftest import new_run
from tests.cluster.test_sacct import put_on_path

pytest.importorskip("submitit")  # now: another person may not be able to read where our Python is
NOBODY = 65534
MakeRun = Callable[[int], RunDir]


@pytest.fixture
def begin(monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeRun]:
    """`begin(umask)`: somebody's run of an hour ago, whose jobs have ended, in a folder of the group `nobody`."""
    with tempfile.TemporaryDirectory(dir="/tmp") as above:
        folder = Path(above)
        programs = {"sacct": "exit 1", "squeue": "", "sbatch": "echo Submitted batch job $$", "srun": "", "scancel": ""}
        put_on_path(folder, monkeypatch, **programs, scontrol="")

        def make(umask: int) -> RunDir:
            if os.geteuid() == 0:
                os.chown(folder, -1, NOBODY)
            folder.chmod(0o2775)
            before = os.umask(umask)
            try:
                run = new_run(folder / "runs", "slurm")
                for role, job in (("train", "70"), ("rollout", "71")):
                    record(run.jobs_dir, Submission("slurm", role, job, submitted_s=time.time() - 3600))
                    run.log_dir(role).mkdir()
                run.events("train", "70").emit("start")
                Ledger.open_next(run.ledger_dir, run_id=run.run_id)
                run.queue("prompts").reap(at_once=True)  # makes the clock
            finally:
                os.umask(before)
            return run

        yield make
        for path in folder.rglob("*"):  # so that their owner can remove them
            if path.is_dir():
                path.chmod(0o755)


@contextlib.contextmanager
def as_another(run: RunDir) -> Iterator[None]:
    """Be somebody else of the group; where we cannot be, take from ourselves what the group may not do."""
    if os.geteuid() == 0:
        os.setegid(NOBODY)
        os.seteuid(NOBODY)
        try:
            yield
        finally:
            os.seteuid(0)
            os.setegid(0)
        return
    for path in [run.root, *run.root.rglob("*")]:
        if not path.stat().st_mode & 0o020:
            path.chmod(path.stat().st_mode & ~0o222)
    yield


@pytest.mark.parametrize(
    "verb",
    [
        lambda run: control.scale(run, "rollout", 3),
        control.resume,
        control.stop,
        lambda run: control.stop(run, now=True),
    ],
)
def test_who_may_not_write_is_told_whose_it_is_and_what_to_do(begin: MakeRun, verb: Callable[[RunDir], object]) -> None:
    run = begin(0o022)
    owner = run.root.owner()
    with as_another(run), pytest.raises(StoreError) as caught:
        verb(RunDir.open(run.root))
    assert str(run.root) in caught.value.problem and f"Permission denied (the folder is {owner}'s)" in str(caught.value)
    assert "umask 002" in caught.value.remedy and len(read_submissions(run.jobs_dir)) == 2


def test_who_may_only_read_sees_all(begin: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    run = begin(0o022)
    report.make(run)  # loads what draws
    for path in run.report_dir.iterdir():
        path.unlink()
    with as_another(run):
        seen = RunDir.open(run.root)
        found, result = status.status(seen), report.make(seen)
        assert status.lines(found)[0].startswith("stub: ") and report.as_text(result).startswith("stub: step 0")
        assert audit.command(Namespace(run=str(run.root), json=False)) == 0
        assert logs.command(Namespace(run=str(run.root), role="", lines=5, follow=False)) == 0
    assert "picture" not in result and list(run.report_dir.iterdir()) == []


def test_under_umask_002_a_colleague_steers_the_run(begin: MakeRun) -> None:
    run = begin(0o002)
    with as_another(run):
        shared = RunDir.open(run.root)
        before = os.umask(0o002)
        try:
            shared.queue("prompts").reap(at_once=True)
            assert control.scale(shared, "rollout", 3) == ["rollout: 0 -> 3 tasks"]
            assert {job.role for job in control.resume(shared)} >= {"train", "verify"}
            control.stop(shared)
        finally:
            os.umask(before)
    assert run.stop_reason() == "stopped by a person"
    control.stop(run)  # the first person goes on with what the second one wrote
    control.resume(run)
    assert run.stop_reason() is None
