"""RUN and EVAL on the command line: a run's name or its folder.

Does not know: what a run holds. Invariant: what is returned is a run directory, or the folder of a finished evaluation.
"""

import difflib
from pathlib import Path

from grhpc.config import RunConfig
from grhpc.errors import ConfigError, StoreError
from grhpc.store.rundir import SUMMARY, RunDir


def find_run(name: str) -> RunDir:
    """The run of that name under runs/, or of that folder. Raises StoreError naming the nearest."""
    root = Path(RunConfig(name="").dir)
    for folder in (Path(name), root / name):
        if (folder / "run.json").is_file():
            return RunDir.open(folder)
    known = sorted(p.name for p in root.iterdir() if (p / "run.json").is_file()) if root.is_dir() else []
    evaluations = sorted(str(p.parent.relative_to(root)) for p in root.glob("*/eval/*/v*/run.json"))
    close = [found for found in evaluations if found.startswith(f"{name.rstrip('/')}/")][-1:]
    close = close or difflib.get_close_matches(name, [*known, *evaluations], n=1, cutoff=0.5)
    listing = f"runs here: {', '.join(known)}" if known else "give its folder"
    raise StoreError(f"no run {name!r}", f"did you mean {close[0]!r}?" if close else listing)


def find_grpo_run(name: str) -> RunDir:
    """`find_run` for what only a run of GRPO has. Raises ConfigError for a run of another kind."""
    run = find_run(name)
    run.config()
    return run


def find_evaluation(name: str) -> Path:
    """The folder of a finished evaluation: a run of that name or folder, or a copy of its two files.

    Raises StoreError where there is none or it is not finished, ConfigError for a run of another kind.
    """
    for folder in (Path(name), Path(RunConfig(name="").dir) / name):
        if (folder / SUMMARY).is_file():
            return folder
    run = find_run(name)
    if run.kind == "eval":
        raise StoreError(f"{name} is not finished", f"see: python submit.py status {name}")
    known = [str(run.evaluation_dir(*found)) for found in run.evaluations()]
    remedy = f"its evaluations: {', '.join(known)}" if known else f"python submit.py evaluate {name} CONFIG makes one"
    raise ConfigError(f"{name} is a run of {run.kind}, no evaluation", remedy)
