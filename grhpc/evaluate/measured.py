"""The model that an evaluation measures: a folder, a Hub id, or one published version of a run.

A version's files are linked into the evaluation, so that the run may prune them: the tasks read them from there, as
rollout tasks read a run's: checked, and copied to their node once.

Does not know: engines, benchmarks. Invariant: the digest that stands in the samples is of all the bytes that were
linked or named when the evaluation was made.
"""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from grhpc.errors import DataError, Pruned
from grhpc.eval_config import EvalConfig
from grhpc.judge.engine_judge import model_digest
from grhpc.store.atomic import list_names, make_dir, storing
from grhpc.store.local_copy import node_dir
from grhpc.store.rundir import RunDir
from grhpc.store.transfer import copy_checked, describe, digest_of_files
from grhpc.store.weights import MANIFEST, WeightRef, WeightStore

_LINKED = "weights"  # in the evaluation's directory, laid out as a run's


class Measured:
    """The measured model as one task has it."""

    def __init__(self, run: RunDir, config: EvalConfig) -> None:
        self._run, self._config = run, config
        owner = run.about.get("weights_of", "")
        self._store = WeightStore(run.root / _LINKED, run_id=owner) if owner else None

    def fetch(self) -> str:
        """A folder on this node, or what the configuration names. Raises DataError, CorruptFile."""
        if self._store is None:
            return self._config.model.model
        newest = self._store.newest()
        if newest is None:
            raise DataError(f"no weights in {self._store.directory}", "they were there when the evaluation was made")
        return str(self._store.fetch(newest, node_dir(self._config.store.local_dir)))

    def leave(self) -> None:
        """This process needs the node's copy no more."""
        if self._store is not None:
            self._store.leave()

    def remove(self) -> None:
        """Nobody needs the linked files any more."""
        if self._store is not None:
            shutil.rmtree(self._store.directory, ignore_errors=True)


def link_version(owner: RunDir, ref: WeightRef, evaluation: RunDir) -> None:
    """Give the evaluation its own names for a version's files; copies where the filesystem cannot.

    Raises Pruned where the version is removed meanwhile, CorruptFile where a file is not what its manifest says.
    """
    folder = evaluation.root / _LINKED / ref.path.name
    make_dir(folder)
    try:
        manifest = owner.weights.manifest(ref)
        for name in (*manifest["files"], MANIFEST):
            try:
                os.link(ref.path / name, folder / name)
            except FileNotFoundError:
                raise
            except OSError:  # another filesystem, or one without links
                _copy(ref.path / name, folder / name, manifest["files"].get(name))
    except FileNotFoundError:
        raise Pruned(f"{ref.path} was pruned while it was linked", "evaluate a newer version") from None


def _copy(source: Path, target: Path, entry: dict[str, object] | None) -> None:
    if entry is not None:
        copy_checked(source, target, entry)
    else:
        shutil.copyfile(source, target)


def find_version(owner: RunDir, version: int | None) -> WeightRef:
    """A published version of a run, the newest for None. Raises DataError naming those that are there."""
    found = owner.weights.newest() if version is None else owner.weights.find(version)
    if found is None:
        kept = ", ".join(map(str, owner.weights.versions())) or "none"
        what = "has published no weights yet" if version is None else f"does not, or no longer, keep version {version}"
        raise DataError(
            f"{owner.name} {what}; kept: {kept}", "name one of those with --version; store.keep_weights says how many"
        )
    return found


def digest_of_model(model: str) -> str:
    """Of a folder, the names and contents of all its files, as a published version's digest is; of a Hub id, its
    commit. Equal bytes, equal digest."""
    folder = Path(model)
    if not folder.is_dir():
        return model_digest(model)
    names = [name for name in list_names(folder) if name != MANIFEST and (folder / name).is_file()]
    with storing(folder), ThreadPoolExecutor(max_workers=4) as pool:
        return digest_of_files(dict(zip(names, pool.map(describe, [folder / name for name in names]), strict=True)))
