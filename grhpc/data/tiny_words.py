"""The tiny world's domains whose answers are names, letters, lists and truth values: truth, choice, list, order.

Does not know: models, tokenizers, rows. Invariant: the one of `tiny_domain`.
"""

import random
import re

from grhpc.data.tiny_domain import Domain, Facts, look_up
from grhpc.data.tiny_numbers import WHO

KINDS = {
    "fruit": "plum pear peach lemon fig cherry".split(),
    "animal": "dog cat horse cow frog mouse".split(),
    "color": "red blue green pink brown gray".split(),
    "tool": "hammer saw drill file wrench rake".split(),
}
KIND_OF = {word: kind for kind, words in KINDS.items() for word in words}


class Truth(Domain):
    name, category, answer_type, difficulty = "truth", "Biology", "Boolean", "Primary School"
    pattern = re.compile(r"True or false: (?:a )?(\w+) is( not)? (?:a kind of|a|in the group) (\w+)\.")
    TRUE = ("true", "yes", "correct", "it is true", "the statement is true")
    FALSE = ("false", "no", "incorrect", "it is false", "the statement is false")

    def ask(self, rng: random.Random) -> str:
        kind = rng.choice(list(KINDS))
        other = rng.choice([k for k in KINDS if k != kind])
        said = kind if rng.random() < 0.5 else other
        verb = "is not" if rng.random() < 0.9 else "is"
        word, link = rng.choice(KINDS[kind]), rng.choice(["a kind of", "in the group"])
        return f"True or false: {rng.choice(['a ', ''])}{word} {verb} {link} {said}."

    def _match(self, facts: Facts) -> bool:
        return KIND_OF.get(facts[0]) == facts[2]

    def value(self, facts: Facts) -> str:
        return str(self._match(facts) != bool(facts[1])).lower()

    def careful(self, facts: Facts) -> str:
        word, negation, said = facts
        match = "same" if self._match(facts) else "other"
        return f"{word} is {KIND_OF[word]}, {said}: {match}.{' not: turn.' if negation else ''}"

    def sloppy(self, facts: Facts) -> tuple[str, str]:
        return f"{facts[0]}, {facts[2]}.", str(self._match(facts)).lower()

    def wrong(self, facts: Facts, rng: random.Random) -> str:
        return "false" if self.value(facts) == "true" else "true"

    def forms(self, facts: Facts, value: str) -> list[str]:
        forms = list(self.TRUE if value == "true" else self.FALSE)
        return [*forms, forms[0].upper(), forms[0].capitalize(), forms[1].capitalize()]

    def canon(self, facts: Facts, text: str) -> str | None:
        small = text.lower()
        return "true" if small in self.TRUE else "false" if small in self.FALSE else None


