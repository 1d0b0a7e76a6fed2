"""Reads which option a final answer names: by its letter, by its text, or by both in agreement.

Does not know: gold answers, responses. Invariant: a letter is returned only where exactly one option is named; whatever
could mean two, or none, is None, and nothing is guessed.
"""

import functools
import re
import unicodedata
from collections.abc import Sequence

from grhpc.answer.rules import exact, plain, with_scripts
from grhpc.evaluate.prompts import LETTERS
from grhpc.evaluate.scoring_arithmetic import Real
from grhpc.evaluate.scoring_layout import without_alphabets, without_fonts
from grhpc.evaluate.scoring_number import read_number

_SPACE = re.compile(r"\\q?quad(?![A-Za-z])|\\+(?=\s|\Z)|(?<=[\w)}])~(?=[\w\\])")
_EDGES = " \t\r\n*_`'\"$.,;:!\u3002\u201c\u201d\u2018\u2019"
_FULL_WIDTH = str.maketrans("\u3010\u3011\u3001", "[],")
_WORD = re.compile(r"[A-Za-z][A-Za-z']*|\S")
_ALONE = re.compile(r"(?:(?:option|choice|answer|letter)\s*[:=]\s*)?[(\[{<]?\s*([A-Z])\s*[)\]}>]?", re.IGNORECASE)
_REPEATED = re.compile(r"\b(?:([A-HJ-Z])\1{2,}|(I)I{4,})\b")  # "DDDDD"; up to IIII is a Roman number
_BEFORE = r"(?:(?:options?|choices?|answers?|letters?)\s*:?\s*)?"
_DASH = r"[\u2013\u2014-](?=\s)"
_LETTER_THEN_TEXT = re.compile(
    _BEFORE + rf"(?:[(\[](?P<closed>[A-Z])[)\]]\s*(?:[.:,=]|{_DASH})?|(?P<open>[A-Z])\s*(?:[).:,]|(?P<is>=)|\s{_DASH}))"
    r"\s*(?P<text>\S.*)",
    re.DOTALL | re.IGNORECASE,
)
_TEXT_THEN_LETTER = re.compile(
    r"(?P<text>.*\S)(?P<gap>\s*[,;]?\s*)[(\[](?:(?:option|choice|answer|letter)\s+)?(?P<closed>[A-Z])[)\]]",
    re.DOTALL | re.IGNORECASE,
)
_LETTER_IN_FRONT = re.compile(r"(?P<open>[A-Z])\s*\((?P<text>.*)\)", re.DOTALL)
_FUNCTION = re.compile(r"\\[A-Za-z]+|[A-Za-z]")
_LETTER_AND_WORDS = re.compile(r"(?P<open>[A-Z]) \((?P<text>[^()]*(?<![\\\w])[^\W\d_]{3,}[^()]*)\)")
_ARROW = r"[=-]?>|\u2192|\u21d2|\\(?:long)?(?:right|Right)arrow(?![A-Za-z])|\\to(?![A-Za-z])"
_TO_TEXT = re.compile(rf"(?P<open>[A-Z])\s*(?:{_ARROW}|/)\s*(?P<text>\S.*)", re.DOTALL)
_TO_LETTER = re.compile(rf"(?P<text>.*\S)\s*(?:{_ARROW}|[,;:/]|[\u2013\u2014-](?=\s))\s*(?P<open>[A-Z])", re.DOTALL)
_OTHER_LETTER = re.compile(
    r"(?<![\w}\\])[(\[]([A-Z])[)\]]|(?:^|\band|\bor|\bnor|\bbut|[,/&+;])\s*([A-Z])(?=\s*(?:$|[().:,;]|and\b|or\b|is\b))"
    r"|\b(?:[Oo]ptions?|[Cc]hoices?)\s+([A-Z])\b"
)
_OTHER_OF_ANY_CASE = re.compile(_OTHER_LETTER.pattern, re.IGNORECASE)
_ROMAN = re.compile(r"\b(?:II|III|IV|VI)\b")  # beside which I is a one
_OPTION = re.compile(
    r"\b(?:option|choice)\s*:?\s*[(\[]?\s*([A-Z])(?![A-Za-z'])|(?<![\w}\\])[(\[]\s*([A-Z])\s*[)\]]", re.IGNORECASE
)
_DOUBT = re.compile(
    r"\b(?:not|cannot|never|no|none|nor|neither|except|excepting|excluding|excludes?|excluded|besides|but|unlike|wrong|"
    r"incorrect|false|untrue|invalid|impossible|implausible|unlikely|eliminat\w*|reject\w*|ruled?|avoid|rather than|"
    r"other than|instead of|unsure|uncertain|unclear|doubt\w*|maybe|perhaps|possibly|possible|might|could|may|either|"
    r"also|alternatively|otherwise|fails|lacks|contradicts|discard|dismiss|refute|disprove|worse)\b"
    r"|n['\u2019]t\b|[\u2716-\u2718\u274c]|^or\b|\b(?:or|and|than|(?:opposite|contrary|reverse) (?:of|to))$",
    re.IGNORECASE,
)
# What may stand between a letter and what is said of it: "(A) is definitely the wrong one", "A, however, fails".
_OF_IT = re.compile(
    r"(?:[\s,;:.\u2014-]|\b(?:is|are|was|be|been|being|to|can|will|would|must|should|has|have|does|do|did|seems?|looks?"
    r"|appears?|sounds?|the|an|a|of|definitely|clearly|certainly|probably|really|simply|however|then|also)\b"
    r"|\b\w+(?=n['\u2019]t\b))*+"
)
_JOINS = re.compile(r"[\s,;.]*(?:or|and|but|nor)\b", re.IGNORECASE)
_NOT_ANOTHER = re.compile(
    r"\s*[,;\u2014-]\s*not\b(?!\s+(?:correct|right|true|valid|it|the|an?|sure|possible|likely)\b)"
)
_TAKEN_BACK = re.compile(
    r"(?:^|[.,;!?\u2014]\s*)(?:but\s+|or\s+)?(?:(?:wait|no|maybe|perhaps)\b(?!\s+[a-z])|not sure|unsure"
    r"|(?:it|this|that)(?:['\u2019]s| is|(?= isn))\s+(?:(?:not|isn['\u2019]t) (?:correct|right|true|it\b|the answer)"
    r"|wrong|incorrect|false))",
    re.IGNORECASE,
)
_DENIED = re.compile(
    r"\b(?:not(?! only)|cannot|never|neither|nor|wrong|incorrect|false|untrue|invalid|impossible|fails|contradicts"
    r"|lacks|excluded|eliminated|rejected|ruled out)\b|n['\u2019]t\b",
    re.IGNORECASE,
)
_AMONG = re.compile(r"\b(?:and|or)\b", re.IGNORECASE)
_CHINESE = re.compile("(?:因此|所以|故|正确|最终|答案|选项|应该|应|选择|选|是|为|项)+")
_TICKED = re.compile("\\\\checkmark(?![A-Za-z])|[\u2611\u2705\u2713\u2714]\ufe0f?")
_AND_WHY = re.compile(
    r"(?<=\S)\s*(?:[,;.\u2014]\s*)?\b(?:(?:because|since|as(?! well| an alternative)|due to|given that|rather than"
    r"|instead of)\b|not (?=(?:(?:option|choice) )?[(\[]?[A-Z]\b(?! ))).*",
    re.DOTALL | re.IGNORECASE,
)
_FILLERS = frozenset(
    """therefore thus so hence i think believe choose pick select guess would say go with it it's its is the that that's
    correct final best right true most likely appropriate accurate answer option choice letter one statement be must
    should definitely probably my clearly in box indeed just simply""".split()
)
# What may follow "option C" where that is the answer; another predicate may deny it: "Option A misses the point".
_HOLDS = frozenset("holds fits works applies matches follows stands here only and".split())
_DESCRIBES = re.compile(
    r"\W*[.,:;(\u2014-]|\W*(?:with|which|that|where|of|for|in|from|on)\b|.*\b(?:best|correct|right|most)\b", re.DOTALL
)
_LONG_WORD = re.compile(r"[^\W\d_]{4,}")
_DEEPEST_LAYOUT = 5
_EQUATION = re.compile(r"[=\u2248]|\\(?:approx|sim)")
_REMEMBERED = 512  # texts, most of them options
_LONGEST = 2000  # characters: what is longer is no final answer


