"""Benchmarks to prepared questions: a folder that the tasks of any evaluation read, without network or source.

For each benchmark NAME.parquet (Question rows) and then NAME.json (what they were made of) in data.prepared, so that
evaluations of different benchmarks may share the folder. Also a program: `python -m grhpc.evaluate.prepare CONFIG`.
All of a benchmark's questions are prepared: an evaluation with data.limit asks the first of them.
Does not know: models, chat templates, runs. Invariant: NAME.json is written last, so a benchmark with one is whole;
nothing is written before all that are wanted have been read.
"""

import dataclasses
import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from grhpc.config_file import check
from grhpc.data import program
from grhpc.errors import DataError
from grhpc.eval_config import EvalConfig
from grhpc.evaluate.benchmarks import Benchmark, load_benchmarks, source_key
from grhpc.evaluate.prompts import PROMPTS
from grhpc.evaluate.questions import examples_key, naming, read_questions
from grhpc.evaluate.rows import local_files
from grhpc.records import Question
from grhpc.store.atomic import list_names, read_bytes, read_json, write_json
from grhpc.store.shard import read_shard, write_shard

STAMP = "prepared"  # prepared questions belong to no run: the run id of their shards
NOT_PREPARED = ("scorer", "metric", "temperature", "top_p", "pass_at", "published", "title")  # what no question shows


def prepare(config: EvalConfig) -> dict[str, Any]:
    """Write what is not prepared yet, and return the manifest: {"benchmarks": {name: its part}}.

    Raises ConfigError, and DataError for missing or unreadable data, and where a benchmark was prepared with other
    settings or of other data.
    """
    check(config)
    benchmarks = load_benchmarks(config)
    known = {name: _unchanged(config, name, entry, with_data=True) for name, entry in benchmarks.items()}
    wanted = {name: entry for name, entry in benchmarks.items() if known[name] is None}
    sources = {name: _sources(config, name, entry) for name, entry in wanted.items()}  # before they are read
    made = {name: read_questions(name, entry, config) for name, entry in wanted.items()}
    folder = Path(config.data.prepared)
    folder.mkdir(parents=True, exist_ok=True)
    for name, (questions, digest) in made.items():
        part = {
            "settings": _settings(config, benchmarks[name]),
            "sources": sources[name],
            "data_sha256": digest,
            "questions": len(questions),
            "samples": sum(question.num_samples for question in questions),
            "sha256": write_shard(folder / f"{name}.parquet", questions, run_id=STAMP),
        }
        write_json(folder / f"{name}.json", part)
        known[name] = part
    return {"benchmarks": known}


def read_prepared(config: EvalConfig, *, with_data: bool = False) -> dict[str, Any] | None:
    """The manifest of the benchmarks that the configuration names, None where one is not prepared.

    Raises DataError where one was prepared with other settings, or, if `with_data`, of other data than those that are
    here now. Whoever goes on with what was prepared once does not ask that.
    """
    parts = {name: _unchanged(config, name, entry, with_data) for name, entry in load_benchmarks(config).items()}
    return None if None in parts.values() else {"benchmarks": parts}


def read_current(config: EvalConfig) -> dict[str, Any] | None:
    """`read_prepared` for a new evaluation, which is to ask what the data say now."""
    return read_prepared(config, with_data=True)


def load_questions(prepared_dir: Path, name: str) -> list[Question]:
    """A benchmark's questions, in their fixed order. Raises DataError where it is not prepared."""
    if _read_part(prepared_dir, name) is None:
        raise DataError(f"{prepared_dir} has no prepared {name}", "run: python -m grhpc.evaluate.prepare CONFIG")
    return read_shard(prepared_dir / f"{name}.parquet", Question, run_id=STAMP)


def summary_lines(manifest: dict[str, Any]) -> list[str]:
    """The manifest for people."""
    return [
        f"{name}: {part['questions']} questions"
        + (f", {part['samples']} responses" if part["samples"] > part["questions"] else "")
        + (f", {part['settings']['few_shot']} worked examples" if part["settings"]["few_shot"] else "")
        for name, part in manifest["benchmarks"].items()
    ]


