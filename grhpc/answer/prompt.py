"""The judge's prompt as an answer may speak of it: its parts by their names, and answers that hold nothing else.

Does not know: judges, decisions. Invariant: a word that the reference has too is an answer's own, not talk of the
prompt.
"""

import functools
import re
import unicodedata
from collections.abc import Collection

from grhpc.answer.choice import options_of
from grhpc.answer.rules import plain

FIELDS = ("question", "reference", "answer")
FIELD = re.compile("{(" + "|".join(FIELDS) + ")}")
TURNS = {"User", "Assistant", "System"}
DECIDED = "Final Decision"
INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]")

_LOOKALIKE = str.maketrans(  # Cyrillic and Greek letters, of those that a decision could be written with
    "\u0430\u0435\u0456\u043e\u0441\u0455\u0501\u0443\u0410\u0415\u0406\u041e\u0421\u0405\u03dc\u0399\u039d\u0391\u0395\u039f\u03b9\u03bf\u03a5",
    "aeiocsdyAEIOCSFINAEOioY",
)
_LABEL = re.compile(r"[A-Za-z][A-Za-z ]*(?=:)")
_LABEL_OF = re.compile(r"([A-Za-z][A-Za-z ]*):\s*\{(" + "|".join(FIELDS) + r")\}")
_BEGINS = re.compile(r"(?:\A|[\r\n]|[.!?\u3002\uff01\uff1f][\"')\]*]*+[ \t]|#)[ \t*_>#-]*\Z")
_LOOK_BACK = 20  # characters before a turn's name in which a line may begin, or a sentence end

# What an answer names the reference by, in whatever template: no answer in words but these means anything else.
_POINTERS = frozenset(
    ("ground truth", "reference answer", "reference solution", "answer key", "expected answer", "standard answer")
    + ("gold answer", "model answer", "correct answer above", "see above", "as above", "same as above", "see reference")
    + ("same as reference", "see the reference", "as the reference", "to the reference", "of the reference")
)
_USUAL = {"reference": ("ground truth", "reference answer"), "answer": ("student answer",)}
_TALK = frozenset(
    "reference ground truth gold golden standard expected model key answer answers solution student students".split()
)
_EMPTY = frozenset(
    "the a an is are was be it its as to of in at by for from with and or this that my your both i so".split()
)
_SAME = frozenset(
    "same identical equal equals equivalent copy see above before earlier given provided stated shown written match"
    " matches ditto right correct correctly yes true exactly just like refer check look whatever said says".split()
)
_VERDICTS = frozenset(
    "right wrong correct incorrect equivalent identical equal equals same match matches matching accepted".split()
)


_CLAUSE = re.compile(r"[.;?!](?=\s|\Z)|\n")


def as_read(text: str) -> str:
    """The text as it reads: without what nobody sees, in plain letters, other alphabets' twins set aside."""
    return unicodedata.normalize("NFKC", INVISIBLE.sub("", text.translate(_LOOKALIKE)))


@functools.lru_cache
def names(template: str) -> frozenset[str]:
    """What the template calls its parts."""
    return frozenset(match.strip() for match in _LABEL.findall(skeleton(template)))


def skeleton(template: str) -> str:
    return FIELD.sub("\n", template)


@functools.lru_cache
def labels(template: str) -> re.Pattern[str]:
    """What opens a part of the template ("Student Answer:"), and the names of turns, each with its colon.

    Not the end of a longer word ("ecosystem:"), but "6User:", and "plumsUser:" too.
    """
    known = "|".join(map(re.escape, sorted(names(template) | TURNS | {DECIDED}, key=len, reverse=True)))
    return re.compile(rf"((?:(?<![^\W\d_])|(?<![A-Z])(?=[A-Z]))(?i:{known}))\s*+[:\uff1a][\s:\uff1a]*+")


def parts(template: str, text: str) -> set[str]:
    """The parts of the judge's prompt in `text`: those it names in several words, the template's or usual ones, or with
    a colon, and the turns that it opens, where a line or a sentence begins."""
    several = {name.lower() for name in names(template) - TURNS if " " in name}
    turns = {turn.lower() for turn in TURNS}
    found = spoken_of(several, text)
    found |= {called_in(template)[field] or field for field, usual in _USUAL.items() if spoken_of(usual, text)}
    for match in labels(template).finditer(text):
        before = text[max(0, match.start() - _LOOK_BACK) : match.start()]
        if match[1].lower() not in turns or _BEGINS.search(before):
            found.add(match[1].lower())
    return found - {DECIDED.lower()}


def spoken_of(wanted: Collection[str], text: str) -> set[str]:
    """Which of some names in small letters stand in `text`, as words of their own."""
    words = f" {' '.join(_words(text))} "
    return {name for name in wanted if f" {name} " in words}


def says_only_the_prompt(template: str, question: str, reference: str, answer: str) -> bool:
    """Whether the answer is nothing but words of the prompt, or of likeness to it: "Ground Truth Answer", "same as the
    reference", "student". In place of a reference with a number that is no answer; in place of one in words it is none
    where it names the reference (a "student" may be the pupil that was asked for)."""
    words = _words(plain(as_read(answer)))
    own = _TALK.union(*(name.lower().split() for name in names(template)))
    told = set(words) & (own | _SAME)
    if not set(words) <= own | _SAME | _EMPTY:
        return False
    if (told | _TALK) & {*_words(reference), *_words(" ".join(options_of(question).values()))}:
        return False
    called = called_in(template)
    phrases = _POINTERS | {called["reference"]} | {name for name in called.values() if " " in name}
    if spoken_of(phrases, " ".join(words)):
        return True
    return bool(told & own) and any(character.isdigit() for character in reference)


def judges_itself(template: str, question: str, reference: str, answer: str) -> bool:
    """Whether the answer speaks of the prompt's reference or answer, by the template's own name, and says that it is
    right, or says the same twice: "student 5 right", "5; student 5"; where neither the question nor the reference
    speaks so."""
    text, asked = plain(as_read(answer)), f"{question}\n{reference}"
    called = {called_in(template)[field] for field in ("reference", "answer")} - {""}
    named = spoken_of(called, text)
    if not named - spoken_of(named, asked):
        return False
    clauses = [clause for clause in _CLAUSE.split(text) if _speaks_of(named, clause)]
    if verdicts := _VERDICTS & set(_words(" ".join(clauses))):
        return not verdicts & set(_words(asked))
    aside = _EMPTY.union(_VERDICTS, *(name.split() for name in named))
    said = [word for word in _words(text) if word not in aside]
    half = len(said) // 2
    return half > 0 and said[:half] == said[half:]


def _speaks_of(named: set[str], clause: str) -> bool:
    """In several words, or in a single one as of something known: not "a reference to", nor "students"."""
    several = {name for name in named if " " in name}
    known = "|".join(map(re.escape, sorted(named - several)))
    single = known and re.search(
        rf"(?i)(?:^|[:,=(]|\b(?:the|my|this|and))\s*(?:{known})\b(?!\s(?:to|for|of)\b)", clause
    )
    return bool(single or spoken_of(several, clause))


@functools.lru_cache
def called_in(template: str) -> dict[str, str]:
    """What the template calls each field, in small letters; "" where it has no name for it."""
    return dict.fromkeys(FIELDS, "") | {field: label.strip().lower() for label, field in _LABEL_OF.findall(template)}


def _words(text: str) -> list[str]:
    return re.sub(r"[\W_]+", " ", re.sub(r"['\u2019]s\b", "", text)).lower().split()
