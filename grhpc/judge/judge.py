"""What the generative verifier asks: a judge, wherever it runs.

Does not know: templates, decisions, engines. Invariant: a judge either answers every prompt, or says that it was asked
to stop, or raises; a reply without a text names its problem.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Reply:
    """What came back for one prompt.

    `finished`: the judge ended by itself, so the end of `text` is its end. `confidence`: the probability that it gave
    to the decision's own word, where known. `problem`: why there is no text; with `refused`, asking again is no use.
    """

    text: str
    finished: bool
    confidence: float | None = None
    problem: str = ""
    refused: bool = False


Heard = Callable[[Mapping[str, Reply]], None]  # is told replies by prompt, as soon as they are there


def unheard(replies: Mapping[str, Reply]) -> None:
    """For those who need no reply before all are there."""


def refused(num_tokens: int, most: int) -> Reply | None:
    """The reply to a prompt of so many tokens that it is not asked, or None."""
    if num_tokens <= most:
        return None
    return Reply("", False, problem=f"the judge's prompt has {num_tokens} tokens, more than {most}", refused=True)


class Judge(Protocol):
    """One judge model. `identity` is everything about it that its answers depend on, in one line; it is known for sure
    only while the judge is running."""

    @property
    def identity(self) -> str: ...

    @property
    def running(self) -> bool: ...

    def start(self) -> None:
        """Make sure that it can be asked. Raises EngineError."""

    def ask(
        self, prompts: Sequence[str], attempt: int, should_stop: Callable[[], bool], heard: Heard = unheard
    ) -> list[Reply] | None:
        """A reply to every prompt, in order; None where `should_stop` said so. Raises EngineError.

        `attempt` counts from 1; the first one is greedy, a later one is for prompts that got no decision before.
        `heard` is told every text that came, also where None is returned or an error raised in the end.
        """

    def usage(self) -> dict[str, float]:
        """What was asked so far: `requests`, `prompt_tokens`, `new_tokens`, and `cost` where it has a price."""

    def close(self) -> None:
        """Let go of it. A later `start` or `ask` begins anew."""
