"""An evaluation is made: its settings resolved, its directory with every question in it, by one rename.

Does not know: jobs, how it is shown. Invariant: an evaluation that is there has all its questions, each once, in shards
that its configuration alone decides; whatever is lost of them later can be put back from the prepared data.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from grhpc.config import RunConfig
from grhpc.config_file import with_absolute_paths
from grhpc.errors import ConfigError, DataError
from grhpc.eval_config import EvalConfig
from grhpc.evaluate.benchmarks import load_benchmarks
from grhpc.evaluate.measured import digest_of, find_version, link_version
from grhpc.evaluate.prepare import load_questions, read_prepared
from grhpc.store import code
from grhpc.store.model_digest import model_digest
from grhpc.store.questions import Extent, QuestionShard
from grhpc.store.rundir import QUEUES, RunDir
from grhpc.store.weights import WeightRef

QUESTIONS, SAMPLES, SCORES, RESULTS = QUEUES["eval"]


@dataclass(frozen=True)
class Model:
    """What is measured: `model` is a folder, a Hub id, or a server's name for it; `label` names it in tables.

    `weights` and `owner` are of one published version of a run."""

    model: str
    label: str
    weights: WeightRef | None = None
    owner: RunDir | None = None


def model_of(words: str) -> Model:
    """A folder, a Hub id, or a server's model; of a folder the last part of its path names it."""
    return Model(words, Path(words).resolve().name if Path(words).is_dir() else words)


def version_of(owner: RunDir, version: int | None) -> Model:
    """A published version of a run of GRPO, the newest for None. Raises DataError naming those that are there."""
    ref = find_version(owner, version)
    return Model(str(ref.path), f"{owner.name} v{ref.version}", ref, owner)


def settled(config: EvalConfig, root: Path, model: str) -> EvalConfig:
    """The configuration as the evaluation in `root` holds it: every entry and every path written out."""
    entries = {name: asdict(entry) for name, entry in load_benchmarks(config).items()}
    run = RunConfig(root.name, str(root.parent), config.run.seed)
    placed = replace(config, run=run, entries=entries, model=replace(config.model, model=model))
    return with_absolute_paths(placed)


def create(root: Path, config: EvalConfig, model: Model, **about: Any) -> RunDir:
    """The evaluation of `model` in `root`, by a `settled` configuration whose questions are prepared.

    Raises DataError, StoreError, Pruned.
    """
    prepared = read_prepared(config)
    if prepared is None:
        raise DataError(f"{config.data.prepared} lacks questions", "run: python -m grhpc.evaluate.prepare CONFIG")
    parts = prepared["benchmarks"]
    extent = Extent(
        questions={name: _num_asked(parts[name]["questions"], config) for name in config.benchmarks},
        samples={name: parts[name]["samples"] // parts[name]["questions"] for name in config.benchmarks},
        per_shard=config.sample.questions_per_shard,
    )

    ours = code.present()

    def fill(run: RunDir) -> None:
        ours.begin(run)
        if refused := _put(run, config, extent.shards()):
            raise ConfigError(f"two benchmarks share the shard {refused[0]}", "name them more differently")
        if model.weights is not None and model.owner is not None:
            link_version(model.owner, model.weights, run)

    if model.weights is not None and model.owner is not None:
        about |= {"weights_of": model.owner.run_id, "of_run": model.owner.name, "version": model.weights.version}
    digest = "" if config.sample.endpoint.url else digest_of(config.model.model, model.weights)
    about["model"], about["weight_digest"], about["extent"] = model.label, digest, extent.as_json()
    about["code"] = ours.first()
    about["models"] = {"model.model": digest, "verifier.model": model_digest(config.verifier.model)}
    about["data"] = {name: parts[name]["data_sha256"] for name in config.benchmarks}
    about["questions"] = {name: parts[name]["sha256"] for name in config.benchmarks}
    return RunDir.create(root, config, fill, **about)


def _num_asked(num: int, config: EvalConfig) -> int:
    return num if config.data.limit is None else min(num, config.data.limit)


def put_back(run: RunDir) -> int:
    """Give every shard that failed, or is nowhere, another chance; how many there were.

    Samples that can still be read are graded again, what cannot is asked again. Raises DataError where that needs
    prepared questions which are there no more.
    """
    config, extent = run.evaluation(), Extent.of(run.about)
    queues = {name: run.queue(name) for name in (QUESTIONS, SAMPLES, SCORES)}
    revived = 0
    run.queue(RESULTS).revive()
    for name in (QUESTIONS, SAMPLES):
        revived += len(queues[name].revive())
        for damaged in queues[name].failed():
            run.set_aside(damaged.path, damaged.reason)
    # In the order in which a shard goes through them: one that moves on meanwhile is seen at least once.
    present = {shard for queue in queues.values() for names in queue.names().values() for shard in names}
    missing = [shard for shard in extent.shards() if shard.name not in present]
    if missing:
        _refuse_other_questions(run, config, {shard.benchmark for shard in missing})
        _put(run, config, missing)
    return revived + len(missing)


def _refuse_other_questions(run: RunDir, config: EvalConfig, benchmarks: set[str]) -> None:
    prepared = read_prepared(config)
    parts = {} if prepared is None else prepared["benchmarks"]
    for name in sorted(benchmarks):
        if name not in parts or parts[name]["sha256"] != run.about["questions"][name]:
            raise DataError(
                f"questions of {name} are lost, and {config.data.prepared} holds others than it began with",
                "put the prepared folder back, or evaluate anew under another run.name",
            )


def _put(run: RunDir, config: EvalConfig, shards: Iterable[QuestionShard]) -> list[str]:
    """Put the shards' questions into their queue; the names of those that were there."""
    queue, loaded, there = run.queue(QUESTIONS), "", []
    for shard in shards:
        if shard.benchmark != loaded:
            questions, loaded = load_questions(Path(config.data.prepared), shard.benchmark), shard.benchmark
        if not queue.put(shard.name, questions[shard.first : shard.first + shard.count]):
            there.append(shard.name)
    return there
