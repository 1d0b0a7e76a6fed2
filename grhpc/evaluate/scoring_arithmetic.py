"""Evaluates arithmetic in plain text and LaTeX: on fractions where these say a number exactly, on floats elsewhere.

Does not know: prose, units, equations. Invariant: nothing but arithmetic is evaluated, and all sizes are bounded, so
that no text can run code, take long, or fill the memory.
"""

import math
import re
from fractions import Fraction

Real = Fraction | float  # a float is what no fraction is: a root, a logarithm, a multiple of pi

_DEEPEST = 30
_MOST_BITS = 40_000  # of a fraction; 2,500 factorial has 25,000
_MOST_FACTORIAL = 2500
_MOST_DEGREE = 1000
_BARE = r"\d[\d.]*+(?:\s*+%)?+"
_RANGE = re.compile(rf"{_BARE}\s*-\s*{_BARE}(?:\s*-\s*{_BARE})*|{_BARE}(?:\s*/\s*{_BARE}){{2,}}")  # 5-6, or a date
_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)|(?P<name>\\?[A-Za-z]+)|(?P<sign>[-+*/^(){}\[\]!%_]))"
)
_FUNCTIONS = {"sin": math.sin, "cos": math.cos, "tan": math.tan, "ln": math.log, "exp": math.exp}
_FUNCTIONS |= {"arctan": math.atan, "arcsin": math.asin, "arccos": math.acos}
_CONSTANTS = {"pi": math.pi, "e": math.e}


def evaluate(text: str) -> Real | None:
    """What the whole text comes to; None where it is no arithmetic, has no value, or one that is too large."""
    if _RANGE.fullmatch(text):
        return None
    try:
        reader = _Arithmetic(text)
        value = reader.sum(0)
        return value if reader.done and (isinstance(value, Fraction) or math.isfinite(value)) else None
    except (ValueError, ArithmeticError):
        return None


