"""What every domain of the tiny world has in common: a question that can be read back, a value, and its many forms.

A domain makes questions at random and reads the facts of a question back from its text alone, so that the truth of an
answer is a pure function of two texts. A *value* is written canonically (`"5 m"`, `"45%"`, `"Cal"`); its `forms` are
the ways in which people write it, the policy's usual one first. `canon` maps a form back to the canonical text, and
everything that is no clean answer to None. Each question has a careful chain of thought that ends in the truth and a
sloppy shortcut that mostly does not.

Does not know: models, tokenizers, rows. Invariant: `canon(facts, form) == value` for every form of every value.
"""

import random
import re
from abc import ABC, abstractmethod
from typing import ClassVar

Facts = tuple[str, ...]


class Domain(ABC):
    """One kind of question. `facts` are the texts that `pattern` captures from a question."""

    name: ClassVar[str]
    category: ClassVar[str]
    answer_type: ClassVar[str]
    difficulty: ClassVar[str]
    pattern: ClassVar[re.Pattern[str]]
    takes_all: ClassVar[bool] = False  # whether a right answer needs every accepted part

    @abstractmethod
    def ask(self, rng: random.Random) -> str:
        """A question drawn at random."""

    def read(self, question: str) -> Facts | None:
        """The facts of a question of this domain; None for any other text."""
        match = self.pattern.fullmatch(question)
        return tuple(g or "" for g in match.groups()) if match else None

    @abstractmethod
    def value(self, facts: Facts) -> str:
        """The right answer, canonically written."""

    @abstractmethod
    def careful(self, facts: Facts) -> str:
        """The chain of thought that leads to `value`."""

    @abstractmethod
    def sloppy(self, facts: Facts) -> tuple[str, str]:
        """A shortcut and the value, mostly wrong, that it leads to."""

    @abstractmethod
    def wrong(self, facts: Facts, rng: random.Random) -> str:
        """A plausible value; it may happen to be the right one."""

    @abstractmethod
    def forms(self, facts: Facts, value: str) -> list[str]:
        """All ways to write `value`, the policy's usual one first, without repetition."""

    def reference_forms(self, facts: Facts) -> list[str]:
        """The ways in which a reference writes the right answer: not in the policy's usual form."""
        return self.forms(facts, self.value(facts))[1:]

    @abstractmethod
    def canon(self, facts: Facts, text: str) -> str | None:
        """The canonical text of an answer, or None where it is no clean answer."""

    def accepted(self, facts: Facts, reference: str) -> list[str]:
        """The parts that a right answer is made of, as a reference tells them."""
        return self.parts(facts, reference) or []

    def parts(self, facts: Facts, text: str) -> list[str] | None:
        """The parts of a clean answer, each canonical, in the order in which they are written."""
        value = self.canon(facts, text)
        return None if value is None else [value]

    def near(self, facts: Facts, text: str, rng: random.Random) -> str:
        """A text that differs from a written answer in one number, where it has one."""
        numbers = list(re.finditer(r"\d+", text))
        if not numbers:
            return text
        at = rng.choice(numbers)
        number = rng.choice([max(1, int(at[0]) + rng.choice([-2, -1, 1, 2])), rng.randint(1, 30)])
        return text[: at.start()] + str(number) + text[at.end() :]

    def shuffled(self, facts: Facts, value: str, rng: random.Random) -> str | None:
        """A further, randomly drawn way to write `value`, where the domain has too many of them to list."""
        return None


def look_up(table: dict[str, str], text: str) -> str | None:
    """The entry of a table whose keys are written in small letters."""
    return table.get(text.lower())


NUMBER_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
).split()
