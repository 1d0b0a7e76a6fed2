"""Is it the question? What is known of one that failed, and when chance no longer explains it.

A server that fails, or breaks connections, at random does so with other questions as often. So after each failure of a
question that was asked alone, small ones are asked: only where they are answered so much oftener that chance is next to
impossible is the question at fault. With every small one answered that takes five failures; with every second one, some
twenty. That the question is at fault in truth then costs as many requests, and no more.

Does not know: servers, what is asked. Invariant: what is equally likely to fail as the small ones is blamed with a
probability of about CHANCE, however often all of them fail.
"""

import math
from dataclasses import dataclass

SMALL = 8  # small questions after each failure
CHANCE = 1e-6  # that failures at random look like a question's fault
_MET_AMONG_OTHERS = 2  # times that the server broke under it and others, before it is asked alone


@dataclass
class Doubt:
    """`broke`: how often the server went away while the question was on its way among others. `failed`: how often it
    failed alone, `words` how it did last; `passed` and `missed`: how the small ones fared that were asked after."""

    broke: int = 0
    failed: int = 0
    passed: int = 0
    missed: int = 0
    words: str = ""
    given_up: bool = False

    @property
    def is_apart(self) -> bool:
        """Whether it is to be asked with nothing else on its way."""
        return self.failed > 0 or self.broke >= _MET_AMONG_OTHERS

    @property
    def is_open(self) -> bool:
        """Whether small ones are still to be asked after its last failure."""
        return self.passed + self.missed < self.failed * SMALL

    @property
    def is_settled(self) -> bool:
        """Whether it is the question: the small ones have been asked, and after what came of them the chance that the
        next `failed` tries all fail (Laplace's rule of succession, for each in turn) is below CHANCE."""
        asked = self.passed + self.missed
        return (
            not self.is_open and math.prod((self.missed + 1 + i) / (asked + 2 + i) for i in range(self.failed)) < CHANCE
        )
