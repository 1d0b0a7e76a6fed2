"""Reads which option a final answer names: by its letter, by its text, or by both in agreement.

Does not know: gold answers, responses. Invariant: a letter is returned only where exactly one option is named; whatever
could mean two, or none, is None, and nothing is guessed.
"""

import re
import unicodedata
from collections.abc import Sequence

from grhpc.answer.rules import exact, plain
from grhpc.evaluate.prompts import LETTERS

_FONT = re.compile(
    r"\\(?:text|textbf|textit|textrm|texttt|textsf|mathrm|mathbf|mathit|mathsf|mathtt|boldsymbol|underline|emph|bf|rm"
    r"|fbox|boxed)\s*\{([^{}]*)\}"
)
_EDGES = " \t\r\n*_`'\"$.,;:!~\u3002\u201c\u201d\u2018\u2019"
_WORD = re.compile(r"[A-Za-z][A-Za-z']*|\S")
_ALONE = re.compile(r"[(\[{<]?\s*([A-Za-z])\s*[)\]}>]?")
_REPEATED = re.compile(r"\b(?:([A-HJ-Z])\1{2,}|(I)I{4,})\b")  # "DDDDD"; up to IIII is a Roman number
_BEFORE = r"(?:(?:options?|choices?|answers?|letters?)\s*:?\s*)?"
_DASH = r"[\u2013\u2014-](?=\s)"
_LETTER_THEN_TEXT = re.compile(
    _BEFORE + rf"(?:[(\[](?P<closed>[A-Z])[)\]]\s*(?:[.:,=]|{_DASH})?|(?P<open>[A-Z])\s*(?:[).:,=]|\s{_DASH}))"
    r"\s*(?P<text>\S.*)",
    re.DOTALL | re.IGNORECASE,
)
_TEXT_THEN_LETTER = re.compile(
    r"(?P<text>.*\S)\s*[,;]?\s*[(\[](?:(?:option|choice|answer|letter)\s+)?(?P<closed>[A-Z])[)\]]",
    re.DOTALL | re.IGNORECASE,
)
_LETTER_IN_FRONT = re.compile(r"(?P<open>[A-Z])\s*\((?P<text>.*)\)", re.DOTALL)
_OTHER_LETTER = re.compile(
    r"[(\[][A-Z][)\]]|(?:^|\band|\bor|\bnor|[,/&+;])\s*[A-Z](?=\s*(?:$|[).:,;]|and\b|or\b|is\b))"
)
_OPTION = re.compile(r"\b(?:option|choice)\s*:?\s*[(\[]?\s*([A-Z])(?![A-Za-z'])|[(\[]\s*([A-Z])\s*[)\]]", re.IGNORECASE)
_NEGATION = re.compile(
    r"\b(?:not|n't|no|nor|neither|except|wrong|incorrect|false|unlike|eliminate|exclude)\b", re.IGNORECASE
)
_CHINESE = re.compile("(?:因此|所以|正确|最终|答案|选项|应该|选择|选|是|为)+")
_AND_WHY = re.compile(
    r"\s*(?:[,;.\u2014]\s*)?\b(?:because|since|as|due to|given that|rather than|instead of|not)\b.*",
    re.DOTALL | re.IGNORECASE,
)
_FILLERS = frozenset(
    """therefore thus so hence i think believe choose pick select guess would say go with it it's its is the that that's
    correct final best right true most likely appropriate accurate answer option choice letter one statement be must
    should definitely probably my clearly in box""".split()
)
_PRONOUN_BEFORE = frozenset("think believe choose pick select guess would say go am".split())
_DEEPEST_LAYOUT = 5
_LONGEST = 2000  # characters: what is longer is no final answer


def read_letter(text: str, options: Sequence[str]) -> str | None:
    """The letter of the one option that `text` names, the first being A; None where it names none, or several."""
    if len(text) > _LONGEST:
        return None
    said = _bare(text)
    if letter := _one(_ALONE.fullmatch(said), len(options)):
        return letter
    by_text = [LETTERS[i] for i, option in enumerate(options) if _same(option, said)]
    if by_text:
        return by_text[0] if len(by_text) == 1 else None
    for pattern in (_LETTER_IN_FRONT, _LETTER_THEN_TEXT, _TEXT_THEN_LETTER):
        match = pattern.fullmatch(said)
        if match is not None and (letter := _with_text(match, options)) is not None:
            return letter or None
    if letter := _only_option(said, len(options)):
        return letter
    said = _REPEATED.sub(lambda match: match[1] or match[2], _AND_WHY.sub("", said, count=1))
    return _among_fillers(said, len(options))


def _bare(text: str) -> str:
    """Without layout: LaTeX's fonts and signs, Markdown's emphasis, full-width forms."""
    text = unicodedata.normalize("NFKC", text).replace("\u3010", "[").replace("\u3011", "]")
    for _ in range(_DEEPEST_LAYOUT):
        text = plain(_FONT.sub(r" \1 ", text))
    return " ".join(re.sub(r"\*\*|__|`", " ", _CHINESE.sub(" ", text)).split()).strip(_EDGES)


def _same(option: str, said: str) -> bool:
    option = _bare(option)
    return bool(option) and exact(option, said)


def _one(match: re.Match[str] | None, num_options: int) -> str | None:
    if match is None:
        return None
    letter = match[1].upper()
    return letter if letter in LETTERS[:num_options] else None


def _with_text(match: re.Match[str], options: Sequence[str]) -> str | None:
    """The letter beside a text; "" where the text is another option's; None where the letter may be none of an option.

    A text that is no option's leaves the letter alone as it is, unless it names further letters.
    """
    groups = match.groupdict()
    letter, text = (groups.get("closed") or groups["open"]).upper(), _bare(groups["text"])
    named = [LETTERS[i] for i, option in enumerate(options) if _same(option, text)]
    if named:
        return letter if letter in named else ""
    if letter not in LETTERS[: len(options)] or match.re is _LETTER_IN_FRONT:
        return None
    return None if _OTHER_LETTER.search(_AND_WHY.sub("", " " + text, count=1).strip()) else letter


def _only_option(said: str, num_options: int) -> str | None:
    """The letter of "... option C ...", where no other is spoken of and nothing is denied."""
    letters = {(match[1] or match[2]).upper() for match in _OPTION.finditer(said)}
    if len(letters) != 1 or _NEGATION.search(said):
        return None
    letter = letters.pop()
    return letter if letter in LETTERS[:num_options] else None


def _among_fillers(said: str, num_options: int) -> str | None:
    """The one letter in a phrase that is otherwise made of words like "the correct answer is"."""
    words = _WORD.findall(said)
    letters = []
    for at, word in enumerate(words):
        following = words[at + 1].lower() if at + 1 < len(words) else ""
        if word == "I" and following in _PRONOUN_BEFORE:
            continue
        if len(word) == 1 and word.isalpha():
            letters.append(word)
        elif word.isalpha() or "'" in word:
            if word.lower() not in _FILLERS:
                return None
        elif word not in "()[]{}:.,!*":
            return None
    if len(letters) != 1 or not letters[0].isupper() and "(" not in words:
        return None
    return letters[0].upper() if letters[0].upper() in LETTERS[:num_options] else None
