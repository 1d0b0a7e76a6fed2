"""The final short answer in a response: one extractor, for training and for evaluation.

A box (`\\boxed{..}`, `\\fbox{..}`) goes before a marker ("Final Answer:", "The answer is"); among boxes, and among
markers, the last one that holds something wins. A box may nest braces to any depth; one that is never closed is no box.

Does not know: prompts, tokens, whether an answer is right. Invariant: takes time linear in the response, never raises.
"""

import itertools
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

_BOX = re.compile(r"\\(?:boxed|fbox)\s*+\{(?!\s*+\})")  # an empty box is no answer
_COLON = re.compile(r"(?:answers?|solution)(?:[ \t]++is)?+[ \t*_]*+[:\uff1a]")
_IS = re.compile(r"answer[ \t]++is\b")
_ENDS_LINE = re.compile(r"answer[ \t*_]*+(?=[\r\n]|\Z)")
_LINE = re.compile(r"\S[^\r\n]*+")
_ARTICLE = re.compile(r"(?<!\w)(?:the[ \t]+)?(?:(?:final|correct)[ \t]+)?\Z")
_HEADING = re.compile(r"(?:\A|[\r\n])[ \t*_#]*(?:the[ \t]+)?final[ \t]+\Z")
_TAGGED = re.compile(r"<((?:final_)?answer)>(.*)</\1>", re.IGNORECASE)
_LOOK_BACK = 60  # characters before the word that may belong to the marker
_MOST_WORDS = 5000  # from the end, that may be markers; the rest is noise
_MOST_LINES = 4  # after a marker, until the answer begins
_END_TOKENS = ("<|im_end|>", "<|endoftext|>", "<|end|>", "<|eot_id|>", "</s>")
_OPENS_MATHS = ("$$", "\\[", "\\(", "```")
_EMPHASIS = "*_ \t"


def extract_answer(response: str) -> str | None:
    """The last final answer in `response`, stripped; None where there is none."""
    return _last_box(response) or _last_marked(response)


def _last_box(text: str) -> str | None:
    boxes = [match.end() - 1 for match in _BOX.finditer(text)]
    if not boxes:
        return None
    start = boxes[0]
    depth = _brace_depth(text[start:])
    lowest_after = np.minimum.accumulate(depth[::-1])[::-1]
    opened = np.asarray(boxes) - start
    closed = opened[lowest_after[opened] < depth[opened]]
    if not len(closed):
        return None
    at = int(closed[-1])
    length = int(np.argmax(depth[at:] < depth[at]))
    return text[start + at + 1 : start + at + length].strip()


def _brace_depth(text: str) -> Any:
    """Depth of braces after each character, int32; escaped braces (`\\{`) are characters like any other."""
    for escaped in ("\\\\", "\\{", "\\}"):
        text = text.replace(escaped, "  ")
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    return np.cumsum((codes == ord("{")).astype(np.int8) - (codes == ord("}")), dtype=np.int32)


def _last_marked(text: str) -> str | None:
    lower = text.replace("\u0130", "i").lower()  # that letter alone changes the length
    end = len(text)
    for at, word in itertools.islice(_words_from_the_end(lower), _MOST_WORDS):
        marker = _marker(lower, at, word)
        if marker is None:
            continue
        start, stop = marker
        if content := _first_line(text[stop:end], only_this=word == "solution"):
            return content
        end = start
    return None


def _words_from_the_end(lower: str) -> Iterator[tuple[int, str]]:
    last = {word: lower.rfind(word) for word in ("answer", "solution")}
    while True:
        word = max(last, key=last.__getitem__)
        at = last[word]
        if at < 0:
            return
        yield at, word
        last[word] = lower.rfind(word, 0, at)


def _marker(lower: str, at: int, word: str) -> tuple[int, int] | None:
    """Where the marker around the word at `at` begins and ends; None where the word marks nothing."""
    before = lower[max(0, at - _LOOK_BACK) : at]
    article = _ARTICLE.search(before)
    if article is None:  # the middle of another word
        return None
    prefix = article[0]
    match = _COLON.match(lower, at)
    if match is None and prefix.startswith("the"):
        match = _IS.match(lower, at)
    if match is None and _HEADING.search(before):
        match = _ENDS_LINE.match(lower, at)
    return None if match is None else (at - len(prefix), match.end())


def _first_line(text: str, only_this: bool) -> str:
    """The first line with something on it, without emphasis, a closing full stop, or end-of-text tokens."""
    if only_this:
        text = text.splitlines()[0] if text else ""
    for match in itertools.islice(_LINE.finditer(text), _MOST_LINES):
        content = _without_end_tokens(match[0]).strip(_EMPHASIS).lstrip(":\uff1a").strip(_EMPHASIS)
        content = content.removesuffix(".").rstrip(_EMPHASIS)
        if tagged := _TAGGED.fullmatch(content):
            content = tagged[2].strip()
        if content and content not in _OPENS_MATHS:
            return content
    return ""


def _without_end_tokens(line: str) -> str:
    end = len(line.rstrip())
    while token := next((t for t in _END_TOKENS if line.endswith(t, 0, end)), ""):
        end -= len(token)
    return line[:end].strip()
