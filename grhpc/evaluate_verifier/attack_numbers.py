"""A text like another but for one number, sign, unit or option letter: what a judge must tell from the truth.

    0.45 dollars -> 0.54 dollars, 4.5 dollars, -0.45 dollars, 0.45 cents

Does not know: judges, questions. Invariant: the text differs in value, not only in form, by the first two digits that
count of a number or by its size, so that no rounding makes it right.
"""

import random
import re
from collections.abc import Callable
from fractions import Fraction

_NUMBER = re.compile(r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?")
_LETTER = re.compile(r"(?<!\w)[A-F](?!\w)")
_COUNTS = 2  # digits of a number, from the first that is not zero
_UNITS = [
    group.split()
    for group in (
        "m cm mm km|meters centimeters millimeters kilometers|kg g mg|kilograms grams|s min h days weeks"
        "|seconds minutes hours days weeks|dollars cents|c dollars|V mV kV|A mA|W kW|J kJ|N kN|Pa kPa|L mL|mol mmol"
    ).split("|")
]


def other_numbers(rng: random.Random, text: str) -> str | None:
    """`text` with one thing changed, drawn among all that can be; None where nothing can be."""
    numbers = [match for match in _NUMBER.finditer(text) if Fraction(_bare(match))]
    changes: list[Callable[[], str | None]] = [lambda: _other_unit(rng, text), lambda: _other_letter(rng, text)]
    if numbers:
        at = rng.choice(numbers)
        changes += [lambda make=make: _other_value(at, make(rng, _bare(at))) for make in _CHANGES]  # type: ignore[misc]
        changes.append(lambda: _other_sign(text, at))
    rng.shuffle(changes)
    return next((changed for change in changes if (changed := change()) is not None), None)


def _bare(number: re.Match[str]) -> str:
    return number[0].replace(",", "")


def _other_value(at: re.Match[str], number: str) -> str | None:
    if not number or Fraction(number) == Fraction(_bare(at)):
        return None
    return at.string[: at.start()] + number + at.string[at.end() :]


def _other_sign(text: str, at: re.Match[str]) -> str:
    before = text[: at.start()]
    return (before[:-1] if before.endswith("-") else before + "-") + text[at.start() :]


def _other_unit(rng: random.Random, text: str) -> str | None:
    found = [
        (match, unit) for group in _UNITS for unit in group for match in re.finditer(rf"(?<=\d)\s?{unit}(?!\w)", text)
    ]
    if not found:
        return None
    match, unit = rng.choice(found)
    other = rng.choice([u for group in _UNITS if unit in group for u in group if u != unit])
    return text[: match.end() - len(unit)] + other + text[match.end() :]


def _other_letter(rng: random.Random, text: str) -> str | None:
    """Of a text that is an option's letter, with hardly anything around it."""
    letters = list(_LETTER.finditer(text))
    if len(letters) != 1 or len(text.split()) > 3:
        return None
    at = letters[0]
    return text[: at.start()] + rng.choice([c for c in "ABCDEF" if c != at[0]]) + text[at.end() :]


def _digit(rng: random.Random, number: str) -> str:
    at = rng.choice(_digits(number))
    return number[:at] + rng.choice([d for d in "0123456789" if d != number[at]]) + number[at + 1 :]


def _swapped(rng: random.Random, number: str) -> str:
    digits = _digits(number)
    if len(digits) < 2:
        return ""
    first = rng.randrange(len(digits) - 1)
    a, b = digits[first : first + 2]
    return number[:a] + number[b] + number[a + 1 : b] + number[a] + number[b + 1 :]


def _longer(rng: random.Random, number: str) -> str:
    at = rng.choice(_digits(number))
    return number[:at] + rng.choice("123456789") + number[at:]


def _shorter(rng: random.Random, number: str) -> str:
    """Without a digit, but not the last one behind the point: that would be rounding."""
    digits = _digits(number)
    at = rng.choice(digits)
    kept = len(digits) < 2 or ("." in number and at == len(number) - 1) or number[at + 1 : at + 2] == "."
    return "" if kept else number[:at] + number[at + 1 :]


def _moved(rng: random.Random, number: str) -> str:
    """Ten times as much, or a tenth."""
    value = Fraction(number) * rng.choice([Fraction(10), Fraction(1, 10)])
    return str(value) if value.denominator == 1 else f"{float(value):.6g}"


def _digits(number: str) -> list[int]:
    """Where the first digits that count are."""
    places = [at for at, character in enumerate(number) if character.isdigit()]
    first = next(i for i, at in enumerate(places) if number[at] != "0")
    return places[first : first + _COUNTS]


_CHANGES = (_digit, _swapped, _longer, _shorter, _moved)
