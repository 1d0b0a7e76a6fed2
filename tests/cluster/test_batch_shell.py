"""The shell lines around a role, run by a real shell: which end brings a job back. SLURM's programs are pretended."""

import os
import signal
import subprocess
import time
from argparse import Namespace
from pathlib import Path

import pytest

from grhpc.cluster import job, role
from grhpc.cluster.job import Job

TRAIN = Path(__file__).parents[2] / "slurm" / "train.sbatch"


class Batch:
    """`train.sbatch` as job 4711 in a run directory; `squeue_says` and `srun_does` may change between its lives."""

    def __init__(self, folder: Path) -> None:
        self.run_dir, self.programs = folder / "run", folder / "programs"
        self.calls = folder / "calls"
        for path in (self.programs, self.run_dir / "jobs"):
            path.mkdir(parents=True)
        self.squeue_says("RUNNING None")
        self.program("scontrol", f'echo "$*" >> {self.calls}')

    def program(self, name: str, text: str) -> None:
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def squeue_says(self, state_and_reason: str) -> None:
        self.program("squeue", f'echo "{state_and_reason}"')

    def start(self, srun_does: str, **env: str) -> "subprocess.Popen[str]":
        self.program("srun", srun_does)
        path = f"{self.programs}:{os.environ['PATH']}"
        env = {"SLURM_JOB_ID": "4711", "SLURM_CPUS_PER_TASK": "1", **env, "PATH": path}
        return subprocess.Popen(
            ["bash", str(TRAIN)], env=env, cwd=self.run_dir, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def life(self, srun_does: str, **env: str) -> list[str]:
        """One life of the job; what scontrol was asked for in it."""
        before = len(self.asked())
        process = self.start(srun_does, **env)
        process.communicate(timeout=120)
        return self.asked()[before:]

    def asked(self) -> list[str]:
        return self.calls.read_text().splitlines() if self.calls.exists() else []


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    return Batch(tmp_path)


@pytest.mark.parametrize(
    ("code", "state", "asked"),
    [
        (0, "RUNNING None", []),
        (2, "RUNNING None", []),
        (75, "RUNNING None", ["requeue 4711"]),
        (1, "RUNNING None", ["requeue 4711"]),
        (137, "RUNNING None", ["requeue 4711"]),
        (137, "COMPLETING None", []),  # cancelled
        (75, "COMPLETING BeginTime", []),  # preempted: SLURM has put it back itself
        (75, "", ["requeue 4711"]),  # no answer
    ],
)
def test_an_exit_code_says_whether_the_job_comes_back(batch: Batch, code: int, state: str, asked: list[str]) -> None:
    batch.squeue_says(state)
    process = batch.start(f"exit {code}")
    process.communicate(timeout=120)
    assert (process.returncode, batch.asked()) == (code, asked)


@pytest.mark.parametrize(("code", "ends_with"), [(137, 2), (1, 2), (0, 0)])
def test_what_one_rank_calls_final_is_final_though_its_siblings_were_killed(
    batch: Batch, code: int, ends_with: int
) -> None:
    (batch.run_dir / "jobs" / "4711-0.final").touch()
    process = batch.start(f"exit {code}")
    process.communicate(timeout=120)
    assert (process.returncode, batch.asked()) == (ends_with, [])


def test_a_task_of_an_array_brings_back_only_itself(batch: Batch) -> None:
    assert batch.life("exit 75", SLURM_ARRAY_JOB_ID="40", SLURM_ARRAY_TASK_ID="3") == ["requeue 40_3"]


@pytest.mark.parametrize(
    ("state", "asked"), [("COMPLETING TimeLimit", ["requeue 4711"]), ("COMPLETING None", []), ("RUNNING None", [])]
)
def test_the_shell_hears_the_time_limit_while_the_role_goes_on(batch: Batch, state: str, asked: list[str]) -> None:
    """A role that does not heed the warning: SLURM's TERM reaches the shell, and must find it listening."""
    process = batch.start(
        f"touch {batch.run_dir}/began; trap '' TERM; while [ ! -e {batch.run_dir}/end ]; do sleep 0.1; done"
    )
    while not (batch.run_dir / "began").exists():
        time.sleep(0.05)
    batch.squeue_says(state)
    time.sleep(0.3)  # the shell stands in `wait` by now, or else its trap acts a moment later
    process.send_signal(signal.SIGTERM)
    end = time.monotonic() + 60
    while batch.asked() != asked and time.monotonic() < end:
        time.sleep(0.05)
    assert batch.asked() == asked
    assert process.poll() is None  # it waits for the role, whose last words belong into the log
    (batch.run_dir / "end").touch()
    process.communicate(timeout=120)
    assert (process.returncode, batch.asked()) == (0, asked)


def test_what_an_earlier_life_called_final_says_nothing_of_this_one(batch: Batch) -> None:
    (batch.run_dir / "jobs" / "4711-0.final").touch()
    assert batch.life("exit 75", SLURM_RESTART_COUNT="1") == ["requeue 4711"]


def test_a_crash_that_cannot_be_counted_does_not_come_back(batch: Batch) -> None:
    """A full disk: else such a job would crash, and come back, for ever."""
    (batch.run_dir / "jobs" / "4711.crashes").symlink_to("/dev/full")
    assert batch.life("exit 1") == []


def test_only_crashes_in_a_row_end_a_job(batch: Batch) -> None:
    """Twenty preemptions and drains with crashes between them are a long run, not a hopeless one."""
    for _ in range(3):
        assert all(batch.life("exit 1") for _ in range(9))
        batch.squeue_says("COMPLETING BeginTime")
        assert not any(batch.life("exit 137") for _ in range(3))  # preempted: neither counted nor forgiven
        batch.squeue_says("RUNNING None")
        assert batch.life("exit 75", SLURM_RESTART_COUNT="20")
    lives = [batch.life("exit 1") for _ in range(11)]
    assert [asked[:1] for asked in lives] == [["requeue 4711"]] * 9 + [[]] * 2


def test_each_crash_in_a_row_but_the_first_waits_longer(batch: Batch) -> None:
    """What broke may be mended meanwhile, and ten crashes of a minute would be over before anybody looks."""
    lives = [batch.life("exit 1", SLURM_ARRAY_JOB_ID="40", SLURM_ARRAY_TASK_ID="3") for _ in range(9)]
    assert all(asked[0] == "requeue 40_3" for asked in lives)
    waits = [update.removeprefix("update JobId=40_3 StartTime=now+") for asked in lives for update in asked[1:]]
    assert [int(seconds) for seconds in waits] == [30, 120, 270, 480, 750, 1080, 1470, 1920]
    drained = batch.life("exit 75", SLURM_ARRAY_JOB_ID="40", SLURM_ARRAY_TASK_ID="3")
    again = batch.life("exit 1", SLURM_ARRAY_JOB_ID="40", SLURM_ARRAY_TASK_ID="3")
    assert drained == again == ["requeue 40_3"], "neither a preemption, nor a first crash, waits"


def test_the_requeues_own_signal_does_not_keep_the_job_from_waiting(batch: Batch) -> None:
    """slurmctld ends the old life at once: this shell, and the scontrol that it waits for, get TERM."""
    batch.life("exit 1")
    batch.program("scontrol", f'[ $1 = requeue ] && kill -TERM 0; echo "$*" >> {batch.calls}')
    assert batch.life("exit 1") == ["requeue 4711", "update JobId=4711 StartTime=now+30"]


def test_the_next_life_learns_which_one_crashed(batch: Batch) -> None:
    batch.life("exit 1", SLURM_RESTART_COUNT="3")
    batch.squeue_says("COMPLETING NodeFail")
    batch.life("exit 137", SLURM_RESTART_COUNT="4")
    run = Namespace(jobs_dir=batch.run_dir / "jobs")
    crashed = [role._crashed_before(run, Job(job.SLURM, "4711", key="", restart=restart)) for restart in range(6)]
    assert crashed == [False, False, False, False, True, False]
    assert not role._crashed_before(run, Job(job.SLURM, "4712", key="", restart=4))