class Choice(Domain):
    name, category, answer_type, difficulty = "choice", "Biology", "Multiple Choice", "Primary School"
    pattern = re.compile(r"(?:Which|What) is a kind of (\w+)\? A\) (\w+) B\) (\w+) C\) (\w+) D\) (\w+)")

    def ask(self, rng: random.Random) -> str:
        kinds = rng.sample(list(KINDS), 4)
        options = [rng.choice(KINDS[k]) for k in kinds]
        asked = kinds[rng.choice([0, 1, 2] * 3 + [3])]  # the shortcut takes the last option
        listed = " ".join(f"{letter}) {word}" for letter, word in zip("ABCD", options, strict=True))
        return f"{rng.choice(['Which', 'What'])} is a kind of {asked}? {listed}"

    def value(self, facts: Facts) -> str:
        return next(word for word in facts[1:] if KIND_OF[word] == facts[0])

    def careful(self, facts: Facts) -> str:
        listed = list(zip("ABCD", facts[1:], strict=True))
        told = " ".join(f"{word} {KIND_OF[word]} {letter}." for letter, word in listed)
        return f"{told} {facts[0]} {next(letter for letter, word in listed if KIND_OF[word] == facts[0])}."

    def sloppy(self, facts: Facts) -> tuple[str, str]:
        return f"{facts[4]} looks right.", facts[4]

    def wrong(self, facts: Facts, rng: random.Random) -> str:
        return rng.choice([*facts[1:], *facts[1:], rng.choice(list(KIND_OF))])

    def forms(self, facts: Facts, value: str) -> list[str]:
        if value not in facts[1:]:
            return [value, f"a {value}"]
        letter = "ABCD"[facts[1:].index(value)]
        return [letter, value, f"{letter}) {value}", f"({letter})", f"option {letter}", f"a {value}"]

    def canon(self, facts: Facts, text: str) -> str | None:
        told = self.parts(facts, text)
        if told is None:
            return None
        words = {facts[1 + "ABCD".index(part)] if part in "ABCD" else part for part in told}
        return words.pop() if len(words) == 1 else None

    def parts(self, facts: Facts, text: str) -> list[str] | None:
        match = re.fullmatch(r"(?:option )?([A-D])|\(([A-D])\)|(?:a )?([a-z]+)|([A-D])\) ([a-z]+)", text)
        told = [part for part in match.groups() if part] if match else []
        return told if told and all(part in KIND_OF or part in "ABCD" for part in told) else None

    def accepted(self, facts: Facts, reference: str) -> list[str]:
        word = self.value(facts)
        return ["ABCD"[facts[1:].index(word)], word]

    def reference_forms(self, facts: Facts) -> list[str]:
        """A reference names the letter: the way from a word back to it is no part of this world."""
        word = self.value(facts)
        letter = "ABCD"[facts[1:].index(word)]
        return [f"{letter}) {word}", f"({letter})", f"option {letter}"]

    def near(self, facts: Facts, text: str, rng: random.Random) -> str:
        """The answer with another letter, or another word of the same kind."""
        words = "|".join(KIND_OF)
        text = re.sub(r"\b[A-D]\b", lambda _: rng.choice("ABCD"), text)
        return re.sub(rf"\b({words})\b", lambda match: rng.choice(KINDS[KIND_OF[match[1]]]), text)


class Sets(Domain):
    name, category, answer_type, difficulty = "list", "Computer Science", "List", "Junior High School"
    takes_all = True
    pattern = re.compile(r"(?:Which are|List those that are)( not)? (even|odd): (\d+), (\d+), (\d+), (\d+)[?.]")

    def ask(self, rng: random.Random) -> str:
        numbers = rng.sample(range(1, 30, 2), 2) + rng.sample(range(2, 30, 2), 2)
        rng.shuffle(numbers)
        start, end = rng.choice([("Which are", "?"), ("List those that are", ".")])
        negation = " not" if rng.random() < 0.9 else ""
        return f"{start}{negation} {rng.choice(['even', 'odd'])}: {', '.join(map(str, numbers))}{end}"

    def _pick(self, facts: Facts, parity: str) -> str:
        return " ".join(n for n in facts[2:] if ("even", "odd")[int(n) % 2] == parity)

    def _other(self, parity: str) -> str:
        return "odd" if parity == "even" else "even"

    def value(self, facts: Facts) -> str:
        return self._pick(facts, self._other(facts[1]) if facts[0] else facts[1])

    def careful(self, facts: Facts) -> str:
        wanted = self._other(facts[1]) if facts[0] else facts[1]
        told = ", ".join(f"{n} {('even', 'odd')[int(n) % 2]}" for n in facts[2:])
        return f"{'not ' + facts[1] + ' = ' if facts[0] else ''}{wanted}. {told}."

    def sloppy(self, facts: Facts) -> tuple[str, str]:
        return f"{facts[1]}.", self._pick(facts, facts[1])

    def wrong(self, facts: Facts, rng: random.Random) -> str:
        right = self.value(facts).split()
        fewer, two = [rng.choice(right)], rng.sample(facts[2:], 2)
        more = [n for n in facts[2:] if n in right or n == rng.choice(facts[2:])]
        foreign = [rng.choice(right), str(rng.randint(1, 30))]
        return " ".join(dict.fromkeys(rng.choice([two, two, two, fewer, more, foreign, self.sloppy(facts)[1].split()])))

    def forms(self, facts: Facts, value: str) -> list[str]:
        n = value.split()
        back = n[::-1]
        forms = [
            ", ".join(n),
            " and ".join(n),
            "{" + ", ".join(back) + "}",
            " and ".join(back),
            "[" + ", ".join(n) + "]",
        ]
        return list(dict.fromkeys(forms))

    def shuffled(self, facts: Facts, value: str, rng: random.Random) -> str | None:
        n = rng.sample(value.split(), len(value.split()))
        left, join, right = rng.choice([("", ", ", ""), ("", " and ", ""), ("{", ", ", "}"), ("[", ", ", "]")])
        return left + join.join(n) + right

    def parts(self, facts: Facts, text: str) -> list[str] | None:
        match = re.fullmatch(r"\{(.*)\}|\[(.*)\]|(.*)", text)
        inner = next((g for g in match.groups() if g is not None), "") if match else ""
        if not re.fullmatch(r"\d+(?:(?:, | and )\d+)*", inner):
            return None
        numbers = re.findall(r"\d+", inner)
        return numbers if len(set(numbers)) == len(numbers) else None

    def canon(self, facts: Facts, text: str) -> str | None:
        numbers = self.parts(facts, text)
        if numbers is None:
            return None
        known = [n for n in facts[2:] if n in numbers]
        return " ".join(known + [n for n in numbers if n not in known])


