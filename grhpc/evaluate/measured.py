"""The model that an evaluation measures: a folder, a Hub id, or one published version of a run.

A version's files are linked into the evaluation, so that the run may prune them: the tasks read them from there, as
rollout tasks read a run's: checked, and copied to their node once.

Does not know: engines, benchmarks. Invariant: what a task gets is what the evaluation was made with, by its digest or
commit, or it gets nothing: so of the measured model, and so of the judge's.
"""

import os
import shutil
from pathlib import Path

from grhpc.data import hub
from grhpc.errors import ConfigError, DataError, Pruned
from grhpc.eval_config import EvalConfig
from grhpc.store.atomic import make_dir
from grhpc.store.local_copy import node_dir
from grhpc.store.model_digest import model_digest
from grhpc.store.rundir import RunDir
from grhpc.store.transfer import copy_checked
from grhpc.store.weights import MANIFEST, WeightRef, WeightStore

_LINKED = "weights"  # in the evaluation's directory, laid out as a run's
_FILES = ["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken", "*.py"]  # what an engine reads
_OTHER_FORMATS = ["original/*", "consolidated*"]


class Measured:
    """The measured model as one task has it."""

    def __init__(self, run: RunDir, config: EvalConfig) -> None:
        self._run, self._config = run, config
        owner = run.about.get("weights_of", "")
        self._store = WeightStore(run.root / _LINKED, run_id=owner) if owner else None

    def fetch(self) -> str:
        """The measured model's folder. Raises ConfigError where it is another one by now, DataError, CorruptFile."""
        if self._store is None:
            return _same(self._config.model.model, self._run.about["weight_digest"], self._run)
        newest = self._store.newest()
        if newest is None:
            raise DataError(f"no weights in {self._store.directory}", "they were there when the evaluation was made")
        return str(self._store.fetch(newest, node_dir(self._config.store.local_dir)))

    def judge(self) -> str:
        """The folder of the judge's model. Raises ConfigError where it is another one by now, DataError."""
        return _same(self._config.verifier.model, self._run.about["models"]["verifier.model"], self._run)

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


def digest_of(model: str, version: WeightRef | None) -> str:
    """What says whose samples they are. Raises DataError where a Hub id's commit is not known here, Pruned."""
    try:
        digest = model_digest(model)
    except FileNotFoundError:
        digest = ""
    if digest:
        return digest
    if version is not None:
        raise Pruned(f"{version.path} was pruned while it was read", "evaluate a newer version")
    raise DataError(f"nothing here says which commit {model} is", f"{hub.REMEDY}; or name a model's folder")


def refuse_other_weights(run: RunDir, model: str) -> None:
    """Raise ConfigError where `model` is not what the evaluation was made with."""
    if model_digest(model) != run.about["weight_digest"]:
        raise ConfigError(
            f"{model} is not what {run.name} measures: its files, or its commit, changed since that was made",
            f"evaluate it under another name: --set run.name=...; the old table: python submit.py report {run.name}",
        )


def _same(model: str, digest: str, run: RunDir) -> str:
    """The folder of that model; of a Hub id, of the commit that is its digest, downloaded where it is not here."""
    if not Path(model).is_dir():
        return _at_commit(model, digest)
    if model_digest(model) != digest:
        raise ConfigError(
            f"the files in {model} are not those with which {run.name} was made",
            f"put those back and resume; or evaluate anew under another run.name, or with {run.root} removed",
        )
    return model


def _at_commit(model: str, commit: str) -> str:
    from huggingface_hub import snapshot_download

    try:
        hub.answers()
        return snapshot_download(model, revision=commit, allow_patterns=_FILES, ignore_patterns=_OTHER_FORMATS)
    except hub.errors() as error:
        raise DataError(f"{model} at commit {commit[:12]} cannot be had: {hub.reason(error)}", hub.REMEDY) from None
