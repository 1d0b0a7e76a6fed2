"""What was submitted for a run: one small file for each submission, in the run's jobs folder.

Written by whoever submits, and by a role that begins and finds itself not written down (it came from a batch script, or
its submitter died). Does not know: SLURM's state, submitit. Invariant: a job is listed once.
"""

import getpass
import json
import os
import socket
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from grhpc.errors import CorruptFile
from grhpc.store.atomic import list_names, read_json, write_json

_TARGET = ".target.json"


@dataclass(frozen=True)
class Submission:
    """One job or job array. `tasks` is the array's size, 0 for a job that is no array.

    For executor "local", `job_id` is the controller's process id on `host`, and `started` its start in clock ticks, so
    that a reused process id is never taken for it; `gpus` are the devices it was given, as CUDA_VISIBLE_DEVICES
    names them; `machine` see `this_machine`.
    """

    executor: str
    role: str
    job_id: str
    tasks: int = 0
    submitted_s: float = field(default_factory=time.time)
    by: str = ""
    host: str = field(default_factory=socket.gethostname)
    machine: str = field(default_factory=lambda: this_machine())
    started: int = 0
    gpus: list[str] = field(default_factory=list)

    def task_ids(self) -> list[str]:
        """Every task as scancel names it."""
        return [f"{self.job_id}_{i}" for i in range(self.tasks)] if self.tasks else [self.job_id]


def this_machine() -> str:
    """This boot of this machine and its space of process ids, whatever the host's name becomes; "" if unknown."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def record(directory: Path, submission: Submission) -> None:
    """Write a submission down."""
    directory.mkdir(parents=True, exist_ok=True)
    name = f"{int(submission.submitted_s * 1000):013d}-{submission.role}-{submission.job_id}.json"
    write_json(directory / name, {**asdict(submission), "by": submission.by or getpass.getuser()})


def record_target(directory: Path, role: str, tasks: int) -> None:
    """How many tasks a person wants of a role from now on."""
    write_json(directory / f"{role}{_TARGET}", {"tasks": tasks})


def read_target(directory: Path, role: str) -> int | None:
    """What `record_target` wrote last; None if nobody ever scaled the role."""
    name = f"{role}{_TARGET}"
    return int(read_json(directory / name)["tasks"]) if name in list_names(directory) else None


def read_submissions(directory: Path) -> list[Submission]:
    """All submissions of the run, oldest first. Raises CorruptFile."""
    names = sorted(name for name in list_names(directory) if name.endswith(".json") and not name.endswith(_TARGET))
    found: dict[tuple[str, str, int], Submission] = {}
    for name in names:
        try:
            job = Submission(**read_json(directory / name))
        except (TypeError, json.JSONDecodeError) as error:
            raise CorruptFile(f"{directory / name} is not a submission: {error}", "move the file away") from None
        found.setdefault((job.executor, job.job_id, job.started), job)
    return sorted(found.values(), key=lambda job: job.submitted_s)  # the names tell milliseconds apart, no less
