"""How the ranks of one trainer find each other: rank 0 writes one file, the others wait for it.

Consumes nothing; produces `rendezvous/<job>-<restart>.json`; a rank waits for rank 0 and is unblocked by that file, or
by the bound. Does not know: torch. Invariant: the file's name holds the restart count (or, without SLURM, the start of
the controlling process), so a second live incarnation of the same job can never meet the first one's ranks.
"""

import random
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from grhpc.cluster.job import Job, ask_end_s, reachable_name
from grhpc.errors import WaitTimeout
from grhpc.store.atomic import list_names, read_json, write_json


@dataclass(frozen=True)
class Meeting:
    """Where rank 0 listens, and when the allocation ends (`time.time()` clock; None: never)."""

    host: str
    port: int
    end_s: float | None


def meet(directory: Path, job: Job, *, wait_s: float = 600.0) -> Meeting:
    """Rank 0 announces itself, every other rank waits for it. Raises WaitTimeout after `wait_s`."""
    name = f"{job.key}.json"
    if job.rank == 0:
        end_s = job.end_s if job.end_s is not None else ask_end_s(job)
        meeting = Meeting(reachable_name(job), free_port(), end_s)
        directory.mkdir(parents=True, exist_ok=True)
        write_json(directory / name, asdict(meeting))
        return meeting
    give_up_s, pause_s = time.monotonic() + wait_s, 0.05
    while name not in list_names(directory):
        if time.monotonic() > give_up_s:
            raise WaitTimeout(
                f"rank {job.rank} waited {wait_s:.0f} s for rank 0 of job {job.name} (restart {job.restart})",
                "look at rank 0's log; is the run directory on a filesystem that every node mounts?",
            )
        time.sleep(pause_s * random.uniform(0.5, 1.5))
        pause_s = min(2.0, pause_s * 1.5)
    return Meeting(**read_json(directory / name))


def free_port() -> int:
    """A TCP port nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
