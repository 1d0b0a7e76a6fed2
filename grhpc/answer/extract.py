"""The final short answer in a response: one extractor, for training and for evaluation.

A box (`\\boxed{..}`, `\\fbox{..}`) goes before a short line in `<answer>` tags, and that before an explicit marker,
one with a colon or a heading ("Final Answer: 5", or the same in Chinese), and that before prose ("the answer is 5") and
derivations ("Solution: ..."); of a kind the last one that holds something wins. A box may nest braces to any depth; one
that is never closed is none. Maths signs around it all are no part of it.

Of a response with reasoning in `<think>` only what follows the last `</think>` counts: thoughts try answers that are
not meant, so where nothing is said after them, or they never end, there is no answer.

Does not know: prompts, tokens, whether an answer is right. Invariant: takes time linear in the response, never raises.
"""

import itertools
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

_BOX = re.compile(r"\\(?:boxed|fbox)\s*+\{(?!\s*+\})")  # an empty box is no answer
_CHINESE = "\u7b54\u6848"  # "answer", written together with the words around it
_COLON = re.compile(rf"(?:answers?|solution|{_CHINESE})(?:[ \t]++is|[\u662f\u4e3a])?+[ \t*_]*+[:\uff1a]")
_IS = re.compile(rf"answer[ \t]++is\b|{_CHINESE}[\u662f\u4e3a]")
_ENDS_LINE = re.compile(r"answer[ \t*_]*+(?=[\r\n]|\Z)")
_LINE = re.compile(r"\S[^\r\n]*+")
_ARTICLE = re.compile(r"(?<!\w)(?:the[ \t]+)?(?:(?:final|correct|best|right)[ \t]+)?\Z")
_HEADING = re.compile(r"(?:\A|[\r\n])[ \t*_#]*(?:the[ \t]+)?final[ \t]+\Z")
_DERIVES = re.compile(  # what follows "Answer:" where it opens a derivation
    r"(?:[Ll]et(?:['\u2019]s|[ \t]+(?:us|me|\$|[A-Za-z]\b))|[Ff]irst(?:,|[ \t]+(?:we|I|let|find|note))|[Ss]tep[ \t]+1\b"
    r"|(?:[Ww]e|I)[ \t]+[a-z]|[Tt]o[ \t]+[a-z])"
)
_LONG = 10  # words: an explicit answer, or one in tags, of more is thought to derive the one that prose gives after it
_SHORT = 5  # words that may be an answer where prose goes on in their line; more of them derive it
_JOINS = re.compile(
    r"(?<![ \t,;(])[ \t,;(]++(?:(?:and|as|because|hence|since|so|therefore|thus)[ \t,]*+)?\Z", re.IGNORECASE
)
_MATHS = re.compile(
    r"(\$\$?)((?:[^$\\]|\\.)++)\1|\\\(((?:[^\\]|\\[^()])++)\\\)|\\\[((?:[^\\]|\\[^\[\]])++)\\\]", re.DOTALL
)
_HOPE = re.compile(r"\.?[ \t]?I hope (?:it|this) is correct\Z", re.IGNORECASE)  # the end of Minerva's prompts
_HOPE_LENGTH = 30
_LOOK_BACK = 60  # characters before the word that may belong to the marker
_MOST_WORDS = 5000  # from the end, that may be markers; the rest is noise
_MOST_LINES = 4  # after a marker, until the answer begins
_END_TOKENS = ("<|im_end|>", "<|endoftext|>", "<|end|>", "<|eot_id|>", "</s>")
_ENDS_REVERSED = re.compile("(?:" + "|".join(re.escape(token[::-1]) for token in _END_TOKENS) + r"|\s)*+")
_THINK, _THOUGHT = "<think>", "</think>"
_OPENS_MATHS = ("$$", "\\[", "\\(", "```")
_EMPHASIS = "*_ \t"


def extract_answer(response: str) -> str | None:
    """The last final answer in `response`, stripped; None where there is none."""
    said = _after_thinking(response)
    answer = _last_box(said) or _last_tagged(said) or _last_marked(said)
    whole = _MATHS.fullmatch(answer)
    return ((whole and (whole[2] or whole[3] or whole[4]).strip()) or answer) or None


def _after_thinking(text: str) -> str:
    said = text[text.rfind(_THOUGHT) + len(_THOUGHT) :] if _THOUGHT in text else text
    return "" if _THINK in said else said