def _unchanged(config: EvalConfig, name: str, entry: Benchmark, with_data: bool) -> dict[str, Any] | None:
    folder = Path(config.data.prepared)
    part = _read_part(folder, name)
    if part is None:
        return None
    now = _settings(config, entry)
    different = [key for key in now if part["settings"].get(key) != now[key]]
    first = part["settings"].get("limit")  # of a folder from when only the first questions were prepared
    if first is not None and (config.data.limit is None or config.data.limit > first):
        different.append("limit")
    sources = list(zip(part.get("sources", []), _sources(config, name, entry), strict=False))
    if not sources or not all(_may_be_the_same(before, after) for before, after in sources):
        different.append("source")
    remedy = f"name another folder in data.prepared, or remove {name}.json there if no evaluation needs it"
    if different:
        raise DataError(f"{name} in {folder} was prepared with other settings ({', '.join(different)})", remedy)
    if with_data and (changed := [after[0] for before, after in sources if after[1] not in ("", before[1])]):
        raise DataError(f"{name} in {folder} was prepared of other data than {changed[0]} holds now", remedy)
    return part


def _may_be_the_same(before: list[str], now: list[str]) -> bool:
    """Whether a source is, by its name, what was prepared. A place does not tell: data and what is prepared of them are
    copied to other machines, the one maybe without the other."""
    if before[1] and not now[1]:
        return Path(before[0]).name == Path(now[0]).name
    return bool(now[1]) if before[1] else before == now


def _read_part(folder: Path, name: str) -> dict[str, Any] | None:
    if f"{name}.json" not in list_names(folder):
        return None
    part: dict[str, Any] = read_json(folder / f"{name}.json")
    return part


def _settings(config: EvalConfig, entry: Benchmark) -> dict[str, Any]:
    """Everything of the configuration that a benchmark's questions depend on, but for where the data are."""
    settings = {key: value for key, value in dataclasses.asdict(entry).items() if key not in (*NOT_PREPARED, "source")}
    few_shot, wanted = settings.pop("few_shot"), _num_examples(config, entry)
    settings |= {
        "prompt": PROMPTS.get(entry.prompt, entry.prompt),
        "few_shot": wanted,
        "examples": few_shot | {"source": ""} if wanted else None,
    }
    plain: dict[str, Any] = json.loads(json.dumps(settings))
    return plain


def _num_examples(config: EvalConfig, entry: Benchmark) -> int:
    return min(config.sample.few_shot, entry.few_shot.num) if entry.few_shot else 0


def _sources(config: EvalConfig, name: str, entry: Benchmark) -> list[list[str]]:
    """What the questions are made of, and their examples: name and, of files that are here, the digest."""
    places, few_shot = [(source_key(name, config), entry.source, entry.split)], entry.few_shot
    if few_shot and _num_examples(config, entry) and not few_shot.examples:
        places.append((examples_key(name, entry, config), few_shot.source or entry.source, few_shot.split))
    found = []
    for key, source, split in places:
        with naming(name, key):
            found.append([source, _digest(local_files(source, split))])
    return found


def _digest(files: Sequence[Path]) -> str:
    """Of the bytes, and of the folders' names where they tell files apart; "" of none."""
    digest, named = hashlib.sha256(), len({path.parent for path in files}) > 1
    for path in files:
        content = read_bytes(path)
        digest.update(f"{path.parent.name if named else ''}\0{len(content)}\0".encode() + content)
    return digest.hexdigest() if files else ""


def _steps(config: EvalConfig) -> Iterator[str]:
    done = "prepared" if read_current(config) is None else "already prepared"
    if done == "prepared":
        yield f"preparing {', '.join(config.benchmarks)} ..."
    yield from summary_lines(prepare(config))
    yield f"{done} in {config.data.prepared}"


def main(argv: Sequence[str] | None = None) -> int:
    return program.run("grhpc.evaluate.prepare", "Make benchmarks' questions.", EvalConfig, _steps, argv)


if __name__ == "__main__":
    sys.exit(main())
