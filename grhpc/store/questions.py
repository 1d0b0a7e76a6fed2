"""Which questions of an evaluation a shard holds: said by its name, so that a listing is enough to know what is done.

    math500-000064-0064    questions 64..127 of math500

Does not know: queues, what a question is. Invariant: the shards of a benchmark cover its questions in order, each once.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class QuestionShard:
    """Questions first..first+count-1 of a benchmark; every question has `samples` responses."""

    benchmark: str
    first: int
    count: int
    samples: int

    @property
    def name(self) -> str:
        return f"{self.benchmark.replace('.', '_')}-{self.first:06d}-{self.count:04d}"

    @property
    def num_samples(self) -> int:
        return self.count * self.samples


@dataclass(frozen=True)
class Extent:
    """How much an evaluation is: by benchmark, in the order of the table, its questions and responses to each.

    A shard holds `per_shard` questions, or fewer where each has several responses, lest one task have them all."""

    questions: Mapping[str, int]
    samples: Mapping[str, int]
    per_shard: int

    @classmethod
    def of(cls, about: Mapping[str, Any]) -> "Extent":
        """From run.json, where `as_json` was put under "extent"."""
        found = about["extent"]
        return cls(found["questions"], found["samples"], found["per_shard"])

    def as_json(self) -> dict[str, Any]:
        return {"questions": dict(self.questions), "samples": dict(self.samples), "per_shard": self.per_shard}

    def shards(self) -> Iterator[QuestionShard]:
        """Every shard, in the order of the samples' file."""
        for benchmark, num in self.questions.items():
            samples = self.samples[benchmark]
            size = max(1, self.per_shard // samples)
            for first in range(0, num, size):
                yield QuestionShard(benchmark, first, min(size, num - first), samples)

    @property
    def num_samples(self) -> int:
        return sum(num * self.samples[benchmark] for benchmark, num in self.questions.items())
