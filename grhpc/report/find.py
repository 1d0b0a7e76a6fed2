"""RUN on the command line: a run's name or its folder.

Does not know: what a run holds. Invariant: what is returned is a run directory.
"""

import difflib
from pathlib import Path

from grhpc.config import RunConfig
from grhpc.errors import StoreError
from grhpc.store.rundir import RunDir


def find_run(name: str) -> RunDir:
    """The run of that name under runs/, or of that folder. Raises StoreError naming the nearest."""
    root = Path(RunConfig(name="").dir)
    for folder in (Path(name), root / name):
        if (folder / "run.json").is_file():
            return RunDir.open(folder)
    known = sorted(p.name for p in root.iterdir() if (p / "run.json").is_file()) if root.is_dir() else []
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    listing = f"runs here: {', '.join(known)}" if known else "give its folder"
    raise StoreError(f"no run {name!r}", f"did you mean {close[0]!r}?" if close else listing)


def find_grpo_run(name: str) -> RunDir:
    """`find_run` for what only a run of GRPO has. Raises ConfigError for a run of another kind."""
    run = find_run(name)
    run.config()
    return run
