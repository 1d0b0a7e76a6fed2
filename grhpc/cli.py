"""The command line: verbs, their arguments, and errors as two lines for people.

Each verb's work stands elsewhere, named by a dotted path in VERBS and imported only when its verb is called, so that
`--help` and a misspelt word answer at once on a login node.
Does not know: what any verb does. Invariant: importing this module imports nothing heavier than argparse and yaml.
"""

import argparse
import difflib
import errno
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grhpc.errors import GrhpcError

EXAMPLES = """\
python submit.py start configs/tiny.yaml --watch     train the small model here, and watch
python submit.py status tiny                         what runs, what waits for what, and why
python submit.py --help                              every verb
"""
INTERRUPTED = 130
ENVIRONMENT = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE}

Arguments = Callable[[argparse.ArgumentParser], None]


@dataclass(frozen=True)
class Verb:
    """`target` is "module:function"; the function takes the parsed arguments and returns an exit code."""

    name: str
    help: str
    target: str
    arguments: Arguments


def _config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG", help="a YAML file, e.g. configs/tiny.yaml")
    _set(parser)


def _set(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set", action="append", default=[], dest="overrides", metavar="section.key=value", help="change one setting"
    )


def _doctor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", nargs="?", metavar="CONFIG", help="also check what this file asks for")


def _run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run's name (looked for in runs/) or its folder")


def _start(parser: argparse.ArgumentParser) -> None:
    _config(parser)
    _no_launch(parser)
    parser.add_argument("--watch", action="store_true", help="stay and show the run; Ctrl-C leaves it going")


def _no_launch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-launch", action="store_true", help="submit nothing: write batch scripts for sbatch")


def _evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="RUN|MODEL", help="a run; a model's folder or Hub id; a server's name for it")
    _start(parser)
    parser.add_argument("--version", type=int, default=None, help="of a run's published weights; default: the newest")


def _status(parser: argparse.ArgumentParser) -> None:
    _run(parser)
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--watch", action="store_true", help="stay and show the run; Ctrl-C leaves it going")


def _logs(parser: argparse.ArgumentParser) -> None:
    _run(parser)
    parser.add_argument("role", nargs="?", default="", help="train, rollout, verify, sft or evaluate; default: all")
    parser.add_argument("--follow", "-f", action="store_true", help="go on as lines come")
    parser.add_argument("--lines", "-n", type=int, default=40, help="of each log's end (default 40)")


def _scale(parser: argparse.ArgumentParser) -> None:
    _run(parser)
    parser.add_argument("role", choices=("rollout", "verify", "evaluate"))
    parser.add_argument("tasks", type=int, help="how many tasks the role should have from now on")


def _stop(parser: argparse.ArgumentParser) -> None:
    _run(parser)
    parser.add_argument("--now", action="store_true", help="do not wait: end the running tasks too")


def _resume(parser: argparse.ArgumentParser) -> None:
    _run(parser)
    _set(parser)
    parser.add_argument("--code", action="store_true", help="let the run's jobs run the present code from now on")
    _no_launch(parser)
    parser.add_argument("--watch", action="store_true", help="stay and show the run; Ctrl-C leaves it going")


def _report(parser: argparse.ArgumentParser) -> None:
    _run(parser)
    parser.add_argument("--json", action="store_true", help="for programs")


def _compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("first", metavar="EVAL", help="an evaluation's name or folder")
    parser.add_argument("second", metavar="EVAL", help="another of the same questions; the difference is its gain")
    parser.add_argument("--json", action="store_true", help="for programs")


def _why(parser: argparse.ArgumentParser) -> None:
    _run(parser)
    what = "GROUP.SAMPLE, e.g. 17.3; held-out: hVERSION.QUESTION; of an evaluation: BENCHMARK.QUESTION[.SAMPLE]"
    parser.add_argument("sample", metavar="SAMPLE", help=what)
    parser.add_argument("--json", action="store_true", help="for programs")


def _replay(parser: argparse.ArgumentParser) -> None:
    _run(parser)
    parser.add_argument("step", type=int, metavar="STEP")
    parser.add_argument("--group", type=int, default=None, help="show this group's responses whole")
    parser.add_argument("--json", action="store_true", help="for programs")


def _evaluate_verifier(parser: argparse.ArgumentParser) -> None:
    _config(parser)
    parser.add_argument("--data", nargs="+", required=True, metavar="FILE", help="labelled pairs; or tiny:N")
    parser.add_argument("--format", default="", metavar="NAME", help="the data's shape; default: by its columns")
    parser.add_argument("--column", action="append", default=[], metavar="OURS=THEIRS", help="name a column of theirs")
    parser.add_argument("--mode", nargs="+", default=[], help="default: the config's, and rule beside it")
    parser.add_argument("--limit", type=int, default=None, help="at most so many pairs of each file")
    fool = "try to fool it too, and, to compare with, the judge alone (mode bare)"
    parser.add_argument("--attacks", type=int, nargs="?", const=1260, default=0, metavar="N", help=fool)
    where = "where the figures go; earlier ones are kept (default evaluations/verifier)"
    parser.add_argument("--out", default="evaluations/verifier", metavar="DIR", help=where)


