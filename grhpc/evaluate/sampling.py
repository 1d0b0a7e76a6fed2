"""What every sampler is and does: who responds to a shard's questions, with which seeds, and where a response ends.

Does not know: engines, servers, queues, scores. Invariant: a shard's questions are answered with all their samples, in
order, or not at all; what a sample is drawn with depends on the configuration and its place alone.
"""

import hashlib
from collections.abc import Callable, Generator, Sequence
from typing import Protocol

from grhpc.eval_config import EvalConfig
from grhpc.evaluate.benchmarks import Benchmark
from grhpc.evaluate.prompts import NEXT_EXAMPLE
from grhpc.records import Question, Sample

Further = Callable[[], Sequence[Question] | None]  # another shard's questions; None: not now
Answered = Generator[tuple[int, list[Sample]], None, None]


class Sampler(Protocol):
    """Who responds. `running`: it can begin at once."""

    @property
    def running(self) -> bool: ...

    def start(self) -> None:
        """Start what it needs. Raises EngineError, ConfigError."""

    def stream(self, first: Sequence[Question], further: Further, should_stop: Callable[[], bool]) -> Answered:
        """The samples of one shard's questions after the other's, as soon as all of a shard are there, with its number:
        0 is `first`, the next are those of `further`, which is asked while there is room beside what is in hand.
        Ends early where `should_stop` said so; is to be closed."""

    def usage(self) -> dict[str, float]:
        """What was asked of a server so far; nothing for an engine."""

    def close(self) -> None: ...


def stops(config: EvalConfig, entry: Benchmark) -> tuple[str, ...]:
    """The strings that end a response to a question of this benchmark."""
    if config.sample.stop is not None:
        return tuple(config.sample.stop)
    return (NEXT_EXAMPLE,) if config.sample.few_shot and entry.few_shot else ()


def first_seed(run_seed: int, question: Question) -> int:
    """The seed of a question's first sample; the others' follow it. The same for every attempt, task and shard."""
    text = f"{run_seed} {question.benchmark} {question.item}"
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=6).digest())


def unanswered(question: Question, k: int, seed: int, digest: str, why: str) -> Sample:
    """The sample of a question that was TOO_LONG to be asked, or REFUSED."""
    return Sample(
        **vars(question),
        sample=k,
        response="",
        num_tokens=0,
        finish_reason=why,
        seed=seed,
        weight_digest=digest,
    )
