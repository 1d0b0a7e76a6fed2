"""Reads a number from the text of a final answer: decimals, fractions, powers, roots, pi, a unit after it.

Does not know: what the right answer is. Invariant: takes bounded time, as the text's length is bounded and so is the
size of all numbers; what is not wholly understood is None, and never a number.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from grhpc.evaluate.scoring_arithmetic import Real, evaluate, size
from grhpc.evaluate.scoring_layout import without_fonts

_LONGEST = 200  # characters
_RAISED = str.maketrans("\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207b", "0123456789-")
_SUPERSCRIPT = re.compile("[\u2070\u00b9\u00b2\u00b3\u2074-\u2079\u207b]+")
_REPLACED = (
    ("\\dfrac", "\\frac"),
    ("\\tfrac", "\\frac"),
    ("\\left", ""),
    ("\\right", ""),
    ("\\displaystyle", ""),
    ("\\times", "*"),
    ("\\cdot", "*"),
    ("\\div", "/"),
    ("\\%", "%"),
    ("\\$", " "),
    ("^{\\circ}", "\u00b0"),
    ("^\\circ", "\u00b0"),
    ("\\circ", "\u00b0"),
    ("\\degree", "\u00b0"),
    ("{,}", ""),
    ("\u2212", "-"),
    ("\u2013", "-"),
    ("\u00d7", "*"),
    ("\u22c5", "*"),
    ("\u00b7", "*"),
    ("\u00f7", "/"),
    ("\u03c0", "\\pi "),
    ("\u221a", "\\sqrt"),
    ("**", "^"),
    ("$", " "),
    ("\u20ac", " "),
    ("\u00a3", " "),
    ("\u00a5", " "),
)
_SPACING = re.compile(r"\\[,;:! ]|\\q?quad|\\[()\[\]]|~")
_TIMES = re.compile(r"(?<=\d) ?[xX] ?(?=10\s*\^)")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))|(?<=\d) (?=\d{3}(?!\d))")
_APPROX = r"\u2248|\\approx|\\simeq|\\sim(?![a-z])"
_EQUALS = re.compile(rf"(=|{_APPROX})")
_SAYS_AGAIN = re.compile(rf"\(\s*(?:=|{_APPROX}|(?:approximately|about|or|i\.e\.,?)(?![a-z])|approx\.?)\s*")
_AGAIN = "\0"  # in the text, where a bracket is said to say the number again
_RESTATED = re.compile(rf"(?P<said>.*[^\s(])\s*\((?P<mark>{_AGAIN}?)(?P<again>[^()]*)\)", re.DOTALL)
_SUM = re.compile(r"(?<=[\w)}])(?<!\d[eE])\s*[-+]")
_NAME = re.compile(r"\s*\\?[A-Za-z]+\s*")
_DECIMAL = re.compile(r"\d*\.(?P<places>\d+)|\d+(?:\.(?P<more>\d*))?(?=[eE][-+]?\d)")
_WHOLE = re.compile(r"[-+]?\d*[1-9](?P<zeros>0*)")
# What makes "x = 3, x = 5" or "x <= 3" no equation that ends in the one answer.
_NO_EQUATION = re.compile(
    r"[,;<>!\u2260\u2264\u2265\u00b1]|\\(?:not|ne|neq|le|leq|ge|geq|lt|gt|pm)(?![a-z])|\d\s+[A-Za-z]\w*\s*$"
    r"|(?<![A-Za-z\\])(?:or|and|not|nor|if|for|when|where|with|at|but|while|then|to|either)(?![A-Za-z])"
)
_BRACKETED = re.compile(r"\([^()]*\)|\[[^\[\]]*\]|\{[^{}]*\}|(?<=[\d)])!(?=\s)")
_KNOWN = "km|cm|mm|nm|um|kg|mg|ms|ns|kHz|MHz|GHz|Hz|kJ|MeV|keV|GeV|eV|kPa|Pa|kN|kW|mW|MW|mA|mV|kV|mol|rad|bits?|cal|min"
_UNIT = re.compile(
    r"(?P<value>.*[\d)}\]!%])(?:\s*(?:(?:"
    + _KNOWN
    + r"|[mgsAVWNJKCFTHLhl\u03a9])(?![A-Za-z]))|\s+[A-Za-z]{2,}|\s*\u00b0(?:\s*[CF])?)"
    r"(?P<rest>(?:[\s/*.^{}()-]|[A-Za-z\u03a9\u00b0]|(?<=[\^{A-Za-z-])\d)*)",
    re.DOTALL,
)
_NO_UNIT = re.compile(
    r"(?<![A-Za-z\\])(?:or|and|to|plus|minus|times|over|if|for|when|where|sin|cos|tan|ln|log|exp|sqrt|pi|e|mod|x|y"
    r"|(?:hundred|thousand|million|billion|trillion|quadrillion|dozen|score|lakh|crore|half|third|quarter|tenth|hundredth"
    r"|thousandth|millionth|pair)s?|halves|percent(?:age)?s?|per\s+(?:cent|mille?)|basis|bps|ppm|ppb|mn|bn|squared|cubed"
    r"|factorial|choose|base|binary|octal|hex|is|not|but|nor|maybe|perhaps|except|unless|otherwise|wrong|incorrect|false"
    r"|more|less|fewer|at|cannot|unlikely|impossible|excluded|modulo|inverse|twice|doubled|tripled|halved|one|two|three"
    r"|four|five|six|seven|eight|nine|ten|eleven|twelve)(?![A-Za-z])",
    re.IGNORECASE,
)
_ANGLED = re.compile(r"\\?(?:arc)?(?:sin|cos|tan)|\\?(?:log|ln|exp)|\\?pi(?![a-z])")  # beside which a degree is no unit


@dataclass(frozen=True)
class Number:
    """A number as it was written: `unit` is one unit in the last place of a decimal, 0 where there is none."""

    value: Real
    unit: Real = Fraction(0)

    def times(self, factor: int) -> "Number":
        return Number(self.value * factor, self.unit * factor)

    def distance(self, other: "Number") -> Real:
        try:
            return size(self.value - other.value)
        except OverflowError:  # a fraction beyond all floats
            return math.inf

    def agrees(self, other: "Number") -> bool:
        """Whether both may be one number, each as it was rounded or cut off."""
        noise = size(self.value) * 1e-9 if isinstance(self.value, float) else 0
        limit, rounded, exact = self.unit + other.unit, *((self, other) if self.unit else (other, self))
        if not exact.unit and size(rounded.value) > size(exact.value):  # so it was not cut off
            limit /= 2
        return self.distance(other) <= limit + noise


def read_number(text: str, *, unit: bool = True) -> Real | None:
    """The number that the whole text says; None where it says something else. 25% is 0.25; what stands before the last
    equals sign does not count, nor does a unit after the number, which may stand there only if `unit`."""
    sides = read_sides(text, unit=unit)
    return sides[-1].value if sides else None


def read_sides(text: str, *, unit: bool = True) -> list[Number]:
    """All numbers that the text says to be one: those between equals signs that can be read, and what a bracket after
    them says again: of "x = 4/9 = 0.444 (44%)" three. The last one is the text's number; [] where it has none."""
    if len(text) > _LONGEST:
        return []
    text = _SAYS_AGAIN.sub("(" + _AGAIN, _THOUSANDS.sub("", _cleaned(text)))
    sides = [_read_side(side, rounded, unit) for side, rounded in _sides(text)]
    return [number for side in sides for number in side] if sides[-1] else []


