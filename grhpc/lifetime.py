"""How long this process may work: the end of its allocation, and a request to stop.

Roles ask it between shards and steps; `cluster/role.py` fills it from SLURM and from signals.
Does not know: SLURM, signals. Invariant: once `draining` is true it stays true.
"""

import time
from dataclasses import dataclass


@dataclass
class Lifetime:
    """`end_s` is the allocation's end on the `time.time()` clock, None where there is none.

    `job` names the task to people, e.g. "4711_2" or "local-123"; `restart` counts requeues of the same job id.
    `drain_reason` is empty until somebody asked for a drain (give back what is in hand, or save it, and stop).
    `warning_s` is how long before the end that happens; `after_crash` says that the job's last life ended by itself,
    and not by its scheduler.
    """

    job: str = "local"
    restart: int = 0
    end_s: float | None = None
    drain_reason: str = ""
    warning_s: float = 0.0
    after_crash: bool = False

    @property
    def draining(self) -> bool:
        return bool(self.drain_reason)

    def drain(self, reason: str) -> None:
        """Ask the process to let go of what it holds and stop. The first reason is kept."""
        self.drain_reason = self.drain_reason or reason

    def remaining_s(self) -> float:
        """Seconds until the allocation ends; infinite where it does not."""
        return float("inf") if self.end_s is None else self.end_s - time.time()

    def has_time_for(self, work_s: float) -> bool:
        """Whether `work_s` seconds of work fit before the end, and nobody asked for a drain."""
        return not self.draining and self.remaining_s() > work_s
