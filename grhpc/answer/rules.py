"""Judge without a model: equality of normalised text, and math-verify in a process of its own.

    python -m grhpc.answer.rules      the worker: one JSON line [reference, answer] in, one JSON line out

math-verify parses and simplifies with sympy, which on some inputs never returns and on others eats all memory: the
worker has a hard limit on both, dies when it exceeds the first, and is started again for the next pair. The limit is on
the processor's time, and nothing is remembered from pair to pair, so that neither the machine's load nor what was asked
before decides.

Does not know: rollouts, rewards. Invariant: `MathVerify.equivalent` returns within WAIT times its limit, give or take
the start of a new worker; an answer that could not be decided is None, never "not equivalent".
"""

import contextlib
import json
import logging
import os
import re
import resource
import select
import signal
import subprocess
import sys
import unicodedata
from fractions import Fraction
from typing import Any

from grhpc.errors import EngineError

WORKER = ("-m", "grhpc.answer.rules")
START_S = 120.0  # importing sympy on a busy machine
MEMORY_BYTES = 4 << 30
_NOT_FOR_THE_WORKER = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
WAIT = 30.0  # so many times the limit by the wall's clock, for a machine with many others at work

_WRAPPING = re.compile(
    r"\\(?:left|right|displaystyle)(?![a-zA-Z])|\\[,;:! ]|\\[()\[\]]|\\?\$|\\(?:text|mathrm|mathbf)(?=\{)"
)
_FRACTION = re.compile(r"\\[dt]frac\b")
_RAISED, _LOWERED = (
    re.compile(f"[{characters}]+") for characters in ("\u00b2\u00b3\u00b9\u2070-\u207f", "\u2080-\u209c")
)
_WORD = re.compile(r"(?<![\\\w])(?:[^\W\d_]{3,}+|no)(?!\w)", re.IGNORECASE)
_IDLE_SPACE = re.compile(r"(?<!\w) | (?!\w)|(?<=\d) (?=[^\W\d_])")
# Space that tells two numbers from one: "1 -2" from "1-2", "1 .5" from "1.5", "1, 234" from "1,234".
_PARTING_SPACE = re.compile(
    r"(?<=[\w)\]}]) (?=[-+\u00b1\u2013]\S)|(?<=\d) (?=\. ?\d)|(?<=\d\.) (?=\d)|(?<=\d,) (?=\d{3}(?!\d))"
)
_THOUSANDS = re.compile(r"(?<=\d)(?:,\\!|\{,\})(?=\d{3}(?!\d))")
_NAME = re.compile(r"[^\W\d_]+")
_LAYOUT = {"left", "right", "text", "mathrm", "mathbf", "displaystyle"}
_OPERATIONS = {"frac", "sqrt", "cdot", "times", "div"}
_SIGNS = "+-*/^%=<>!?|&"
_NUMBER = re.compile(r"-?(?:\d+(?:,\d{3})*(?:\.\d+)?|\.\d+|\d+/\d+|\\[dt]?frac\{-?\d+\}\{\d+\})")
_DIVIDED = re.compile(r"/|frac")
_LIST = re.compile(r",(?!\d{3}(?!\d))|[(\[{][^()\[\]{}]*,|;|\\\\")
# Where math-verify compares what was not meant as one number ("1914-1918"), or rounds the difference away ("10^{-19}").
_UNSURE = re.compile(
    r"\d\s*(?:[-+*\u2013\u2212\u00d7]|\\(?:times|cdot))\s*\\?\d|\d/\d+/\d|10\s*\^|\^\s*\{?\s*[-\u2212]|\.\d{4}|\de-?\d"
    r"|0\.\d*\)?\s*\^|(?:/|frac).*\d{4}|\d{4}.*/",
    re.IGNORECASE,
)
# Where it may compare one number of several ("165 | 180").
_PROSE = re.compile(r"(?<![\\\w])(?:[^\W\d_]{3,}|or\b|to\b)|\||\d\s+\d")
# Powers that sympy would expand for longer than any limit, or not, by a hair: 1000 and above.
_HUGE = re.compile(r"(?:\^|\*\*)[\s{(+-]*\d{4}")
# Where math-verify drops what makes the difference: primes, bases of numbers; double factorials.
_BEYOND = re.compile(r"['`\u2019\u2032-\u2037]|\\prime(?![a-zA-Z])|[\d)\]}]\s*_|!\s*!")
_LONGEST = 4000  # characters: Python reads no number of more than 4300 digits
_DIGITS = re.compile(r"\d+(?:\.\d+)?|\.\d+")
_PLAIN_GROUP = re.compile(r"(?<![\\\w}^_])\{([^{}\\]*)\}")