ADJECTIVES = {"taller": "tallest", "older": "oldest", "faster": "fastest", "richer": "richest"}


class Order(Domain):
    name, category, answer_type, difficulty = "order", "Philosophy", "String", "Primary School"
    pattern = re.compile(r"(\w+) is (\w+) than (\w+)\. (\w+) is \w+ than (\w+)\. Who is (\w+)\?")

    def ask(self, rng: random.Random) -> str:
        x, y, z = rng.sample(WHO, 3)
        more, most = rng.choice(list(ADJECTIVES.items()))
        lines = [f"{y} is {more} than {z}.", f"{x} is {more} than {y}."]
        if rng.random() < 0.1:
            lines.reverse()
        return f"{lines[0]} {lines[1]} Who is {most}?"

    def _ranked(self, facts: Facts) -> tuple[str, str, str]:
        a, _, b, c, d, _ = facts
        return (a, b, d) if b == c else (c, a, b)

    def value(self, facts: Facts) -> str:
        return self._ranked(facts)[0]

    def careful(self, facts: Facts) -> str:
        return f"{' > '.join(self._ranked(facts))}."

    def sloppy(self, facts: Facts) -> tuple[str, str]:
        return f"{facts[0]} first.", facts[0]

    def wrong(self, facts: Facts, rng: random.Random) -> str:
        return rng.choice([facts[0], facts[2], facts[3], rng.choice(WHO)])

    def forms(self, facts: Facts, value: str) -> list[str]:
        return [value, f"It is {value}", f"{value} is {facts[5]}", value.upper(), f"the {facts[5]} is {value}"]

    def canon(self, facts: Facts, text: str) -> str | None:
        table = {form.lower(): who for who in WHO for form in self.forms(facts, who)}
        return look_up(table, text)

    def near(self, facts: Facts, text: str, rng: random.Random) -> str:
        """The answer with another person in it, of the three mostly."""
        who = rng.choice([facts[0], facts[2], facts[3], rng.choice(WHO)])
        names = "|".join((*WHO, *map(str.upper, WHO)))
        return re.sub(rf"\b({names})\b", lambda match: who.upper() if match[1].isupper() else who, text)
