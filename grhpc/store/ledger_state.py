"""What the ledger's entries add up to.

    {"kind":"admit","first":0,"count":32,"version":0}                    groups 0..31, while version 0 was the newest
    {"kind":"step","step":12,"version":11,"batch":"s000012-g0003.parquet","sha256":"…","groups":[…]}
    {"kind":"drop","groups":{"17":"stale"},"step":12}
    {"kind":"checkpoint","step":100}
    {"kind":"finish"}

Does not know: files. Invariant: groups are admitted in order without gaps, a fate is given once and only to an admitted
group, steps follow each other without gaps.
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Admit:
    """Groups `first` .. `first + count - 1`, admitted when weights `version` was the newest."""

    first: int
    count: int
    version: int


@dataclass(frozen=True)
class StepEntry:
    """Step `step` trains weights `version` on `groups`, packed in the file batches/`batch` with that SHA-256."""

    step: int
    version: int
    batch: str
    sha256: str
    groups: list[int]


class BadEntry(ValueError):
    """An entry that contradicts the ones before it."""


@dataclass
class LedgerState:
    """`fates` maps a group to "trained:<step>" or "dropped:<reason>"; `next_group` is the curriculum's cursor."""

    generation: int = 0
    next_group: int = 0
    fates: dict[int, str] = field(default_factory=dict)
    steps: dict[int, StepEntry] = field(default_factory=dict)
    admits: list[Admit] = field(default_factory=list)
    checkpoints: list[int] = field(default_factory=list)
    finished: bool = False
    _open: set[int] = field(default_factory=set)

    @property
    def last_step(self) -> int:
        """The last step whose batch is recorded; 0 before the first. Steps count from 1."""
        return next(reversed(self.steps), 0)

    def open_groups(self) -> set[int]:
        """Admitted groups without a fate."""
        return set(self._open)

    def check(self, entry: dict[str, Any]) -> None:
        """Raises BadEntry if `entry` may not follow."""
        try:
            self._check(entry)
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, BadEntry):
                raise
            raise BadEntry(f"malformed entry {entry!r}: {error!r}") from None

    def apply(self, entry: dict[str, Any]) -> None:
        """Take in an entry that `check` accepts."""
        match entry["kind"]:
            case "admit":
                self.admits.append(Admit(entry["first"], entry["count"], entry["version"]))
                self.next_group = entry["first"] + entry["count"]
                self._open.update(range(entry["first"], self.next_group))
            case "step":
                step = StepEntry(
                    entry["step"], entry["version"], entry["batch"], entry["sha256"], list(entry["groups"])
                )
                self.steps[step.step] = step
                self._decide(dict.fromkeys(step.groups, f"trained:{step.step}"))
            case "drop":
                self._decide({int(group): f"dropped:{reason}" for group, reason in entry["groups"].items()})
            case "checkpoint":
                self.checkpoints.append(entry["step"])
            case "finish":
                self.finished = True

    def _check(self, entry: dict[str, Any]) -> None:
        match entry["kind"]:
            case "admit":
                if entry["first"] != self.next_group or entry["count"] < 1:
                    raise BadEntry(f"admits {entry['count']} groups from {entry['first']}, expected {self.next_group}")
                int(entry["version"])
            case "step":
                if self.steps and entry["step"] != self.last_step + 1:
                    raise BadEntry(f"step {entry['step']} follows step {self.last_step}")
                StepEntry(entry["step"], int(entry["version"]), entry["batch"], entry["sha256"], entry["groups"])
                self._check_undecided(entry["groups"])
            case "drop":
                self._check_undecided([int(group) for group in entry["groups"]])
            case "checkpoint":
                if entry["step"] > self.last_step:
                    raise BadEntry(f"checkpoint of step {entry['step']} before its record")
            case "finish":
                pass
            case kind:
                raise BadEntry(f"unknown kind {kind!r}")

    def _check_undecided(self, groups: list[int]) -> None:
        if len(set(groups)) != len(groups):
            raise BadEntry("the same group twice in one entry")
        for group in groups:
            if group in self.fates:
                raise BadEntry(f"a second fate for group {group}, which is {self.fates[group]}")
            if group not in self._open:
                raise BadEntry(f"a fate for group {group}, which was never admitted")

    def _decide(self, fates: dict[int, str]) -> None:
        self.fates.update(fates)
        self._open.difference_update(fates)