def exact(reference: str, answer: str) -> bool:
    """Whether the two are the same text once layout is set aside: LaTeX's, white space that parts no two words or
    numbers, a final full stop, and the case of whole words ("Yes", but not "M", "GPa", "NO" or "\\Delta")."""
    return _normalised(reference) == _normalised(answer)


def plain(text: str) -> str:
    """`text` without LaTeX's layout: math signs, spacing, fonts."""
    return _PLAIN_GROUP.sub(r"\1", _WRAPPING.sub(" ", _THOUSANDS.sub(",", text)))


def with_scripts(text: str) -> str:
    """`text` with LaTeX's marks before small digits above or below the line: else 10 squared would read 102."""
    return _LOWERED.sub(r"_\g<0>", _RAISED.sub(r"^\g<0>", text))


def _normalised(text: str) -> str:
    text = _FRACTION.sub(r"\\frac", unicodedata.normalize("NFKC", with_scripts(text)).replace("\u2212", "-"))
    text = " ".join(_WORD.sub(_without_case, plain(text)).split())
    return _IDLE_SPACE.sub("", _PARTING_SPACE.sub("\0", text)).removesuffix(".")


def maths_can_tell(question: str, reference: str, answer: str) -> bool:
    """Whether a yes of math-verify can be believed: only of two equal numbers, or of two expressions with the same
    letters, words, units, signs and operations, the letters in the same order but for whole terms of a sum; no lists,
    no primes or bases, and nothing but a number that the question itself says. Powers of ten, small decimals, sums of
    bare numbers (maybe ranges, dates), and prose need the same numbers on both sides, in the same order but for terms.

    It compares to six decimals only, whatever the size: 1.6e-19 is 9.1e-31 to it. It reads words and units as nothing
    ("5 cm" is "5 m" to it, "5" is "5 or anything"), or as products of their letters ("net" is "ten", 2e3 is 3e2), all
    products as if they commuted ("X^T X" is "X X^T"), of "6 = 5" the right side only, of "165 | 180" the 180, "y''" as
    "y", and the unsolved question as its own answer ("2 + 2" is "4").
    """
    if max(len(reference), len(answer)) > _LONGEST:
        return False
    reference, answer = (_THOUSANDS.sub(",", text) for text in (reference, answer))
    told = plain(answer).replace(" ", "") in plain(question).replace(" ", "")
    numbers = [_NUMBER.fullmatch(text.strip("$ ")) for text in (reference, answer)]
    if numbers[0] and numbers[1]:
        values = [_value(number[0]) for number in numbers if number]
        return values[0] is not None and values[0] == values[1] and not (told and _DIVIDED.search(answer))
    if told or any(_LIST.search(t) or _BEYOND.search(t) or not _closed(t) for t in (reference, answer)):
        return False
    unsure = any(_UNSURE.search(text) or _PROSE.search(plain(text)) for text in (reference, answer))
    if unsure and _numbers(reference) != _numbers(answer):
        return False
    return _marks(reference) == _marks(answer)


def _value(number: str) -> Fraction | None:
    """What `_NUMBER` matches, exactly; None for a division by zero."""
    plain_fraction = re.sub(r"\\[dt]?frac\{(-?\d+)\}\{(\d+)\}", r"\1/\2", number).replace(",", "")
    sign = -1 if plain_fraction.startswith("--") else 1
    with contextlib.suppress(ZeroDivisionError):
        return sign * Fraction(plain_fraction.removeprefix("--"))
    return None


def _marks(text: str) -> tuple[list[tuple[str, list[str]]], list[str]]:
    """The terms of a sum, each with its sign and its names in their order; and all signs and operations."""
    text = _FRACTION.sub(r"\\frac", unicodedata.normalize("NFKC", text)).replace("\u2212", "-")
    names = _NAME.findall(text)
    signs = ["/" if name == "frac" else name for name in names if name in _OPERATIONS]
    signs += [character for character in text if character in _SIGNS or ord(character) > 127]
    terms = [
        (sign, [name for name in _NAME.findall(term) if name not in _LAYOUT | _OPERATIONS])
        for sign, term in _terms(text)
    ]
    return sorted(term for term in terms if term[1]), sorted(signs)


def _numbers(text: str) -> list[tuple[str, list[Fraction]]]:
    """The terms of a sum, each with its sign and its numbers in their order."""
    return sorted((sign, [Fraction(number) for number in _DIGITS.findall(term)]) for sign, term in _terms(text))