def read_letter(text: str, options: Sequence[str]) -> str | None:
    """The letter of the one option that `text` names, the first being A; None where it names none, or several."""
    if len(text) > _LONGEST:
        return None
    return _read(text, options) or _read(without_alphabets(text), options)  # \\mathcal{B} may be an option's text


def _read(text: str, options: Sequence[str]) -> str | None:
    whole = _bare(text)
    said = _AND_WHY.sub("", whole, count=1).strip(_EDGES)
    for form in dict.fromkeys((whole, said)):  # the text of an option may itself say why
        letter = _quoted(form, options)
        if letter is not None:
            return letter or None
    for pattern in (_LETTER_THEN_TEXT, _TEXT_THEN_LETTER, _LETTER_AND_WORDS):
        match = pattern.fullmatch(said)
        if match is not None and (letter := _beside(match, options)) is not None:
            return letter
    return (
        _only_option(said, options)
        or _only_option(whole, options)
        or _among_fillers(_REPEATED.sub(lambda match: match[1] or match[2], said), len(options))
    )


@functools.lru_cache(_REMEMBERED)
def _bare(text: str) -> str:
    """Without layout: LaTeX's fonts and signs, Markdown's emphasis, full-width forms, ticks."""
    text = unicodedata.normalize("NFKC", with_scripts(_TICKED.sub(" ", text))).translate(_FULL_WIDTH)
    for _ in range(_DEEPEST_LAYOUT):
        text = plain(without_fonts(_SPACE.sub(" ", text)))
    return (
        " ".join(re.sub(r"\*\*|__|`", " ", _CHINESE.sub(" ", text)).split())
        .lstrip(_EDGES.translate({ord("."): None, ord("!"): None}))
        .rstrip(_EDGES)
    )