def _last_box(text: str) -> str:
    text = text[: text.rfind("}") + 1]
    boxes = list(map(re.Match.end, _BOX.finditer(text)))
    if not boxes:
        return ""
    start = boxes[0] - 1
    depth = _brace_depth(text[start:])
    lowest_after = np.minimum.accumulate(depth[::-1])[::-1]
    opened = np.asarray(boxes) - boxes[0]
    closed = opened[lowest_after[opened] < depth[opened]]
    if not len(closed):
        return ""
    at = int(closed[-1])
    length = int(np.argmax(depth[at:] < depth[at]))
    return text[start + at + 1 : start + at + length].strip()


def _brace_depth(text: str) -> Any:
    """Depth of braces after each character, int32; escaped braces (`\\{`) are characters like any other."""
    for escaped in ("\\\\", "\\{", "\\}"):
        text = text.replace(escaped, "  ")
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    return np.cumsum((codes == ord("{")).astype(np.int8) - (codes == ord("}")), dtype=np.int32)


def _last_tagged(text: str) -> str:
    """What stands in the last tags, if it is short; longer ones are thought to hold a derivation."""
    lower = _lower(text)
    for tag in ("answer>", "final_answer>"):
        close = lower.rfind("</" + tag)
        start = lower.rfind("<" + tag, 0, max(0, close)) + len(tag) + 1
        content = text[start:close].strip().strip(_EMPHASIS) if start > len(tag) else ""
        if content and "\n" not in content and len(content.split()) <= _LONG and not _BOX.search(content):
            return _last_marked(content) or content
    return ""


def _lower(text: str) -> str:
    return text.replace("\u0130", "i").lower()  # that letter alone changes the length


def _last_marked(text: str) -> str:
    """What follows the last explicit marker, or else the last one in prose. An explicit one may hold one in prose."""
    lower = _lower(text)
    end, last, following = len(text), "", ""
    for at, word in itertools.islice(_words_from_the_end(lower), _MOST_WORDS):
        marker = _marker(lower, at, word)
        if marker is None:
            continue
        start, stop, explicit = marker
        content, cut = _first_line(text[stop:end], only_this=word == "solution")
        if _BOX.search(content):  # one that is closed would have been found
            content = ""
        end = start
        if explicit and following and (not content or (cut and len(content.split()) > _SHORT)):
            return following
        if explicit and content and not _derives(content):
            return _JOINS.sub("", content) if cut and following else content
        following = content or following
        last = last or content
    return last


def _derives(content: str) -> bool:
    return bool(_DERIVES.match(content)) or content.endswith(":") or len(content.split()) > _LONG


def _words_from_the_end(lower: str) -> Iterator[tuple[int, str]]:
    last = {word: lower.rfind(word) for word in ("answer", "solution", _CHINESE)}
    while True:
        word = max(last, key=last.__getitem__)
        at = last[word]
        if at < 0:
            return
        yield at, word
        last[word] = lower.rfind(word, 0, at)


def _marker(lower: str, at: int, word: str) -> tuple[int, int, bool] | None:
    """Where the marker around the word at `at` begins and ends, whether it is explicit; None where there is none."""
    before = lower[max(0, at - _LOOK_BACK) : at]
    article = _ARTICLE.search(before if word != _CHINESE else "")
    if article is None:  # the middle of another word
        return None
    prefix = article[0]
    if match := _COLON.match(lower, at):
        return at - len(prefix), match.end(), word != "solution" or " is" in match[0]
    if (prefix.startswith("the") or word == _CHINESE) and (match := _IS.match(lower, at)):
        return at - len(prefix), match.end(), False
    if _HEADING.search(before) and (match := _ENDS_LINE.match(lower, at)):
        return at - len(prefix), match.end(), True
    return None


def _first_line(text: str, only_this: bool) -> tuple[str, bool]:
    """The first line with something on it, without emphasis, a closing full stop, or end-of-text tokens; and whether
    the text ends with it."""
    if only_this:
        text = text.splitlines()[0] if text else ""
    for match in itertools.islice(_LINE.finditer(text), _MOST_LINES):
        content = _without_end_tokens(match[0]).strip(_EMPHASIS).lstrip(":\uff1a").strip(_EMPHASIS)
        content = content.removesuffix(".").removesuffix("\u3002").rstrip(_EMPHASIS)
        if hope := _HOPE.search(content, max(0, len(content) - _HOPE_LENGTH)):
            content = content[: hope.start()].rstrip(_EMPHASIS)
        content = content.removesuffix("</answer>").strip()
        if content and content not in _OPENS_MATHS:
            return content, match.end() == len(text)
    return "", False


def _without_end_tokens(line: str) -> str:
    ends = _ENDS_REVERSED.match(line[::-1])
    return line[: len(line) - (ends.end() if ends else 0)].strip()