def _terms(text: str) -> list[tuple[str, str]]:
    """`text` cut before each plus and minus that stands in no brackets, with that sign."""
    depth, sign, start, found = 0, "+", 0, []
    for at, character in enumerate(text):
        depth += (character in "({[") - (character in ")}]")
        if character in "+-" and not depth:
            found.append((sign, text[start:at]))
            sign, start = character, at + 1
    return [*found, (sign, text[start:])]


def _closed(text: str) -> bool:
    depth = 0
    for character in text:
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth < 0:
            return False
    return depth == 0


def _without_case(match: re.Match[str]) -> str:
    word = match[0]
    ordinary = word.istitle() or word == "YES" or (word.isupper() and len(word) > 3)
    return word.lower() if ordinary else word


class MathVerify:
    """math-verify's judgement, gold answer and student's both in a box. Use as a context, or `close` it.

    `limit_s` is of the processor's time, for each pair."""

    def __init__(self, limit_s: float = 10.0) -> None:
        self.limit_s = limit_s
        self._worker: subprocess.Popen[bytes] | None = None

    def equivalent(self, reference: str, answer: str) -> bool | None:
        """True or False; None where math-verify ran out of time or memory, or failed on the pair, or is not asked, for
        the size of a power.

        Raises EngineError where the worker does not start.
        """
        if _HUGE.search(reference) or _HUGE.search(answer):
            return None
        pair = json.dumps([*(_THOUSANDS.sub(",", text) for text in (reference, answer)), self.limit_s]) + "\n"
        reply, ended_by = self._ask(pair)
        if ended_by == signal.SIGKILL:  # no limit of ours: somebody ended it, and that says nothing of the pair
            reply, _ = self._ask(pair)
        verdict = json.loads(reply) if reply else None
        return verdict if isinstance(verdict, bool) else None

    def close(self) -> None:
        """End the worker. A later `equivalent` starts a new one."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.kill()
            worker.communicate()

    def __enter__(self) -> "MathVerify":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, pair: str) -> tuple[bytes | None, int]:
        """The worker's reply, and 0; or none, and which signal ended it, where one did."""
        worker = self._worker or self._start()
        with contextlib.suppress(BrokenPipeError):
            assert worker.stdin is not None
            worker.stdin.write(pair.encode())
            worker.stdin.flush()
        reply = _read_line(worker, WAIT * self.limit_s)
        if reply:
            return reply, 0
        code = 0 if reply is None else worker.wait(START_S)
        self.close()
        return None, -code

    def _start(self) -> "subprocess.Popen[bytes]":
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "bufsize": 0}
        # sympy walks through sets, and takes longer in one order than in another.
        environment = os.environ | {"PYTHONHASHSEED": "0"}
        # A scheduler signals every process of a task. The task hears it and drains; a pair is not undecided for it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _NOT_FOR_THE_WORKER)
        try:
            worker = subprocess.Popen([sys.executable, *WORKER], env=environment, **pipes)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if not _read_line(worker, START_S):
            worker.kill()
            worker.communicate()
            raise EngineError("the math-verify worker did not start", "see above; is math-verify installed?")
        self._worker = worker
        return worker


def _read_line(worker: "subprocess.Popen[bytes]", limit_s: float) -> bytes | None:
    """The worker's next line, which is short enough to come in one piece; None after `limit_s`, empty at its end."""
    assert worker.stdout is not None
    ready, _, _ = select.select([worker.stdout], [], [], limit_s)
    return worker.stdout.readline() if ready else None


def _serve() -> None:
    """The worker's loop: a reply of true, false, or null where math-verify failed."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    from math_verify import parse, verify
    from sympy.core.cache import clear_cache  # type: ignore[import-untyped]

    def compare(reference: str, answer: str) -> bool:
        gold, given = (parse(f"\\boxed{{{text}}}", parsing_timeout=None) for text in (reference, answer))
        return bool(verify(gold, given, timeout_seconds=None))

    logging.disable()
    replies, sys.stdout = sys.stdout, sys.stderr  # whatever a library prints is no reply
    compare("1/2", "0.5")  # imports what is imported late: no pair is to pay for it that comes first
    _reply(replies, "ready")
    for line in sys.stdin:
        reference, answer, limit_s = json.loads(line)
        clear_cache()
        signal.setitimer(signal.ITIMER_PROF, limit_s)  # kills this process, whatever it is in
        try:
            verdict: bool | None = compare(reference, answer)
        except Exception:  # sympy raises nearly anything on nearly anything: the pair is undecided
            verdict = None
        signal.setitimer(signal.ITIMER_PROF, 0)
        _reply(replies, verdict)


def _reply(replies: Any, value: object) -> None:
    replies.write(json.dumps(value) + "\n")
    replies.flush()


if __name__ == "__main__":
    _serve()
