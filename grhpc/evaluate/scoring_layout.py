r"""Takes LaTeX's fonts, sizes, colours and escapes off an answer: \textbf{B}, {\rm B}, \mathbf B, \color{red}{B} are B.

Does not know: what an answer says. Invariant: takes time linear in the text; only layout goes, and where it stood is a
space.
"""

import re

_BRACED = (
    "text(?:bf|it|rm|tt|sf|sc|up|normal)?|math(?:rm|bf|it|sf|tt|normal)|boldsymbol|bm|pmb|underline|emph|[mhf]box|boxed"
    "|operatorname"
)
_SWITCHES = "rm|bf|it|sf|tt|sc|em|bfseries|itshape|tiny|small|normalsize|large|Large|LARGE|huge|Huge|displaystyle"
_FONT = re.compile(rf"\\(?:{_BRACED}|{_SWITCHES})\s*+\{{((?:[^{{}}]|\{{[^{{}}]*\}})*+)\}}")
_OPEN = re.compile(rf"\\(?:{_BRACED}|{_SWITCHES})(?![A-Za-z])(?!\s*\{{)")
_COLOUR = re.compile(r"\\(?:text)?color\s*\{[^{}]*\}")
# A name with its argument: P(A), rank(A), but no unit before an option, "12\\,\\mathrm{cm}(B)".
_FUNCTION = re.compile(rf"(?<![\d\s,;}}])\\(?:{_BRACED})\s*\{{\s*([A-Za-z]+)\s*\}}(?=[(\[])")
_ALPHABET = re.compile(r"\\(?:math(?:cal|bb|frak|scr)|cal|Bbb|frak)(?![A-Za-z])\s*(?:\{([^{}]*)\})?")
_ESCAPED = re.compile(r"\\([%$&#_])")
_DEEPEST = 5


def without_fonts(text: str) -> str:
    r"""`text` without fonts, as deep as five, and escapes; \mathrm{P}(A) stays P(A), 25\% is 25%."""
    text = _FUNCTION.sub(r" \1", _COLOUR.sub(" ", text))
    for _ in range(_DEEPEST):
        text, num_found = _FONT.subn(r" \1 ", text)
        if not num_found:
            break
    return _ESCAPED.sub(r"\1", _OPEN.sub(" ", text))


def without_alphabets(text: str) -> str:
    r"""`text` without the alphabets that tell one symbol from another: \mathcal{B} is B."""
    return _ALPHABET.sub(r"\1", text)
