"""Judge without a model: equality of normalised text, and math-verify in a process of its own.

    python -m grhpc.answer.rules      the worker: one JSON line [reference, answer] in, one JSON line out

math-verify parses and simplifies with sympy, which on some inputs never returns and on others eats all memory: the
worker has a hard limit on both, is killed when it exceeds the first, and is started again for the next pair.

Does not know: rollouts, rewards. Invariant: `MathVerify.equivalent` returns within its time limit, give or take the
start of a new worker; an answer that could not be decided is None, never "not equivalent".
"""

import contextlib
import json
import logging
import re
import resource
import select
import subprocess
import sys
import unicodedata
from typing import Any

from grhpc.errors import EngineError

WORKER = ("-m", "grhpc.answer.rules")
START_S = 120.0  # importing sympy on a busy machine
MEMORY_BYTES = 4 << 30

_WRAPPING = re.compile(
    r"\\(?:left|right|displaystyle|[,;:! ])(?![a-zA-Z])|\\[()\[\]]|\$|\\(?:text|mathrm|mathbf)(?=\{)"
)
_FRACTION = re.compile(r"\\[dt]frac\b")
_PLAIN_GROUP = re.compile(r"(?<![\\\w}^_])\{([^{}\\]*)\}")


def exact(reference: str, answer: str) -> bool:
    """Whether the two are the same text once case, white space, LaTeX layout and a final full stop are set aside."""
    return _normalised(reference) == _normalised(answer)


def _normalised(text: str) -> str:
    text = _FRACTION.sub(r"\\frac", unicodedata.normalize("NFKC", text).casefold())
    text = _PLAIN_GROUP.sub(r"\1", _WRAPPING.sub("", text))
    return "".join(text.split()).removesuffix(".")


class MathVerify:
    """math-verify's judgement, gold answer and student's both in a box. Use as a context, or `close` it."""

    def __init__(self, limit_s: float = 10.0) -> None:
        self.limit_s = limit_s
        self._worker: subprocess.Popen[bytes] | None = None

    def equivalent(self, reference: str, answer: str) -> bool | None:
        """True or False; None where math-verify ran out of time or memory, or failed on the pair.

        Raises EngineError where the worker does not start.
        """
        worker = self._worker or self._start()
        pair = json.dumps([reference, answer]).encode() + b"\n"
        with contextlib.suppress(BrokenPipeError):
            assert worker.stdin is not None
            worker.stdin.write(pair)
            worker.stdin.flush()
        reply = _read_line(worker, self.limit_s)
        if reply is None:
            self.close()
            return None
        verdict = json.loads(reply)
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

    def _start(self) -> "subprocess.Popen[bytes]":
        worker = subprocess.Popen([sys.executable, *WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        if _read_line(worker, START_S) is None:
            worker.kill()
            worker.communicate()
            raise EngineError("the math-verify worker did not start", "see above; is math-verify installed?")
        self._worker = worker
        return worker


def _read_line(worker: "subprocess.Popen[bytes]", limit_s: float) -> bytes | None:
    """The worker's next line, which is short enough to come in one piece; None after `limit_s`, or at its end."""
    assert worker.stdout is not None
    ready, _, _ = select.select([worker.stdout], [], [], limit_s)
    return worker.stdout.readline() or None if ready else None


def _serve() -> None:
    """The worker's loop: a reply of true, false, or null where math-verify failed."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    from math_verify import parse, verify

    logging.disable()
    replies, sys.stdout = sys.stdout, sys.stderr  # whatever a library prints is no reply
    _reply(replies, "ready")
    for line in sys.stdin:
        reference, answer = json.loads(line)
        try:
            gold, given = (parse(f"\\boxed{{{text}}}", parsing_timeout=None) for text in (reference, answer))
            _reply(replies, bool(verify(gold, given, timeout_seconds=None)))
        except Exception:  # sympy raises nearly anything on nearly anything: the pair is undecided
            _reply(replies, None)


def _reply(replies: Any, value: object) -> None:
    replies.write(json.dumps(value) + "\n")
    replies.flush()


if __name__ == "__main__":
    _serve()