class _Arithmetic:
    """Recursive descent over tokens; raises ValueError where the text is no arithmetic."""

    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, str]] = []
        at = 0
        text = text.rstrip()
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                raise ValueError(text)
            kind = match.lastgroup or ""
            self._tokens.append((kind, match[kind].lstrip("\\")))
            at = match.end()
        self._at = 0

    @property
    def done(self) -> bool:
        return self._at == len(self._tokens)

    def sum(self, depth: int) -> Real:
        if depth > _DEEPEST:
            raise ValueError("too deep")
        value = self._product(depth)
        while self._peek() in ("+", "-"):
            value = _bounded(value + (self._product(depth) if self._next()[1] == "+" else -self._product(depth)))
        return value

    def _product(self, depth: int) -> Real:
        value, last = self._signed(depth), self._last_kind()
        while True:
            sign = self._peek()
            if sign in ("*", "/"):
                self._next()
                factor = self._signed(depth)
                value = _times(value, factor if sign == "*" else 1 / factor)
            elif self._starts_factor(last):
                value = _times(value, self._power(depth))
            else:
                return value
            last = self._last_kind()

    def _starts_factor(self, last: str) -> bool:
        """Whether a factor follows without a sign: 2\\pi, 3(1 + 4), but neither "2 3" nor the mixed 1\\frac{1}{2}.
        Raises ValueError for 3(4): the bracket may say the number again, or another one."""
        if self.done:
            return False
        kind, word = self._tokens[self._at]
        if kind == "number":
            return False
        if word == "(" and self._tokens[self._at - 1][1] != ")" and self._holds_a_number(self._at + 1):
            raise ValueError(word)
        return word in "({" if kind == "sign" else not (word == "frac" and last == "number")

    def _holds_a_number(self, at: int) -> bool:
        """Whether nothing but a numeral, a fraction, or a percentage stands before the bracket that closes."""
        rest = iter(self._tokens[at:])
        inside = [word for kind, word in iter(lambda: next(rest, ("sign", ")")), ("sign", ")")) if kind != "number"]
        return all(word in ("/", "%", "frac", "{", "}") for word in inside)

    def _signed(self, depth: int) -> Real:
        if self._peek() in ("+", "-"):
            return self._signed(depth + 1) if self._next()[1] == "+" else -self._signed(depth + 1)
        return self._power(depth)

    def _power(self, depth: int) -> Real:
        if depth > _DEEPEST:
            raise ValueError("too deep")
        value = self._atom(depth)
        if self._peek() in ("!", "%"):
            value = _factorial(value) if self._next()[1] == "!" else value / 100
            if self._peek() in ("!", "%"):  # a double factorial, or worse
                raise ValueError(self._peek())
        if self._peek() == "^":
            self._next()
            return _raised(value, self._signed(depth + 1))
        return value

    def _atom(self, depth: int) -> Real:
        kind, word = self._next()
        if kind == "number":
            mantissa, _, exponent = word.lower().partition("e")
            return _times(Fraction(mantissa), _raised(Fraction(10), Fraction(exponent or 0)))
        if kind == "sign" and word in "({[":
            value = self.sum(depth + 1)
            self._expect({"(": ")", "{": "}", "[": "]"}[word])
            return value
        if kind == "name" and word in _CONSTANTS:
            return _CONSTANTS[word]
        if kind == "name":
            return self._function(word, depth + 1)
        raise ValueError(word)

    def _function(self, word: str, depth: int) -> Real:
        if word == "frac":
            return _times(self._argument(depth), 1 / self._argument(depth))
        if word in ("binom", "dbinom"):
            above, below = self._argument(depth), self._argument(depth)
            return _bounded(_factorial(above) / _factorial(below) / _factorial(above - below))
        if word == "sqrt":
            root: Real = Fraction(2)
            if self._peek() == "[":
                root = self._atom(depth)
            return _raised(self._argument(depth), 1 / root)
        if word == "log" and self._peek() == "_":  # without a base it may be any of three
            self._next()
            base = self._argument(depth)
            return math.log(self._only_argument(depth), base)
        if word in _FUNCTIONS:
            power: Real = Fraction(1)
            if self._peek() == "^":
                self._next()
                power = self._signed(depth)
                if power < 0:  # an inverse function, by custom
                    raise ValueError(word)
            return _raised(_FUNCTIONS[word](self._only_argument(depth)), power)
        raise ValueError(word)

    def _only_argument(self, depth: int) -> Real:
        """An argument in round brackets, or one that nothing follows of which it could be a part: not \\sin 2\\pi."""
        bracketed = self._peek() == "("
        value = self._argument(depth)
        if not bracketed and not self.done and self._peek() not in ("+", "-", ")", "}", "]"):
            raise ValueError(self._peek())
        return value

    def _argument(self, depth: int) -> Real:
        """A bracket or one token; \\frac12 is a half."""
        kind, word = self._tokens[self._at] if not self.done else ("", "")
        if kind == "number" and len(word) > 1 and word.isdigit() and self._tokens[self._at - 1][1] == "frac":
            self._tokens[self._at : self._at + 1] = [("number", digit) for digit in word]
        return self._atom(depth)

    def _peek(self) -> str:
        return self._tokens[self._at][1] if not self.done else ""

    def _last_kind(self) -> str:
        return self._tokens[self._at - 1][0]

    def _next(self) -> tuple[str, str]:
        if self.done:
            raise ValueError("the end")
        self._at += 1
        return self._tokens[self._at - 1]

    def _expect(self, sign: str) -> None:
        if self._next()[1] != sign:
            raise ValueError(sign)


def size(value: Real) -> Real:
    return value if value >= 0 else -value


def _factorial(value: Real) -> Fraction:
    if value != int(value) or not 0 <= value <= _MOST_FACTORIAL:
        raise ValueError("no factorial")
    return Fraction(math.factorial(int(value)))


def _times(value: Real, factor: Real) -> Real:
    product = _bounded(value * factor)
    if not product and value and factor:  # too small for a float
        raise ValueError("too small")
    return product


def _raised(value: Real, power: Real) -> Real:
    """A root of a fraction is one where it can be: \\sqrt{4} is 2. Raises ValueError where it would be too large."""
    if isinstance(value, Fraction) and isinstance(power, Fraction):
        if power.denominator == 1:
            if abs(power) * _bits(value) > _MOST_BITS:
                raise ValueError("too large")
            return Fraction(value**power)
        above, below = (_root(part, power.denominator) for part in (value.numerator, value.denominator))
        if below and Fraction(above**power.denominator, below**power.denominator) == value:
            return _raised(Fraction(above, below), Fraction(power.numerator))
    raised = math.pow(value, power)
    if not raised and value:
        raise ValueError("too small")
    return raised


def _root(number: int, degree: int) -> int:
    """The whole number next to the root. Raises ValueError where there is none, or where it would be too large."""
    if degree > _MOST_DEGREE:
        raise ValueError("too large")
    return math.isqrt(number) if degree == 2 else round(math.pow(number, 1 / degree))


def _bits(value: Fraction) -> int:
    return value.numerator.bit_length() + value.denominator.bit_length()


def _bounded(value: Real) -> Real:
    if isinstance(value, Fraction) and _bits(value) > _MOST_BITS:
        raise ValueError("too large")
    return value
