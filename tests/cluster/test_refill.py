"""Tasks that ended for want of work come back while the trainer lives. SLURM's programs are pretended."""

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from prompts import prompt

from grhpc.cluster import refill
from grhpc.cluster.submissions import Submission, record
from grhpc.store.rundir import RunDir
from tests.cluster.conftest import new_run, until
from tests.cluster.test_sacct import put_on_path

STARTER = """
import os, subprocess, sys, time
subprocess.Popen([sys.executable, "-m", "grhpc.cluster.refill", sys.argv[1], str(os.getpid())])
time.sleep(600)
"""


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A run whose rollout task, job 71, ended an hour ago; its trainer looks every 0.2 s."""
    made = new_run(tmp_path, "slurm")
    made.amend(replace(made.config(), store=replace(made.config().store, idle_s=0.4)))
    record(made.jobs_dir, Submission("slurm", "rollout", "71", submitted_s=time.time() - 3600))
    return made


def test_roles_without_work_are_left_alone(run: RunDir) -> None:
    assert refill.with_work(run) == ()
    run.queue("prompts").put("g00000000-0001", [prompt()])
    assert refill.with_work(run) == ("rollout", "verify")


def test_it_looks_again_and_again_and_ends_with_the_trainer(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    no_accounting = "echo Slurm accounting storage is disabled >&2; exit 1"
    refused = "echo sbatch: error: not now >&2; exit 1"
    calls = put_on_path(
        run.root.parent, monkeypatch, sacct=no_accounting, squeue="", sbatch=refused, srun="", scancel="", scontrol=""
    )

    def count(program: str) -> int:
        return calls.read_text().count(f"{program} ") if calls.exists() else 0

    trainer = subprocess.Popen([sys.executable, "-c", STARTER, str(run.root)], stdout=subprocess.PIPE, text=True)
    assert trainer.stdout is not None
    try:
        assert "refill: the rollout job was refused" in trainer.stdout.readline()
        asked = count("squeue")
        time.sleep(1.0)
        assert count("squeue") == asked, "there is nothing to do"
        run.queue("prompts").put("g00000000-0001", [prompt()])
        until("another look", lambda: count("sbatch") > 1)
        trainer.kill()
        trainer.stdout.read()  # its end is the helper's, who holds the other end of the pipe
    finally:
        trainer.kill()
        trainer.wait()
    looks = count("squeue")
    time.sleep(0.6)
    assert count("squeue") == looks