def _make_verifier_data(parser: argparse.ArgumentParser) -> None:
    _config(parser)
    parser.add_argument("--solutions", nargs="+", required=True, metavar="FILE", help="questions and sampled responses")
    parser.add_argument("--out", required=True, metavar="FILE", help=".parquet or .jsonl; a held-out twin beside it")
    parser.add_argument("--column", action="append", default=[], metavar="OURS=THEIRS", help="name a column of theirs")
    parser.add_argument("--name", action="append", default=[], metavar="OURS=THEIRS", help="name a column of ours")
    parser.add_argument("--balance", default="overall", metavar="HOW", help="yes and no: question, overall or none")
    parser.add_argument("--attacks", type=float, default=0.1, metavar="SHARE", help="of all lessons (default 0.1)")
    parser.add_argument("--equal", type=float, default=0.05, metavar="SHARE", help="references as answers (0.05)")
    parser.add_argument("--heldout", type=float, default=0.05, metavar="SHARE", help="of all questions (0.05)")
    parser.add_argument("--limit", type=int, default=None, help="only the first so many responses")


VERBS = (
    Verb("doctor", "check this machine, and what a config needs", "grhpc.verbs:doctor", _doctor),
    Verb("prepare", "make prompts from the config's dataset", "grhpc.verbs:prepare", _config),
    Verb("sft", "fine-tune a model, such as a verifier", "grhpc.start:sft", _start),
    Verb("plan", "show what a start would ask of SLURM, and submit nothing", "grhpc.verbs:plan", _config),
    Verb("start", "begin a run", "grhpc.start:start", _start),
    Verb("evaluate", "measure a run's weights, or a model, on benchmarks", "grhpc.evaluation:evaluate", _evaluate),
    Verb("status", "what a run does now, and what it waits for", "grhpc.report.status:command", _status),
    Verb("logs", "the ends of a run's logs", "grhpc.report.logs:command", _logs),
    Verb("scale", "change the number of rollout, verify or evaluate tasks", "grhpc.verbs:scale", _scale),
    Verb("stop", "let every role finish what it holds, then end", "grhpc.verbs:stop", _stop),
    Verb("resume", "go on with a stopped or broken run", "grhpc.start:resume", _resume),
    Verb("report", "the table and picture of a run or an evaluation", "grhpc.report.report:command", _report),
    Verb("compare", "is one evaluated model better than another?", "grhpc.report.comparison:command", _compare),
    Verb(
        "evaluate-verifier",
        "measure a verifier against labelled pairs and attacks",
        "grhpc.evaluate_verifier.command:command",
        _evaluate_verifier,
    ),
    Verb(
        "make-verifier-data",
        "lessons for a verifier, from sampled solutions and a judge",
        "grhpc.evaluate_verifier.make_data:command",
        _make_verifier_data,
    ),
    Verb("audit", "prove that every admitted group is in exactly one place", "grhpc.report.audit:command", _report),
    Verb("why", "how one sample came by its reward or its score", "grhpc.why:command", _why),
    Verb("replay", "show a recorded step: its groups, answers and rewards", "grhpc.replay:command", _replay),
)


class Parser(argparse.ArgumentParser):
    """argparse with errors in the project's form, and the nearest verb for a misspelt one."""

    def error(self, message: str) -> Any:
        _print_error(message, f"python {self.prog} --help")
        sys.exit(2)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; its exit code, or 2 for an error that a person can act on."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv:
        print(EXAMPLES, end="")
        return 0
    try:
        _check_verb(argv[0])
        args, unknown = build_parser().parse_known_args(argv)
        if unknown:
            help_ = f"python submit.py {args.verb.name} --help"
            raise GrhpcError(f"{args.verb.name} does not know: {' '.join(unknown)}", help_)
        return resolve(args.verb.target)(args)
    except GrhpcError as error:
        _print_error(error.problem, error.remedy)
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ModuleNotFoundError as error:
        package = (error.name or "grhpc").partition(".")[0]
        if package in ("grhpc", *sys.stdlib_module_names) or importlib.util.find_spec(package):
            raise  # no matter of what is installed
        _print_error(f"the Python at {sys.executable} lacks {package}", _where_it_is(package))
        return 2
    except OSError as error:
        if error.errno not in ENVIRONMENT:
            raise
        _print_error(f"{error.strerror}: {error.filename}", "free space there, or mend the permissions")
        return 2


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = Parser(prog="submit.py", description="GRPO from a generative verifier, on SLURM.")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for verb in VERBS:
        sub = verbs.add_parser(verb.name, help=verb.help, description=verb.help)
        verb.arguments(sub)
        sub.set_defaults(verb=verb)
    return parser


def resolve(target: str) -> Callable[[argparse.Namespace], int]:
    """The function named "module:function"."""
    module, _, name = target.partition(":")
    function: Callable[[argparse.Namespace], int] = getattr(importlib.import_module(module), name)
    return function


def _check_verb(word: str) -> None:
    names = [verb.name for verb in VERBS]
    if word.startswith("-") or word in names:
        return
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    raise GrhpcError(f"no verb {word!r}", f"did you mean {close[0]!r}?" if close else f"verbs: {', '.join(names)}")


def _where_it_is(package: str) -> str:
    """What to do where `package` cannot be imported."""
    venv = Path(__file__).resolve().parents[1] / ".venv"
    python = venv / "bin" / "python"
    if python.is_file() and any(venv.glob(f"lib/python*/site-packages/{package}*")):
        return f"use {python}: . {venv}/bin/activate"
    return ". .venv/bin/activate (made by `make demo`), or pip install -e ."


def _print_error(problem: str, remedy: str) -> None:
    print(f"error: {problem}", file=sys.stderr)
    if remedy:
        print(f"  do: {remedy}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
