"""A trainer that comes back from a long queue finds its rollout and verify tasks gone: they gave their GPUs back.

`python -m grhpc.cluster.refill RUN_DIR PID` submits them again; the trainer's first rank, process PID, starts it when
its job begins. It looks at once, and from then on every half `store.idle_s`, as long as that process lives: tasks may
also end for want of work while the trainer replays, or after a `stop` that was taken back.
Does not know: the trainer. Invariant: as many tasks at most as ended well before, and never beyond the size that a
person gave the role; a task whose state is not known counts as there; a look asks the scheduler once; nothing is
submitted after the process that started this one is gone.
"""

import os
import sys
import time
from pathlib import Path

from grhpc.cluster import launch, states
from grhpc.cluster.control import wanted_tasks
from grhpc.cluster.sacct import tasks_of
from grhpc.cluster.submissions import Submission
from grhpc.errors import GrhpcError
from grhpc.store.rundir import RunDir

_FEEDS = {"rollout": ("prompts",), "verify": ("prompts", "rollouts")}  # where a role's work is, or will come from
_PARENT_S = 1.0  # between two looks whether the trainer lives


def refill(run: RunDir, roles: tuple[str, ...] = tuple(_FEEDS)) -> list[Submission]:
    """Submit what is missing of the roles that ran before. Raises ClusterError where this node may not submit."""
    if not roles or run.finished() or run.stop_reason():
        return []
    config, tasks = run.config(), tasks_of(run)
    missing, live = {}, {}
    for role in roles:
        kinds = [task.kind for task in tasks if task.role == role]
        live[role] = sum(kind in (*states.LIVE, states.UNKNOWN) for kind in kinds)
        missing[role] = min(kinds.count(states.DONE), max(0, wanted_tasks(run, config, role) - live[role]))
    return launch.submit(run, config, missing, live)


def with_work(run: RunDir) -> tuple[str, ...]:
    """The roles that have, or will soon have, something to do: others would only come to end idle again."""
    counts = {queue: run.queue(queue).counts() for queue in ("prompts", "rollouts")}
    waiting = {queue for queue, count in counts.items() if count["ready"] or count["leased"]}
    return tuple(role for role in _FEEDS if waiting.intersection(_FEEDS[role]))


def main(words: list[str]) -> int:
    """What was submitted, or why not, as lines for the trainer's log; ends with the process that started this one."""
    run, parent, looked = RunDir.open(Path(words[0])), int(words[1]), False
    pause_s = run.config().store.idle_s / 2
    while not run.finished():
        try:
            roles, looked = with_work(run) if looked else tuple(_FEEDS), True
            for job in refill(run, roles):
                print(f"refill: {job.role} job {job.job_id}, {max(1, job.tasks)} tasks", flush=True)
        except GrhpcError as error:
            print(f"refill: {error.problem}; {error.remedy}", flush=True)
        next_s = time.monotonic() + pause_s
        while (left_s := next_s - time.monotonic()) > 0:
            if os.getppid() != parent:
                return 0
            time.sleep(min(_PARENT_S, left_s))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
