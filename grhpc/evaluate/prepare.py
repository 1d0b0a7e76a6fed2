"""Benchmarks to prepared questions: a folder that the tasks of any evaluation read, without network or source.

For each benchmark NAME.parquet (Question rows) and then NAME.json (what they were made of) in data.prepared, so that
evaluations of different benchmarks may share the folder. Also a program: `python -m grhpc.evaluate.prepare CONFIG`.
Does not know: models, chat templates, runs. Invariant: NAME.json is written last, so a benchmark with one is whole;
nothing is written before all that are wanted have been read.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from grhpc.config_file import load_as
from grhpc.errors import DataError, GrhpcError
from grhpc.eval_config import EvalConfig
from grhpc.evaluate.benchmarks import Benchmark, load_benchmarks
from grhpc.evaluate.prompts import PROMPTS
from grhpc.evaluate.questions import read_questions
from grhpc.records import Question
from grhpc.store.atomic import list_names, read_json, write_json
from grhpc.store.shard import read_shard, write_shard

STAMP = "prepared"  # prepared questions belong to no run: the run id of their shards
NOT_PREPARED = ("scorer", "metric", "temperature", "top_p", "pass_at", "published", "title")  # what no question shows


def prepare(config: EvalConfig) -> dict[str, Any]:
    """Write what is not prepared yet, and return the manifest: {"benchmarks": {name: its part}}.

    Raises DataError for missing or unreadable data, and where a benchmark was prepared with other settings.
    """
    benchmarks = load_benchmarks(config)
    known = {name: _unchanged(config, name, entry) for name, entry in benchmarks.items()}
    made = {name: read_questions(name, benchmarks[name], config) for name in benchmarks if known[name] is None}
    folder = Path(config.data.prepared)
    folder.mkdir(parents=True, exist_ok=True)
    for name, (questions, digest) in made.items():
        part = {
            "settings": _settings(config, benchmarks[name]),
            "data_sha256": digest,
            "questions": len(questions),
            "samples": sum(question.num_samples for question in questions),
            "sha256": write_shard(folder / f"{name}.parquet", questions, run_id=STAMP),
        }
        write_json(folder / f"{name}.json", part)
        known[name] = part
    return {"benchmarks": known}


def read_prepared(config: EvalConfig) -> dict[str, Any] | None:
    """The manifest of the benchmarks that the configuration names, None where one is not prepared.

    Raises DataError where one was prepared with other settings.
    """
    parts = {name: _unchanged(config, name, entry) for name, entry in load_benchmarks(config).items()}
    return None if None in parts.values() else {"benchmarks": parts}


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


def _unchanged(config: EvalConfig, name: str, entry: Benchmark) -> dict[str, Any] | None:
    folder = Path(config.data.prepared)
    part = _read_part(folder, name)
    if part is None:
        return None
    now = _settings(config, entry)
    if different := [key for key in now if part["settings"].get(key) != now[key]]:
        raise DataError(
            f"{name} in {folder} was prepared with other settings ({', '.join(different)})",
            f"name another folder in data.prepared, or remove {name}.json there if no evaluation needs it",
        )
    return part


def _read_part(folder: Path, name: str) -> dict[str, Any] | None:
    if f"{name}.json" not in list_names(folder):
        return None
    part: dict[str, Any] = read_json(folder / f"{name}.json")
    return part


def _settings(config: EvalConfig, entry: Benchmark) -> dict[str, Any]:
    """Everything of the configuration that a benchmark's questions depend on."""
    settings = {key: value for key, value in dataclasses.asdict(entry).items() if key not in NOT_PREPARED}
    few_shot = settings.pop("few_shot")
    wanted = min(config.sample.few_shot, few_shot["num"]) if few_shot else 0
    settings |= {
        "source": str(Path(entry.source).absolute()) if _is_here(entry.source) else entry.source,
        "prompt": PROMPTS.get(entry.prompt, entry.prompt),
        "limit": config.data.limit,
        "few_shot": wanted,
        "examples": few_shot if wanted else None,
    }
    plain: dict[str, Any] = json.loads(json.dumps(settings))
    return plain


def _is_here(source: str) -> bool:
    return Path(source).exists() or "*" in source


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m grhpc.evaluate.prepare", description="Make benchmarks' questions.")
    parser.add_argument("config")
    parser.add_argument("--set", action="append", default=[], metavar="section.key=value", dest="overrides")
    args = parser.parse_args(argv)
    try:
        config = load_as(EvalConfig, args.config, args.overrides)
        done = "prepared" if read_prepared(config) is None else "already prepared"
        if done == "prepared":
            print(f"preparing {', '.join(config.benchmarks)} ...", flush=True)
        manifest = prepare(config)
    except GrhpcError as error:
        print(f"error: {error.problem}\n  do: {error.remedy}", file=sys.stderr)
        return 2
    print("\n".join([*summary_lines(manifest), f"{done} in {config.data.prepared}"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
