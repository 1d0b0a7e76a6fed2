"""Reads a number from the text of a final answer: decimals, fractions, powers, roots, pi, a unit after it.

A small reader of arithmetic in plain text and LaTeX. It evaluates nothing but arithmetic on floats, so that no answer
can run code, take long, or fill the memory.

Does not know: what the right answer is. Invariant: takes time linear in the text's length, which is bounded; what is
not wholly understood is None, and never a number.
"""

import math
import re

_LONGEST = 200  # characters
_DEEPEST = 30
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
_WRAPPED = re.compile(r"\\(?:text|mathrm|textrm|operatorname|mathbf|mbox|rm)\s*\{([^{}]*)\}")
_TIMES = re.compile(r"(?<=\d) ?[xX] ?(?=10\s*\^)")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))|(?<=\d) (?=\d{3}(?!\d))")
_EQUALS = re.compile(r"=|\u2248|\\approx|\\simeq|\\sim(?![a-z])")
# What makes "x = 3, x = 5" or "x <= 3" no equation that ends in the one answer.
_NO_EQUATION = re.compile(
    r"[,;<>!\u2260\u2264\u2265\u00b1]|\\(?:not|ne|neq|le|leq|ge|geq|lt|gt|pm)(?![a-z])|\d\s+[A-Za-z]\w*\s*$"
    r"|(?<![A-Za-z\\])(?:or|and|not|nor|if|for|when|where|with|at|but|while|then|to|either)(?![A-Za-z])"
)
_BRACKETED = re.compile(r"\([^()]*\)|\[[^\[\]]*\]|\{[^{}]*\}|(?<=[\d)])!(?=\s)")
_BARE = r"\d[\d.]*\s*%?"
_RANGE = re.compile(rf"{_BARE}\s*-\s*{_BARE}(?:\s*-\s*{_BARE})*|{_BARE}(?:\s*/\s*{_BARE}){{2,}}")  # 5-6, or a date
_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)|(?P<name>\\?[A-Za-z]+)|(?P<sign>[-+*/^(){}\[\]!%_]))"
)
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
    r"|more|less|fewer|at)(?![A-Za-z])",
    re.IGNORECASE,
)
_ANGLED = re.compile(r"\\?(?:arc)?(?:sin|cos|tan)|\\?(?:log|ln|exp)|\\?pi(?![a-z])")  # beside which a degree is no unit
_FUNCTIONS = {"sin": math.sin, "cos": math.cos, "tan": math.tan, "ln": math.log, "exp": math.exp}
_FUNCTIONS |= {"arctan": math.atan, "arcsin": math.asin, "arccos": math.acos}
_CONSTANTS = {"pi": math.pi, "e": math.e}


def read_number(text: str, *, unit: bool = True) -> float | None:
    """The number that the whole text says; None where it says something else. 25% is 0.25; what stands before the last
    equals sign does not count, nor does a unit after the number, which may stand there only if `unit`."""
    if len(text) > _LONGEST:
        return None
    text = _right_side(_THOUSANDS.sub("", _cleaned(text))).lstrip(" ;").rstrip(" .;")
    value = _evaluate(text)
    if value is not None or not unit:
        return value
    match = _UNIT.fullmatch(text)
    if match is None or _NO_UNIT.search(said := text[match.end("value") :]):
        return None
    if ("\u00b0" in said or "deg" in said.lower()) and _ANGLED.search(match["value"]):
        return None
    return _evaluate(match["value"])


