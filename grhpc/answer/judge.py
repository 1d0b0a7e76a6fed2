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
from grhpc.answer.prompt import (
    FIELD,
    FIELDS,
    INVISIBLE,
    as_read,
    judges_itself,
    labels,
    parts,
    says_only_the_prompt,
    skeleton,
    spoken_of,
)
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

_DECISION = re.compile(
    r"(?P<quote>[\"`])?final decision[\s*]*+[:\uff1a][\s*]*+"
    r"(?:\\boxed\s*+\{\s*+(?P<boxed>yes|no)\s*+\}|(?P<bare>yes|no)\b)"
    r"[\s*.!]*+(?(quote)(?P=quote)[\s*.!]*+)(?:(?<=\n)-{3,}+\s*+)?\Z",
    re.IGNORECASE,
)
_TAIL = 200  # characters of the judge's text in which a decision must stand, special tokens and white space included
_QUOTES = tuple("\"'`\u201c\u2018\u00ab")
_ANNOUNCES = (":", "\uff1a", *_QUOTES)  # what follows are another's words

_HEADING = re.compile(r"#(?=#)")
_SEQUENCE = 8  # words of the template in a row that no honest answer repeats
# What opens a special token of any tokenizer: <|im_end|>, <\uff5cUser\uff5c>, </s>, <start_of_turn>, <<SYS>>, [INST].
_OPENS_TOKEN = re.compile(r"<(?=[^\W\d]|[|\uff5c/])|\[(?=/?[^\W\d]{2,}+\])")
_TURN_TOKEN = re.compile(
    r"<\|(?:im_|end|eot|eom|begin|start|user|assistant|system|pad)\w*\|>|<\uff5c[^\s<>]{1,40}\uff5c>"
)
_OF_TOKENS = re.compile(r"\btokens?\b", re.IGNORECASE)
# A decision as it is claimed, however it is spaced out; the words alone are any court's.
_CLAIM = re.compile(
    r"[\W_]*+".join("finaldecision")
    + r"[\W_]*+(?:is[\W_]*+)?(?:"
    + r"[\W_]*+".join("yes")
    + r"(?![^\W\d_])|no(?![\s-]*+[^\W\d_]))",
    re.IGNORECASE,
)
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
    found = FIELD.findall(template)
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
    return FIELD.sub(lambda match: values[match[1]], template)


def harmless(template: str, answer: str) -> str:
    """The student's answer on one line, unable to forge the template's headings, a turn, a special token or a decision.

    A space parts what would be read as one token; the rest stays as it was written.
    """
    line = _HEADING.sub("# ", " ".join(INVISIBLE.sub("", answer).split()))
    line = _CLAIM.sub("claim", labels(template).sub(r"\1 ", line))
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
    named = parts(template, answer)
    if len(named - spoken_of(named, asked) - parts(template, asked)) > _MOST_PARTS:
        return Settled(NO, "the answer writes the judge's prompt anew")
    if says_only_the_prompt(template, question, reference, answer):
        return Settled(NO, "the answer is nothing but words of the judge's prompt")
    if judges_itself(template, question, reference, answer):
        return Settled(NO, "the answer judges itself in the prompt's words")
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
    """YES or NO where `text` ends in "Final Decision: Yes" or "No"; None for anything else. Quotes around it may only
    be the judge's own, who copies them from its instructions: on a line of their own that no colon announces."""
    tail = text[-_TAIL:]
    match = _DECISION.search(tail)
    if match is None:
        return None
    before = text[: len(text) - len(tail) + match.start()].rstrip(" *")
    if match["quote"] and before and not (before.endswith("\n") and not before.rstrip().endswith(_ANNOUNCES)):
        return None
    return None if before.endswith(_QUOTES) else (match["boxed"] or match["bare"]).lower()


def _may_be_a_symbol(question: str, reference: str, answer: str) -> bool:
    """Whether punctuation alone may be the answer: such a reference, or such an option, or the talk is of symbols."""
    sign = "".join(INVISIBLE.sub("", answer).split())
    if not sign:
        return False
    asked = f"{question}\n{reference}"
    listed = sign in reference.split() or sign in options_of(question).values()
    named = _OF_SYMBOLS.search(asked) or (len(reference.split()) <= _FEW and _SYMBOL.search(reference))
    return listed or not says_something(reference) or bool(named)


def _claims(text: str) -> bool:
    """Whether it states a decision, in whatever letters: fonts, and other alphabets' twins, set aside."""
    return _CLAIM.search(as_read(text)) is not None


@functools.lru_cache
def _instructions(template: str) -> frozenset[tuple[str, ...]]:
    return frozenset(_sequences(skeleton(template)))


def _sequences(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[i : i + _SEQUENCE]) for i in range(len(words) - _SEQUENCE + 1)}
