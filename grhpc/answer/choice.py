"""Multiple choice: a letter against a letter or an option's text, with the options as the question lists them.

    What is 2 + 3? (A) 4 (B) 5 (C) 6      reference "B", answer "5": both name option B

Options are read in one style of label, "(A)", "[A]", "A)", "A." or "A:", upper or lower case, each on its line or all
on one; they begin with A and leave no letter out.

Does not know: models, rewards. Invariant: a pair is settled only where both sides name exactly one option each;
whatever could be read in two ways is left to others.
"""

import itertools
import re
from collections.abc import Iterator

from grhpc.answer.rules import exact, plain

_LATEX_LABEL = re.compile(r"\\(?:textbf|text|mathrm|mathbf|rm|bf)\s*+\{\s*+(\([A-Za-z]\)|[A-Za-z][.)])\s*+\}")
_QUAD = re.compile(r"\\q?quad(?![a-z])")
_LABEL = re.compile(
    r"(?:(?P<line>^[ \t>*\-\u2022]*+)|(?<![^\s$]))\*{0,2}"
    r"(?:\((?P<round>[A-Za-z])\)|\[(?P<square>[A-Za-z])\]|(?P<bare>[A-Za-z])(?P<mark>[).:](?=[\s*$]))):?\*{0,2}",
    re.MULTILINE,
)
_LETTER = re.compile(r"(?P<open>[(\[]?)(?P<letter>[A-Za-z])(?P<close>[)\]]?)[.:]?")
_SAID = re.compile(
    r"(?:(?:the\s++)?(?:(?:correct|final|best|right)\s++)?(?:answer|option|choice)(?:\s++is)?\s*+:?\s*+)+"
    r"[(\[]?(?P<letter>[A-Za-z])[)\]]?\s*+(?:is\s++(?:correct|right))?\.?",
    re.IGNORECASE,
)
_LETTER_AND_TEXT = re.compile(
    r"(?:[(\[](?P<closed>[A-Za-z])[)\]][.:]?|(?P<open>[A-Za-z])[).:])\s*+(?P<text>\S.*)", re.DOTALL
)
_BEFORE = re.compile(r"^(?:\\[ ,;:!]|[\s~$*:])++")
_AFTER = re.compile(
    r"(?<![\s~$*,;.])(?<!\\[:!])(?:\\[ ,;:!]|[\s~$*,;.])++$"
)  # from where the run begins, and only there
_LONGEST = 1000  # characters: an answer longer than this names no option
_FEWEST = {True: 2, False: 3}  # by whether the labels can hardly be anything else: capitals, and set off


def same_choice(question: str, reference: str, answer: str) -> bool | None:
    """Whether both name the same option; None where there are no options, or either side may mean none, or two."""
    options = options_of(question)
    if not options or len(answer) > _LONGEST:
        return None
    wanted, given = _named(reference, options), _named(answer, options)
    if wanted is None or given is None:
        return None
    if wanted != given and exact(options[wanted], options[given]):
        return None
    return wanted == given


def options_of(question: str) -> dict[str, str]:
    """The options' texts by their labels, as they are written; {} where no list, or more than one, can be read."""
    question = _QUAD.sub(" ", _LATEX_LABEL.sub(r" \1 ", question))
    lists: list[dict[str, str]] = []
    labels = [(_style(match), match) for match in _LABEL.finditer(question)]
    for style in dict.fromkeys(style for style, _ in labels):
        found = [match for s, match in labels if s == style]
        letters = [_letter(match) for match in found]
        for first, last in _runs(letters):
            run = found[first:last]
            sure = style[0] in "([" or all(match["line"] is not None for match in run)
            if last - first >= _FEWEST[sure and style[1]]:
                if last - first != len(found):
                    return {}
                lists.append(dict(zip(letters, _texts(question, run), strict=True)))
    return lists[0] if len(lists) == 1 else {}


def _style(match: re.Match[str]) -> tuple[str, bool]:
    mark = "(" if match["round"] else "[" if match["square"] else match["mark"]
    return mark, _letter(match).isupper()


def _letter(match: re.Match[str]) -> str:
    return match["round"] or match["square"] or match["bare"]


def _runs(letters: list[str]) -> Iterator[tuple[int, int]]:
    """Where letters count up from A without a gap."""
    start = None
    for at, letter in enumerate([*letters, ""]):
        if start is not None and letter and ord(letter) == ord(letters[start]) + at - start:
            continue
        if start is not None:
            yield start, at
        start = at if letter in ("A", "a") else None


def _texts(question: str, run: list[re.Match[str]]) -> list[str]:
    texts = [question[this.end() : following.start()] for this, following in itertools.pairwise(run)]
    texts.append(question[run[-1].end() :].strip().partition("\n")[0])
    return [_bare(text) for text in texts]


def _bare(text: str) -> str:
    for _ in range(2):
        text = _AFTER.sub("", _BEFORE.sub("", text.strip()))
    return text


def _named(text: str, options: dict[str, str]) -> str | None:
    """The label of the one option that `text` names by its letter, by its text, or by both in agreement."""
    said = _bare(plain(_LATEX_LABEL.sub(r" \1 ", text)))
    by_text = [label for label, option in options.items() if option and exact(option, said)]
    by_letter = _by_letter(said, options)
    if by_letter is None:
        by_both = _by_both(said, options)
        return by_both if by_both is not None and not by_text else by_text[0] if len(by_text) == 1 else None
    return by_letter if by_text in ([], [by_letter]) else None


def _by_letter(said: str, options: dict[str, str]) -> str | None:
    """A letter alone, which must be written as the labels are unless it stands in brackets, or a phrase around one."""
    match = _LETTER.fullmatch(said)
    if match is not None:
        if bool(match["open"]) > bool(match["close"]):
            return None
        bare = not match["close"]
        return match["letter"] if match["letter"] in options else None if bare else _label(match["letter"], options)
    match = _SAID.fullmatch(said)
    return None if match is None else _label(match["letter"], options)


def _by_both(said: str, options: dict[str, str]) -> str | None:
    match = _LETTER_AND_TEXT.fullmatch(said)
    if match is None:
        return None
    label = _label(match["closed"] or match["open"], options)
    return label if label is not None and exact(options[label], match["text"]) else None


def _label(letter: str, options: dict[str, str]) -> str | None:
    return next((label for label in options if label.lower() == letter.lower()), None)