def consistent(numbers: Sequence[Number]) -> bool:
    """Whether all of them may be one number."""
    return all(one.agrees(other) for one in numbers for other in numbers)


def _read_side(text: str, rounded: bool, unit: bool) -> list[Number]:
    """The number, and before it what a bracket says again. 3(4) may be a product, or a number with another."""
    text = text.lstrip(" ;").rstrip(" .;")
    restated = _RESTATED.fullmatch(text)
    if restated is not None:
        said = _read_one(restated["said"], rounded, unit)
        again = _read_one(restated["again"], bool(restated["mark"]), unit)
        if said and again and said.agrees(again):
            sure = restated["mark"] or said.unit or again.unit or "%" in restated["again"]
            return [again, said] if sure and not _SUM.search(restated["again"]) else []
    number = _read_one(text, rounded, unit)
    return [number] if number else []


def _read_one(text: str, rounded: bool, unit: bool) -> Number | None:
    value = evaluate(text)
    match = _UNIT.fullmatch(text) if value is None and unit else None
    if match is not None:
        said = text[match.end("value") :]
        angle = "\u00b0" in said or "deg" in said.lower()
        if _NO_UNIT.search(said) or (angle and _ANGLED.search(match["value"])):
            return None
        text = match["value"]
        value = evaluate(text)
    try:
        return None if value is None else Number(value, _last_place(text, value, rounded))
    except OverflowError:
        return None


def _last_place(text: str, value: Real, rounded: bool) -> Real:
    """One unit in the last place of the coarsest decimal, as far as it moves the value; of `rounded` whole numbers in
    the last place that is not zero."""
    if rounded and (whole := _WHOLE.fullmatch(text)):
        return Fraction(10 ** len(whole["zeros"]))
    units: list[Real] = [Fraction(0)]
    for match in _DECIMAL.finditer(text):
        unit, number = Fraction(1, 10 ** len(match["places"] or match["more"] or "")), Fraction(match[0])
        units.append(unit * size(value) / number if number else unit)
    return max(units)


def read_numbers(text: str) -> list[Real] | None:
    """The numbers of a list, in brackets or not; None where one of them is not a number."""
    text = (
        re.sub(r"\band\b|;", ",", without_fonts(text.replace("\\{", "[").replace("\\}", "]")))
        .lstrip(" $")
        .rstrip(" .$")
    )
    inner = re.fullmatch(r"(?:[A-Za-z_\\ ]+=\s*)?(?:\\left)?[\[({](.*?)(?:\\right)?[\])}]", text, re.DOTALL)
    numbers = [read_number(item) for item in split_outside(inner[1] if inner else text) if item]
    found = [number for number in numbers if number is not None]
    return found if found and len(found) == len(numbers) else None


def split_outside(text: str) -> list[str]:
    """The parts between the commas that stand in no bracket."""
    parts, depth = [""], 0
    for character in text:
        depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(character, 0)
        if character == "," and depth <= 0 and not parts[-1].endswith("\\"):  # "\\," is a space
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def _sides(text: str) -> list[tuple[str, bool]]:
    """What stands between equals signs, and whether it follows "about", where this is one equation; else the whole. A
    name in front ("e = 5") is none of its numbers."""
    parts = _EQUALS.split(text)
    if any(_NO_EQUATION.search(_BRACKETED.sub(" ", side)) for side in parts[:-1:2]):
        return [(text, False)]
    sides = [(parts[at], at > 0 and parts[at - 1] != "=") for at in range(0, len(parts), 2)]
    return sides[1:] if len(sides) > 1 and _NAME.fullmatch(sides[0][0]) else sides


def _cleaned(text: str) -> str:
    text = _SUPERSCRIPT.sub(lambda match: "^{" + match[0].translate(_RAISED) + "}", text)
    for written, plain in _REPLACED:
        text = text.replace(written, plain)
    return _TIMES.sub("*", " ".join(_SPACING.sub(" ", without_fonts(text)).split()))
