"""Ask a generative verifier: the text of the question to it, and the decision in the text that it answers.

The default template is the raw text that TIGER-Lab/general-verifier was trained with. A student's answer is data: it is
put on one line, and what could be read as a heading, a turn, a special token or a decision is taken out of it.

Does not know: engines, queues, rewards. Invariant: nothing a student writes can add a heading or a decision line to the
question, and a decision counts only where nothing follows it.
"""

import functools
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from grhpc.answer.choice import options_of
from grhpc.answer.units import other_unit
from grhpc.errors import ConfigError

YES, NO = "yes", "no"

GENERAL_VERIFIER = (
    "User: ### Question: {question}\n\n"
    "### Ground Truth Answer: {reference}\n\n"
    "### Student Answer: {answer}\n\n"
    "For the above question, please verify if the student's answer is equivalent to the ground truth answer.\n"
    "Do not solve the question by yourself; "
    "just check if the student's answer is equivalent to the ground truth answer.\n"
    'If the student\'s answer is correct, output "Final Decision: Yes". '
    'If the student\'s answer is incorrect, output "Final Decision: No". Assistant:'
)
CHAT = (  # the same as one user turn, for a model that writes its own; it must not decide before it has reasoned
    GENERAL_VERIFIER.removeprefix("User: ").removesuffix(" Assistant:")
    + "\nGive your reason in a few words first. The decision is the last line of your reply."
)
TEMPLATES = {"general-verifier": GENERAL_VERIFIER, "chat": CHAT}
FIELDS = ("question", "reference", "answer")

_FIELD = re.compile("{(" + "|".join(FIELDS) + ")}")
_DECISION = re.compile(r"final decision\s*+[:\uff1a][\s*]*+(yes|no)\b[\s*.!]*+\Z", re.IGNORECASE)
_TAIL = 200  # characters of the judge's text in which a decision must stand, special tokens and white space included
_QUOTES = "\"'`\u201c\u2018\u00ab"