def _same(option: str, said: str) -> bool:
    option = _bare(option)
    return bool(option) and exact(option, said)


def _one(match: re.Match[str] | None, num_options: int) -> str | None:
    if match is None:
        return None
    letter = match[1].upper()
    return letter if letter in LETTERS[:num_options] else None


def _quoted(said: str, options: Sequence[str]) -> str | None:
    """The letter of a letter alone, of an option's text, or of both; "" where they contradict, None for other words."""
    if letter := _one(_ALONE.fullmatch(said), len(options)):
        return letter
    if named := _named(said, options):
        return named[0] if len(named) == 1 else ""
    for pattern in (_LETTER_IN_FRONT, _LETTER_THEN_TEXT, _TEXT_THEN_LETTER, _TO_TEXT, _TO_LETTER):
        match = pattern.fullmatch(said)
        if match is None:
            continue
        letter, text = _letter_of(match), _bare(match["text"])
        if match.groupdict().get("gap") and len(with_unit := _named(f"{text} {match['closed']}", options)) == 1:
            return with_unit[0]  # of "10 (J)" the 10 J
        if named := _named(text, options):
            if letter not in named and match.groupdict().get("is") and len(named) == 1:  # of "F = 10 N" the 10 N
                return named[0]
            return letter if letter in named else ""
    return None


def _named(text: str, options: Sequence[str]) -> list[str]:
    """The letters of the options with this text, or else of those that are the same number: .5 is 1/2."""
    named = [LETTERS[i] for i, option in enumerate(options) if _same(option, text)]
    number = None if named or _EQUATION.search(text) else _number(text)
    return named if number is None else [LETTERS[i] for i, option in enumerate(options) if _number(option) == number]


@functools.lru_cache(_REMEMBERED)
def _number(text: str) -> Real | None:
    return None if "%" in text else read_number(_bare(text), unit=False)


def _letter_of(match: re.Match[str]) -> str:
    groups = match.groupdict()
    return (groups.get("closed") or groups["open"]).upper()


