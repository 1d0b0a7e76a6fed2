"""A trainer that comes back from a long queue finds its rollout and verify tasks gone: they gave their GPUs back.

`python -m grhpc.cluster.refill RUN_DIR` submits them again; the trainer's first rank starts it when its job begins.
Does not know: the trainer. Invariant: as many tasks at most as ended well before, and never beyond the size that a
person gave the role; a task whose state is not known counts as there.
"""

import sys
from pathlib import Path

from grhpc.cluster import launch, states
from grhpc.cluster.control import SCALABLE, wanted_tasks
from grhpc.cluster.sacct import tasks_of
from grhpc.cluster.submissions import Submission
from grhpc.errors import GrhpcError
from grhpc.store.rundir import RunDir


def refill(run: RunDir) -> list[Submission]:
    """Submit what is missing of the roles that ran before. Raises ClusterError where this node may not submit."""
    if run.finished() or run.stop_reason():
        return []
    config, tasks = run.config(), tasks_of(run)
    missing = {}
    for role in SCALABLE:
        kinds = [task.kind for task in tasks if task.role == role]
        there = sum(kind in (*states.LIVE, states.UNKNOWN) for kind in kinds)
        missing[role] = min(kinds.count(states.DONE), max(0, wanted_tasks(run, config, role) - there))
    return launch.submit(run, config, missing)


def main(words: list[str]) -> int:
    """What was submitted, or why not, as lines for the trainer's log."""
    try:
        for job in refill(RunDir.open(Path(words[0]))):
            print(f"refill: {job.role} job {job.job_id}, {max(1, job.tasks)} tasks", flush=True)
    except GrhpcError as error:
        print(f"refill: {error.problem}; {error.remedy}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