_HEADING = re.compile(r"#(?=#)")
_LABEL = re.compile(r"[A-Za-z][A-Za-z ]*(?=:)")
_SEQUENCE = 8  # words of the template in a row that no honest answer repeats
# What opens a special token of any tokenizer: <|im_end|>, <\uff5cUser\uff5c>, </s>, <start_of_turn>, <<SYS>>, [INST].
_OPENS_TOKEN = re.compile(r"<(?=[^\W\d]|[|\uff5c/])|\[(?=/?[^\W\d]{2,}+\])")
_TURN_TOKEN = re.compile(
    r"<\|(?:im_|end|eot|eom|begin|start|user|assistant|system|pad)\w*\|>|<\uff5c[^\s<>]{1,40}\uff5c>"
)
_OF_TOKENS = re.compile(r"\btokens?\b", re.IGNORECASE)
# A decision as it is claimed, however it is spaced out; the words alone are any court's.
_CLAIM = re.compile(
    r"[\W_]*+".join("finaldecision") + r"[\W_]*+(?:is[\W_]*+)?(?:" + r"[\W_]*+".join("yes") + r"|no)(?![^\W\d_])",
    re.IGNORECASE,
)
_LOOKALIKE = str.maketrans(  # Cyrillic and Greek letters, of those that a decision could be written with
    "\u0430\u0435\u0456\u043e\u0441\u0455\u0501\u0443\u0410\u0415\u0406\u041e\u0421\u0405\u03dc\u0399\u039d\u0391\u0395\u039f\u03b9\u03bf\u03a5",
    "aeiocsdyAEIOCSFINAEOioY",
)
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]")
_TURNS = {"User", "Assistant", "System"}
_DECIDED = "Final Decision"
_BEGINS = re.compile(r"(?:\A|[\r\n]|[.!?\u3002\uff01\uff1f][\"')\]*]*+[ \t]|#)[ \t*_>#-]*\Z")
_LOOK_BACK = 20  # characters before a turn's name in which a line may begin, or a sentence end
_MOST_PARTS = 1  # of the judge's prompt that an answer may speak of
_LAYOUT = re.compile(r"\\(?:left|right|quad|qquad|text|textbf|mathrm|mathbf|boxed|displaystyle|[,;:! ])(?![a-zA-Z])")
_MEANINGFUL = {"<", ">", "=", "+"}
_FEW = 6  # words of a reference that may be no more than a symbol's name
_OF_SYMBOLS = re.compile(  # a question that asks for one
    r"\b(?:symbols?|signs?|operators?|punctuation|characters?|brackets?|braces?|parenthes[ei]s|delimiters?|separators?"
    r"|regex|empty|null)\b|\\(?:emptyset|varnothing)|\u2205",
    re.IGNORECASE,
)
_SYMBOL = re.compile(  # a reference of few words that names one
    r"\b(?:nil|nothing|void|blank|minus|subtract\w*|dash|hyphen|comma|(?:semi)?colon|period|full stop|decimal point|dot"
    r"|(?:question|exclamation|quotation) mark|apostrophe|quotes?|(?:back)?slash|division|asterisk|star|multipl\w+"
    r"|ampersand|and|or|not|percent|modul\w+|caret|tilde|pipe|bar|hash|at|underscore|ellipsis|dollar)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Settled:
    """A decision made without asking, and why."""

    decision: str
    reason: str


def load_template(name: str) -> str:
    """A template by its name, or the text of a file. Raises ConfigError where a field is missing."""
    if name in TEMPLATES:
        return TEMPLATES[name]
    try:
        template = Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        known = ", ".join(TEMPLATES)
        raise ConfigError(f"verifier.template {name!r} cannot be read: {error}", f"name a file, or: {known}") from None
    found = _FIELD.findall(template)
    if sorted(found) != sorted(FIELDS):
        raise ConfigError(
            f"the template {name} must hold each of {{question}} {{reference}} {{answer}} once", "mend it"
        )
    return template.rstrip("\n")


def render(template: str, question: str, reference: str, answer: str) -> str:
    """The judge's prompt, the student's answer made harmless."""
    return fill(template, question, reference, harmless(template, answer))


def fill(template: str, question: str, reference: str, answer: str) -> str:
    """The template with its own fields replaced, and nothing else: braces in the values are text."""
    values = {"question": question, "reference": reference, "answer": answer}
    return _FIELD.sub(lambda match: values[match[1]], template)


def harmless(template: str, answer: str) -> str:
    """The student's answer on one line, unable to forge the template's headings, a turn, a special token or a decision.

    A space parts what would be read as one token; the rest stays as it was written.
    """
    line = _HEADING.sub("# ", " ".join(_INVISIBLE.sub("", answer).split()))
    line = _CLAIM.sub("claim", _labels(template).sub(r"\1 ", line))
    return " ".join(_OPENS_TOKEN.sub(r"\g<0> ", line).split())


def settle(template: str, question: str, reference: str, answer: str) -> Settled | None:
    """Decide what needs no judge: answers that say nothing, talk to the judge, or have another unit; None for others.

    What the question or the reference speak of themselves is an answer like any other.
    """
    if " ".join(answer.split()) == " ".join(reference.split()):
        return None
    if not says_something(answer) and not _may_be_a_symbol(question, reference, answer):
        return Settled(NO, "the answer holds nothing but punctuation")
    if len(answer) > 2000 + 8 * len(reference):
        return Settled(NO, f"the answer is absurdly long: {len(answer)} characters")
    if _claims(answer) and not _claims(reference):
        return Settled(NO, "the answer claims a final decision")
    asked = f"{question}\n{reference}"
    if _TURN_TOKEN.search(answer) and not _TURN_TOKEN.search(asked) and not _OF_TOKENS.search(asked):
        return Settled(NO, "the answer holds a special token")
    if not (_sequences(answer) - _sequences(reference)).isdisjoint(_instructions(template)):
        return Settled(NO, "the answer copies the judge's instructions")
    parts = _parts(template, answer)
    if len(parts - _spoken_of(parts, asked)) > _MOST_PARTS:
        return Settled(NO, "the answer writes the judge's prompt anew")
    if other_unit(reference, answer):
        return Settled(NO, "the reference's number in another unit")
    return None


def says_something(answer: str) -> bool:
    """Whether the answer has a letter, a digit or a symbol with a meaning, LaTeX layout aside."""
    for character in _LAYOUT.sub("", answer):
        kind = unicodedata.category(character)
        if kind[0] in "LN" or character in _MEANINGFUL or (kind in ("Sm", "So") and not character.isascii()):
            return True
    return False


def read_decision(text: str) -> str | None:
    """YES or NO where `text` ends in "Final Decision: Yes" or "No", unquoted; None for anything else."""
    match = _DECISION.search(text[-_TAIL:])
    if match is None:
        return None
    before = text[-_TAIL:][: match.start()].rstrip(" *")
    return None if before.endswith(tuple(_QUOTES)) else match[1].lower()


def _may_be_a_symbol(question: str, reference: str, answer: str) -> bool:
    """Whether punctuation alone may be the answer: such a reference, or such an option, or the talk is of symbols."""
    sign = "".join(_INVISIBLE.sub("", answer).split())
    if not sign:
        return False
    asked = f"{question}\n{reference}"
    listed = sign in reference.split() or sign in options_of(question).values()
    named = _OF_SYMBOLS.search(asked) or (len(reference.split()) <= _FEW and _SYMBOL.search(reference))
    return listed or not says_something(reference) or bool(named)


def _claims(text: str) -> bool:
    """Whether it states a decision, in whatever letters: fonts, and other alphabets' twins, set aside."""
    return _CLAIM.search(unicodedata.normalize("NFKC", _INVISIBLE.sub("", text.translate(_LOOKALIKE)))) is not None


@functools.lru_cache
def _labels(template: str) -> re.Pattern[str]:
    """What opens a part of the template ("Student Answer:"), and the names of turns, each with its colon.

    Not the end of a longer word ("ecosystem:"), but "6User:", and "plumsUser:" too.
    """
    names = "|".join(map(re.escape, sorted(_names(template) | _TURNS | {_DECIDED}, key=len, reverse=True)))
    return re.compile(rf"((?:(?<![^\W\d_])|(?<![A-Z])(?=[A-Z]))(?i:{names}))\s*+[:\uff1a][\s:\uff1a]*+")


def _parts(template: str, text: str) -> set[str]:
    """The parts of the judge's prompt in `text`: those it names in several words or with a colon, and the turns that
    it opens, where a line or a sentence begins."""
    several = {name.lower() for name in _names(template) - _TURNS if " " in name}
    turns = {turn.lower() for turn in _TURNS}
    found = _spoken_of(several, text)
    for match in _labels(template).finditer(text):
        before = text[max(0, match.start() - _LOOK_BACK) : match.start()]
        if match[1].lower() not in turns or _BEGINS.search(before):
            found.add(match[1].lower())
    return found - {_DECIDED.lower()}


def _spoken_of(names: set[str], text: str) -> set[str]:
    words = re.sub(r"\W+", " ", re.sub(r"['\u2019]s\b", "", f" {text} ")).lower()
    return {name for name in names if f" {name} " in words}


@functools.lru_cache
def _names(template: str) -> frozenset[str]:
    return frozenset(match.strip() for match in _LABEL.findall(_skeleton(template)))


@functools.lru_cache
def _instructions(template: str) -> frozenset[tuple[str, ...]]:
    return frozenset(_sequences(_skeleton(template)))


def _skeleton(template: str) -> str:
    return _FIELD.sub("\n", template)


def _sequences(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[i : i + _SEQUENCE]) for i in range(len(words) - _SEQUENCE + 1)}
