"""Pairs of reference and answer, and what is decided about them.

Does not know: rollouts, shards, rewards, how anything is decided. Invariant: every pair gets a decision, and one that
could not be made is NO_VERDICT with the reason; a judge's failure is raised, never turned into a decision.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class Pair:
    """What a judge sees of a rollout: identical pairs get identical decisions."""

    question: str
    reference: str
    answer: str


@dataclass(frozen=True)
class Decision:
    """YES, NO or NO_VERDICT, the layer that decided ("exact", "guard", "choice", "rule", "generative") and its words.

    `by`: whose verdict a reused one was, "TASK SHARD". `audit`: what the judge said of a pair that a rule had settled,
    in a sample of them. `confidence`: the probability that the judge gave to its decision, where known.
    """

    decision: str
    layer: str
    reason: str
    by: str = ""
    audit: str = ""
    confidence: float | None = None


@dataclass(frozen=True)
class Decided:
    """`decisions` for every pair; `asked` is how many questions the judge was asked for them, `asked_to_audit` how many
    only to audit rules, `reused` the pairs that it had been asked before, `refused` those that it could not be asked.

    Of the decider's life so far: `asked_twice`, the questions that another task asked at the same time; `usage`, what
    the judge did. `problems` are news about what was remembered and cannot be read any more."""

    decisions: dict[Pair, Decision]
    asked: int
    reused: frozenset[Pair] = frozenset()
    asked_to_audit: int = 0
    refused: frozenset[Pair] = frozenset()
    asked_twice: int = 0
    usage: dict[str, float] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


class Decider(Protocol):
    """Decides pairs. `running`: it can begin at once."""

    @property
    def running(self) -> bool: ...

    def start(self) -> None:
        """Start what it needs. Raises EngineError."""

    def decide(self, pairs: Sequence[Pair], should_stop: Callable[[], bool], shard: str = "") -> Decided | None:
        """Decide distinct pairs; None where `should_stop` said so. `shard` names them. Raises EngineError."""

    def close(self) -> None: ...
