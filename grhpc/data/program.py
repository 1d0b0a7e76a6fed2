"""The program of whatever prepares data: `python -m MODULE CONFIG [--set section.key=value]`.

Does not know: which data, what is made of them. Invariant: what is wrong with configuration or data is said in two
lines, and the exit status is then 2.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from grhpc.config_file import load_as
from grhpc.errors import GrhpcError
from grhpc.kinds import Settings

Kind = TypeVar("Kind", bound=Settings)


def run(
    module: str, about: str, kind: type[Kind], steps: Callable[[Kind], Iterable[str]], argv: Sequence[str] | None
) -> int:
    """Do the steps of `module` with the configuration that the command line names, printing what each one says."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=about)
    parser.add_argument("config")
    parser.add_argument("--set", action="append", default=[], metavar="section.key=value", dest="overrides")
    args = parser.parse_args(argv)
    try:
        for line in steps(load_as(kind, args.config, args.overrides)):
            print(line, flush=True)
    except GrhpcError as error:
        print(f"error: {error.problem}\n  do: {error.remedy}", file=sys.stderr)
        return 2
    return 0
