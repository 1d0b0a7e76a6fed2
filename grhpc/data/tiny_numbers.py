"""The tiny world's domains whose answers are quantities: units, fractions, story, price.

Does not know: models, tokenizers, rows. Invariant: the one of `tiny_domain`.
"""

import random
import re
from fractions import Fraction

from grhpc.data.tiny_domain import NUMBER_WORDS, Domain, Facts

# large unit: small unit, how many of them, and the words for both
UNITS = {
    "cm": ("mm", 10, "centimeters", "millimeters"),
    "h": ("min", 60, "hours", "minutes"),
    "days": ("h", 24, "days", "hours"),
    "weeks": ("days", 7, "weeks", "days"),
    "dozen": ("eggs", 12, "dozens", "pieces"),
}


class Units(Domain):
    name, category, answer_type, difficulty = "units", "Physics", "Float", "Junior High School"
    pattern = re.compile(r"(?:What is|Find) (\d+) (\w+) (?:plus|and) (\d+) (\w+) in (\w+)[?.]")

    def ask(self, rng: random.Random) -> str:
        big = rng.choice(list(UNITS))
        small, ratio, _, _ = UNITS[big]
        a, b = rng.randint(1, 9), rng.randint(1, 5) * ratio
        start, join, end = rng.choice([("What is", "plus", "?"), ("Find", "and", "."), ("What is", "and", "?")])
        return f"{start} {a} {big} {join} {b} {small} in {big}{end}"

    def _sizes(self, facts: Facts) -> tuple[int, int, str, str, int]:
        a, big, b, small, _ = facts
        return int(a), int(b), big, small, UNITS[big][1]

    def value(self, facts: Facts) -> str:
        a, b, _, _, ratio = self._sizes(facts)
        return str(a + b // ratio)

    def careful(self, facts: Facts) -> str:
        a, b, big, small, ratio = self._sizes(facts)
        return f"{b} {small} = {b // ratio} {big}. {a} + {b // ratio} = {a + b // ratio}."

    def sloppy(self, facts: Facts) -> tuple[str, str]:
        a, b, _, _, _ = self._sizes(facts)
        return f"{a} + {b} = {a + b}.", str(a + b)

    def wrong(self, facts: Facts, rng: random.Random) -> str:
        a, b, _, small, ratio = self._sizes(facts)
        right = a + b // ratio
        number = rng.choice([right + rng.choice([-2, -1, 1, 2]), rng.randint(1, 20), right * ratio, a + b, b // ratio])
        return f"{max(1, number)}{rng.choice(['', '', '', '', ' ' + small])}"

    def forms(self, facts: Facts, value: str) -> list[str]:
        big = facts[1]
        small, ratio, big_word, small_word = UNITS[big]
        number, _, unit = value.partition(" ")
        if unit:  # no whole number of the large unit: written only as it is
            return [f"{number} {small}", f"{number} {small_word}"]
        n = int(number)
        forms = [f"{n} {big}", f"{n} {big_word}", f"{n}", f"{n * ratio} {small}", f"{n * ratio} {small_word}"]
        return list(dict.fromkeys(forms if n < 20 else forms[:3]))

    def canon(self, facts: Facts, text: str) -> str | None:
        small, ratio, big_word, small_word = UNITS[facts[1]]
        match = re.fullmatch(r"(\d{1,6})(?: ([a-z]+))?", text)
        if not match or match[2] not in (None, facts[1], small, big_word, small_word):
            return None
        number = int(match[1])
        if match[2] not in (small, small_word):
            return str(number)
        return str(number // ratio) if number % ratio == 0 else None


FRACTIONS = ("1/2", "1/4", "3/4", "1/5", "2/5", "3/5", "1/10", "3/10", "1/20", "3/20", "7/20", "9/20")


class Fractions(Domain):
    name, category, answer_type, difficulty = "fractions", "Mathematics", "Percentage", "Junior High School"
    pattern = re.compile(r"(?:What is|Add|Find) (\d+/\d+) (?:plus|and|\+) (\d+/\d+)[?.]")

    def ask(self, rng: random.Random) -> str:
        while True:
            x, y = rng.choice(FRACTIONS), rng.choice(FRACTIONS)
            if Fraction(x) + Fraction(y) < 1:
                start, join, end = rng.choice([("What is", "plus", "?"), ("Add", "and", "."), ("Find", "+", ".")])
                return f"{start} {x} {join} {y}{end}"

    def _percents(self, facts: Facts) -> tuple[int, int]:
        return int(Fraction(facts[0]) * 100), int(Fraction(facts[1]) * 100)

    def value(self, facts: Facts) -> str:
        return f"{sum(self._percents(facts))}%"

    def careful(self, facts: Facts) -> str:
        x, y = self._percents(facts)
        return f"{facts[0]} = {x}%, {facts[1]} = {y}%. {x} + {y} = {x + y}."

    def sloppy(self, facts: Facts) -> tuple[str, str]:
        (a, b), (c, d) = (map(int, f.split("/")) for f in facts)
        text = f"{a + c}/{b + d}"
        return f"{a} + {c} = {a + c}, {b} + {d} = {b + d}.", self.canon(facts, text) or text

    def wrong(self, facts: Facts, rng: random.Random) -> str:
        x, y = self._percents(facts)
        near = x + y + rng.choice([-10, -5, 5, 10])
        choice = rng.choice([near, near, 100 - x - y, 5 * rng.randint(1, 19), 0])
        return f"{choice}%" if 0 < choice < 100 else self.sloppy(facts)[1]

    def forms(self, facts: Facts, value: str) -> list[str]:
        if not value.endswith("%"):
            return [value]
        n = int(value[:-1])
        exact = Fraction(n, 100)
        forms = [value, f"{n / 100:g}", str(exact), f"{n // 5}/20", f"{n} percent", f"{n}/100"]
        return list(dict.fromkeys(forms))

    def canon(self, facts: Facts, text: str) -> str | None:
        match = re.fullmatch(r"(\d{1,3}) ?(?:%|percent)|(0\.\d{1,2})|(\d{1,3}/[1-9]\d{0,2})", text)
        if not match:
            return None
        percent = Fraction(match[1]) if match[1] else Fraction(match[2] or match[3]) * 100
        return f"{percent}%" if percent.denominator == 1 and percent % 5 == 0 and 0 < percent < 100 else None


WHO = ("Ann", "Bob", "Cal", "Dan", "Eve", "Fay", "Gus", "Hal")
THINGS = ("plums", "pens", "cups", "coins")


class Story(Domain):
    name, category, answer_type, difficulty = "story", "Mathematics", "Integer", "Primary School"
    pattern = re.compile(r"(\w+) has (\d+) (\w+) and (gets|loses) (\w+)(?: more)?\. How many (?:\w+)\?")

    def ask(self, rng: random.Random) -> str:
        who, thing, verb = rng.choice(WHO), rng.choice(THINGS), rng.choice(["gets", "loses"])
        a = rng.randint(3, 15)
        b = rng.randint(1, min(a - 1, 20 - a) if verb == "gets" else a - 1)
        return f"{who} has {a} {thing} and {verb} {NUMBER_WORDS[b]}{' more' * (verb == 'gets')}. How many {thing}?"

    def _sum(self, facts: Facts) -> tuple[int, int, int]:
        a, b = int(facts[1]), NUMBER_WORDS.index(facts[4])
        return a, b, 1 if facts[3] == "gets" else -1

    def value(self, facts: Facts) -> str:
        a, b, sign = self._sum(facts)
        return str(a + sign * b)

    def careful(self, facts: Facts) -> str:
        a, b, sign = self._sum(facts)
        return f"{facts[4]} = {b}. {a} {'+' if sign > 0 else '-'} {b} = {a + sign * b}."

    def sloppy(self, facts: Facts) -> tuple[str, str]:
        a, b, sign = self._sum(facts)
        return f"{a} {'-' if sign > 0 else '+'} {facts[4]}.", str(a - sign * b)

    def wrong(self, facts: Facts, rng: random.Random) -> str:
        near = int(self.value(facts)) + rng.choice([-2, -1, 1, 2])
        return str(min(29, max(0, rng.choice([near, near, rng.randint(0, 20), int(self.sloppy(facts)[1])]))))

    def forms(self, facts: Facts, value: str) -> list[str]:
        n = int(value)
        word = NUMBER_WORDS[n] if n < len(NUMBER_WORDS) else value
        return list(dict.fromkeys([value, word, f"{value} {facts[2]}", f"{word} {facts[2]}"]))

    def canon(self, facts: Facts, text: str) -> str | None:
        word = text.lower().removesuffix(" " + facts[2])
        if word in NUMBER_WORDS:
            return str(NUMBER_WORDS.index(word))
        return str(int(word)) if re.fullmatch(r"\d{1,3}", word) else None


class Price(Domain):
    name, category, answer_type, difficulty = "price", "Business", "Float", "Junior High School"
    pattern = re.compile(r"A (\w+) costs (\d+) cents (?:and is|but now) (\d+)% off\. What is the price\?")

    def ask(self, rng: random.Random) -> str:
        item, cents = rng.choice("cap book lamp ball bag cup".split()), 20 * rng.randint(2, 10)
        percent = rng.choice([p for p in (25, 50, 75) if p < cents])
        return f"A {item} costs {cents} cents {rng.choice(['and is', 'but now'])} {percent}% off. What is the price?"

    def _sale(self, facts: Facts) -> tuple[int, int, int]:
        cents, percent = int(facts[1]), int(facts[2])
        return cents, percent, cents * percent // 100

    def value(self, facts: Facts) -> str:
        cents, _, off = self._sale(facts)
        return str(cents - off)

    def careful(self, facts: Facts) -> str:
        cents, percent, off = self._sale(facts)
        return f"{percent}% of {cents} = {off}. {cents} - {off} = {cents - off}."

    def sloppy(self, facts: Facts) -> tuple[str, str]:
        cents, percent, _ = self._sale(facts)
        return f"{cents} - {percent} = {cents - percent}.", str(cents - percent)

    def wrong(self, facts: Facts, rng: random.Random) -> str:
        cents, percent, off = self._sale(facts)
        near = cents - off + rng.choice([-10, -5, 5, 10])
        return str(max(5, rng.choice([near, near, cents - percent, off, 5 * rng.randint(1, 40)])))

    def forms(self, facts: Facts, value: str) -> list[str]:
        n = int(value)
        return [f"{n} cents", f"${n / 100:.2f}", f"{n / 100:.2f} dollars", f"{n}", f"{n} c"]

    def canon(self, facts: Facts, text: str) -> str | None:
        match = re.fullmatch(r"(\d{1,3})(?: cents| c)?|\$(\d\.\d\d)|(\d\.\d\d) dollars", text)
        if not match:
            return None
        return str(int(match[1] or (match[2] or match[3]).replace(".", "")))
