"""Is a task still there? The one answer that status, watch and start share.

Does not know: SLURM's words. Invariant: what SLURM does not know is not taken for an end.
"""

from grhpc.cluster import states
from grhpc.cluster.sacct import JobState


def may_live(job: JobState) -> bool:
    """Whether the task runs or may run again."""
    return job.live or job.kind == states.UNKNOWN