def read_numbers(text: str) -> list[float] | None:
    """The numbers of a list, in brackets or not; None where one of them is not a number."""
    text = (
        re.sub(r"\band\b|;", ",", _WRAPPED.sub(r" \1 ", text.replace("\\{", "[").replace("\\}", "]")))
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
        if character == "," and depth <= 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def _right_side(text: str) -> str:
    """What stands after the last equals sign, where what stands before it is one equation; else the whole."""
    *before, last = _EQUALS.split(text)
    for side in before:
        if _NO_EQUATION.search(_BRACKETED.sub(" ", side)):
            return text
    return last


def _cleaned(text: str) -> str:
    text = _SUPERSCRIPT.sub(lambda match: "^{" + match[0].translate(_RAISED) + "}", text)
    for written, plain in _REPLACED:
        text = text.replace(written, plain)
    return _TIMES.sub("*", " ".join(_SPACING.sub(" ", _WRAPPED.sub(r" \1 ", text)).split()))


def _evaluate(text: str) -> float | None:
    if _RANGE.fullmatch(text):
        return None
    try:
        reader = _Arithmetic(text)
        value = reader.sum(0)
        return value if reader.done and math.isfinite(value) else None
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

    def sum(self, depth: int) -> float:
        if depth > _DEEPEST:
            raise ValueError("too deep")
        value = self._product(depth)
        while self._peek() in ("+", "-"):
            value += self._product(depth) if self._next()[1] == "+" else -self._product(depth)
        return value

    def _product(self, depth: int) -> float:
        value, last = self._signed(depth), self._last_kind()
        while True:
            sign = self._peek()
            if sign in ("*", "/"):
                self._next()
                factor = self._signed(depth)
                value = value * factor if sign == "*" else value / factor
            elif self._starts_factor(last):
                value *= self._power(depth)
            else:
                return value
            last = self._last_kind()

    def _starts_factor(self, last: str) -> bool:
        """Whether a factor follows without a sign: 2\\pi, 3(4), but neither "2 3" nor the mixed 1\\frac{1}{2}."""
        if self.done:
            return False
        kind, word = self._tokens[self._at]
        if kind == "number":
            return False
        return word in "({" if kind == "sign" else not (word == "frac" and last == "number")

    def _signed(self, depth: int) -> float:
        if self._peek() in ("+", "-"):
            return self._signed(depth + 1) if self._next()[1] == "+" else -self._signed(depth + 1)
        return self._power(depth)

    def _power(self, depth: int) -> float:
        if depth > _DEEPEST:
            raise ValueError("too deep")
        value = self._atom(depth)
        if self._peek() in ("!", "%"):
            value = _factorial(value) if self._next()[1] == "!" else value / 100
            if self._peek() in ("!", "%"):  # a double factorial, or worse
                raise ValueError(self._peek())
        if self._peek() == "^":
            self._next()
            return math.pow(value, self._signed(depth + 1))
        return value

    def _atom(self, depth: int) -> float:
        kind, word = self._next()
        if kind == "number":
            return float(word)
        if kind == "sign" and word in "({[":
            value = self.sum(depth + 1)
            self._expect({"(": ")", "{": "}", "[": "]"}[word])
            return value
        if kind == "name" and word in _CONSTANTS:
            return _CONSTANTS[word]
        if kind == "name":
            return self._function(word, depth + 1)
        raise ValueError(word)

    def _function(self, word: str, depth: int) -> float:
        if word == "frac":
            return self._argument(depth) / self._argument(depth)
        if word in ("binom", "dbinom"):
            above, below = self._argument(depth), self._argument(depth)
            return _factorial(above) / _factorial(below) / _factorial(above - below)
        if word == "sqrt":
            root = 2.0
            if self._peek() == "[":
                root = self._atom(depth)
            value = self._argument(depth)
            return math.sqrt(value) if root == 2 else math.pow(value, 1 / root)
        if word == "log" and self._peek() == "_":  # without a base it may be any of three
            self._next()
            base = self._argument(depth)
            return math.log(self._only_argument(depth), base)
        if word in _FUNCTIONS:
            power = 1.0
            if self._peek() == "^":
                self._next()
                power = self._signed(depth)
                if power < 0:  # an inverse function, by custom
                    raise ValueError(word)
            return math.pow(_FUNCTIONS[word](self._only_argument(depth)), power)
        raise ValueError(word)

    def _only_argument(self, depth: int) -> float:
        """An argument in round brackets, or one that nothing follows of which it could be a part: not \\sin 2\\pi."""
        bracketed = self._peek() == "("
        value = self._argument(depth)
        if not bracketed and not self.done and self._peek() not in ("+", "-", ")", "}", "]"):
            raise ValueError(self._peek())
        return value

    def _argument(self, depth: int) -> float:
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


def _factorial(value: float) -> float:
    if not value.is_integer() or not 0 <= value <= 170:
        raise ValueError("no factorial")
    return float(math.factorial(int(value)))
