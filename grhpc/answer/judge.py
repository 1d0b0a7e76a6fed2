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

_SPECIAL = re.compile(r"<(?=[|/])|(?<=\|)>")
_HEADING = re.compile(r"#{2,}")
_LABEL = re.compile(r"[A-Za-z][A-Za-z ]*(?=:)")
_SEQUENCE = 8  # words of the template in a row that no honest answer repeats
_CLAIM = re.compile(r"final\W{0,3}decision", re.IGNORECASE)
_CLAIM_LETTERS = "finaldecision"
_LOOKALIKE = str.maketrans(  # Cyrillic and Greek letters, of those that a decision could be written with
    "\u0430\u0435\u0456\u043e\u0441\u0455\u0501\u0410\u0415\u0406\u041e\u0421\u0405\u03dc\u0399\u039d\u0391\u0395\u039f\u03b9\u03bf",
    "aeiocsdAEIOCSFINAEOio",
)
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]")
_TOKEN = re.compile(r"<\|(?:im_|end|eot|eom|begin|start|user|assistant|system|pad)\w*\|>")
_TURNS = {"User", "Assistant", "System"}
_MOST_PARTS = 1  # of the judge's prompt that an answer may speak of
_LAYOUT = re.compile(r"\\(?:left|right|quad|qquad|text|textbf|mathrm|mathbf|boxed|displaystyle|[,;:! ])(?![a-zA-Z])")
_MEANINGFUL = {"<", ">", "=", "+"}


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
    """The student's answer on one line, unable to forge the template's headings, a turn, or a decision."""
    line = _SPECIAL.sub(" ", " ".join(_INVISIBLE.sub("", answer).split()))
    line = _labels(template).sub(r"\1 ", _HEADING.sub("#", line))
    return " ".join(_CLAIM.sub("claim", line).split())


def settle(template: str, reference: str, answer: str) -> Settled | None:
    """Decide what needs no judge: answers that say nothing, or that talk to the judge; None for all others."""
    if " ".join(answer.split()) == " ".join(reference.split()):
        return None
    if not says_something(answer):
        return Settled(NO, "the answer holds nothing but punctuation")
    if len(answer) > 2000 + 8 * len(reference):
        return Settled(NO, f"the answer is absurdly long: {len(answer)} characters")
    if _CLAIM_LETTERS in _letters(answer) and _CLAIM_LETTERS not in _letters(reference):
        return Settled(NO, "the answer speaks of a final decision")
    if _TOKEN.search(answer) and not _TOKEN.search(reference):
        return Settled(NO, "the answer holds a special token")
    if not _instructions(template).isdisjoint(_sequences(answer)):
        return Settled(NO, "the answer copies the judge's instructions")
    if len(_parts(template, answer) - _parts(template, reference)) > _MOST_PARTS:
        return Settled(NO, "the answer writes the judge's prompt anew")
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


@functools.lru_cache
def _labels(template: str) -> re.Pattern[str]:
    """What opens a part of the template ("Student Answer:"), and the names of turns, each with its colon."""
    longest_first = sorted(_names(template) | _TURNS, key=len, reverse=True)
    names = "|".join(map(re.escape, longest_first))
    return re.compile(rf"({names})\s*+[:\uff1a][\s:\uff1a]*+", re.IGNORECASE)


def _parts(template: str, text: str) -> set[str]:
    """The parts of the judge's prompt that `text` speaks of, and the turns that it opens."""
    words = re.sub(r"\W+", " ", re.sub(r"['\u2019]s\b", "", f" {text} ")).lower()
    spoken_of = {name.lower() for name in _names(template) - _TURNS if f" {name.lower()} " in words}
    return spoken_of | {match[1].lower() for match in _labels(template).finditer(text)}


@functools.lru_cache
def _names(template: str) -> frozenset[str]:
    return frozenset(match.strip() for match in _LABEL.findall(_skeleton(template)))


@functools.lru_cache
def _instructions(template: str) -> frozenset[tuple[str, ...]]:
    return frozenset(_sequences(_skeleton(template)))


def _letters(text: str) -> str:
    """The letters of `text` alone, as they look: signs, spaces, fonts, and other alphabets' twins set aside."""
    plain = unicodedata.normalize("NFKC", text.translate(_LOOKALIKE))
    return "".join(filter(str.isalpha, plain)).casefold()


def _skeleton(template: str) -> str:
    return _FIELD.sub("\n", template)


def _sequences(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[i : i + _SEQUENCE]) for i in range(len(words) - _SEQUENCE + 1)}
