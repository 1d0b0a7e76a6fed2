"""The error tree: every failure a person can act on.

    GrhpcError                what is wrong + what to do; the command line prints both and exits 2
    ├── ConfigError           a setting is unknown, missing, or contradicts another
    ├── DataError             a dataset, model or tokenizer is missing or not what it claims
    ├── StoreError            the shared filesystem refused or lost something
    │   ├── CorruptFile       a file is there but is not what its writer wrote
    │   ├── ForeignFile       a file belongs to another run
    │   ├── OtherVersion      a file is whole, and its rows are those of another version of grhpc
    │   ├── Pruned            weights were removed while being read: newer ones are there
    │   └── Superseded        a newer incarnation of this task took over: stop at once
    ├── EngineError           the inference engine failed or answered nonsense
    │   └── Unavailable       a server of others does not answer: nothing is broken here, and it may return
    ├── ClusterError          SLURM or submitit refused, or is not there
    └── WaitTimeout           something that was waited for did not come
        └── GaveUp            so long that waiting on is no use: a person must act

Does not know: how an error is shown. Invariant: `problem` and `remedy` are one line each.
"""


class GrhpcError(Exception):
    """A failure a person can act on.

    `problem` says in one line what is wrong, `remedy` in one line what to do about it.
    """

    def __init__(self, problem: str, remedy: str = "") -> None:
        self.problem = " ".join(problem.split())
        self.remedy = " ".join(remedy.split())
        super().__init__(self.problem if not self.remedy else f"{self.problem} ({self.remedy})")

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.problem, self.remedy)


class ConfigError(GrhpcError):
    """A setting is unknown, missing, or contradicts another."""


class DataError(GrhpcError):
    """A dataset, model or tokenizer is missing or not what it claims."""


class StoreError(GrhpcError):
    """The shared filesystem refused or lost something."""


class CorruptFile(StoreError):
    """A file is there but is not what its writer wrote."""


class ForeignFile(StoreError):
    """A file belongs to another run."""


class OtherVersion(StoreError):
    """A file is whole, and its rows are those of another version of grhpc."""


class Pruned(StoreError):
    """Weights were removed while they were being read: newer ones are there."""


class Superseded(StoreError):
    """A newer incarnation of this task took over: stop at once, write nothing more."""


class EngineError(GrhpcError):
    """The inference engine failed or answered nonsense."""


class Unavailable(EngineError):
    """A server that others run does not answer: nothing is broken here, and it may return."""


class ClusterError(GrhpcError):
    """SLURM or submitit refused, or is not there."""


class WaitTimeout(GrhpcError):
    """Something that was waited for did not come in time."""


class GaveUp(WaitTimeout):
    """It did not come for so long that another life would wait in vain too: a person must act."""
