"""A folder that appears whole under its name, or not at all.

Does not know: what is in it. Invariant: nothing that stands under the name is ever replaced.
"""

import os
from pathlib import Path

from grhpc.errors import StoreError
from grhpc.store.atomic import fsync_dir, storing


def refuse_used(root: Path, mark: str) -> None:
    """Raise StoreError where `root` is there and not empty; `mark` is the file by which a run's folder is known."""
    try:
        with storing(root):
            present = os.listdir(root)
    except FileNotFoundError:
        return
    if mark in present:
        raise StoreError(f"{root} holds a run already", "resume it, or give the new run another name (run.name)")
    if present:
        raise StoreError(
            f"{root} is not empty: {', '.join(sorted(present)[:3])}",
            "empty it, or give the run another name (run.name)",
        )


def move_in(temp: Path, root: Path, mark: str) -> None:
    """Give the finished folder `temp` its name. Raises StoreError where that is taken."""
    try:
        os.rename(temp, root)  # replaces an empty folder, refuses any other
    except OSError as error:
        if temp.name in os.listdir(root.parent):
            refuse_used(root, mark)
            raise StoreError(f"cannot make {root}: {error.strerror}", "check the folder above it") from error
    with storing(root):
        fsync_dir(root.parent)