def _beside(match: re.Match[str], options: Sequence[str]) -> str | None:
    """The letter beside a text that is no option's: as it is, unless the text denies it, doubts it, or names others.
    E = mc^2 and f(C) name none."""
    letter, text, groups = _letter_of(match), _bare(match["text"]), match.groupdict()
    if letter not in LETTERS[: len(options)] or groups.get("is") or groups.get("gap") == "":
        return None
    if "gap" in groups and _FUNCTION.fullmatch(text):
        return None
    others = {other for part in _AMONG.split(text) for other in _named(part.strip(_EDGES), options)} - {letter}
    option = options[LETTERS.index(letter)]
    if others or _other_letters(text, groups.get("closed") or groups["open"], option, len(options)):
        return None
    of_it = text if "gap" in groups else _said_of_it(text, _bare(option))
    return None if _doubted(of_it, option) or _TAKEN_BACK.search(text) else letter


def _other_letters(text: str, letter: str, option: str, num_options: int) -> bool:
    """Whether another option is spoken of by its letter, and not only to say that it is wrong, or because the option
    itself does: "(D) both (B) and (C)"."""
    own = set(re.findall(r"\b[A-Z]\b", _bare(option)))
    pattern = _OTHER_OF_ANY_CASE if letter.islower() else _OTHER_LETTER
    for sentence in re.split(r"[.;!?]\s", text):
        found = {(match[1] or match[2] or match[3]).upper() for match in pattern.finditer(sentence)}
        found &= set(LETTERS[:num_options]) - {letter.upper()} - ({"I"} if _ROMAN.search(text) else set())
        if found and found != own and (_DENIED.search(sentence) is None or _JOINS.match(sentence)):
            return True
    return False


def _said_of_it(text: str, option: str) -> str:
    """Of a text after a letter what is said of the letter itself, at its beginning or after the option's text; ""
    where something else is spoken of: "(D), x is not smaller than 3"."""
    quotes = bool(option) and text.lower().startswith(option.lower())
    rest = text[len(option) :] if quotes else text
    if quotes and _NOT_ANOTHER.match(rest):
        return ""
    between = _OF_IT.match(rest)
    return rest if _JOINS.match(rest) or _DOUBT.match(rest, between.end() if between else 0) else ""


def _doubted(text: str, option: str) -> bool:
    """Whether a word of doubt stands in the text, and not only because it quotes the option, whose word it is."""
    doubts, told = ({match.lower() for match in _DOUBT.findall(t)} for t in (text, _bare(option)))
    shared = set(_LONG_WORD.findall(text.lower())) & set(_LONG_WORD.findall(_bare(option).lower()))
    own = any(word in ("none", "neither") or not _DOUBT.fullmatch(word) for word in shared)
    return bool(doubts) and not (doubts <= told and own)


def _only_option(said: str, options: Sequence[str]) -> str | None:
    """The letter of "... option C ...", where no other is spoken of and nothing is denied or doubted."""
    written = "".join(match[1] or match[2] for match in _OPTION.finditer(said))
    letters, around = set(written.upper()), _OPTION.sub(" ", said).strip(_EDGES)
    other = _OTHER_LETTER if written.isupper() else _OTHER_OF_ANY_CASE
    if len(letters) != 1 or other.search(around) or _DOUBT.search(around) or _FUNCTION.fullmatch(around):
        return None
    after = said[[match.end() for match in _OPTION.finditer(said)][-1] :]
    if set(re.findall(r"[a-z']+", after.lower())) - _FILLERS - _HOLDS and not _DESCRIBES.match(after):
        return None
    letter = letters.pop()
    others = {other for part in _AMONG.split(around) for other in _named(part.strip(_EDGES), options)} - {letter}
    return letter if letter in LETTERS[: len(options)] and not others else None


def _among_fillers(said: str, num_options: int) -> str | None:
    """The one letter in a phrase that is otherwise made of words like "the correct answer is"."""
    words = _WORD.findall(said)
    letters = []
    for at, word in enumerate(words):
        following = words[at + 1].lower() if at + 1 < len(words) else ""
        if word in ("A", "I") and re.fullmatch(r"(?!(?:is|with)$)[a-z]{2,}", following):  # an article, a pronoun
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
