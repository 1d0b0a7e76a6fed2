"""What libraries say goes into a file, for verbs that run an engine in a person's own terminal.

Does not know: which libraries. Invariant: afterwards the process writes where it wrote before; an engine's error names
the file.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from grhpc.errors import EngineError


@contextlib.contextmanager
def apart(log: Path) -> Iterator[TextIO]:
    """While inside, standard output and error, of child processes too, are appended to `log`; what is yielded writes to
    the terminal. A log without a word is removed."""
    _flush()
    saved = [os.dup(descriptor) for descriptor in (1, 2)]
    into = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        for descriptor in (1, 2):
            os.dup2(into, descriptor)
        with os.fdopen(os.dup(saved[1]), "w", encoding="utf-8", errors="backslashreplace") as terminal:
            yield terminal
    except EngineError as error:
        raise type(error)(error.problem, f"{error.remedy}; what the engine said: {log}".removeprefix("; ")) from error
    finally:
        _flush()
        for descriptor, was in zip((1, 2), saved, strict=True):
            os.dup2(was, descriptor)
            os.close(was)
        empty = not os.fstat(into).st_size
        os.close(into)
        if empty:
            log.unlink()


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
