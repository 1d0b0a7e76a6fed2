"""Every SLURM job state, and what it means for a run.

Does not know: how states are asked for. Invariant: a word that is not in the table means `unknown`, never an error and
never an end.

Sources: the JOB STATE CODES of squeue(1) and sacct(1), SLURM 20.11 to 25.05.
"""

WAITING = "waiting"  # in the queue, or held there
RUNNING = "running"  # has its nodes, or is just getting or leaving them
RETURNING = "returning"  # lost its nodes; SLURM puts it back into the queue
DONE = "done"  # ended well
FAILED = "failed"  # ended badly, or was ended by somebody
UNKNOWN = "unknown"
KINDS = (WAITING, RUNNING, RETURNING, DONE, FAILED, UNKNOWN)
LIVE = (WAITING, RUNNING, RETURNING)

KIND_OF_STATE = {
    "BOOT_FAIL": RETURNING,
    "CANCELLED": FAILED,
    "COMPLETED": DONE,
    "COMPLETING": RUNNING,
    "CONFIGURING": RUNNING,
    "DEADLINE": FAILED,
    "EXPEDITING": WAITING,
    "FAILED": FAILED,
    "LAUNCH_FAILED": RETURNING,
    "NODE_FAIL": RETURNING,
    "OUT_OF_MEMORY": FAILED,
    "PENDING": WAITING,
    "POWER_UP_NODE": RUNNING,
    "PREEMPTED": RETURNING,
    "RECONFIG_FAIL": RETURNING,
    "REQUEUED": RETURNING,
    "REQUEUE_FED": RETURNING,
    "REQUEUE_HOLD": WAITING,
    "RESIZING": RUNNING,
    "RESV_DEL_HOLD": WAITING,
    "REVOKED": FAILED,
    "RUNNING": RUNNING,
    "SIGNALING": RUNNING,
    "SPECIAL_EXIT": WAITING,
    "STAGE_OUT": RUNNING,
    "STOPPED": RUNNING,
    "SUSPENDED": RUNNING,
    "TIMEOUT": FAILED,
    "UPDATE_DB": RUNNING,
}


def word(text: str) -> str:
    """The state itself: "CANCELLED by 1000" is CANCELLED, "COMPLETED+" (cut by a narrow column) is COMPLETED."""
    return text.split()[0].rstrip("+").upper() if text.split() else ""


def kind(text: str) -> str:
    """What a state, as sacct or squeue prints it, means for a run."""
    return KIND_OF_STATE.get(word(text), UNKNOWN)
