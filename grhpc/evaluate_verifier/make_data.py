"""The verb `make-verifier-data`: sampled solutions and a judge to a verifier's training data.

Writes OUT, its held-out twin (Parquet or JSONL, one lesson a row), and a manifest of counts and digests beside them.
The columns are named after the parts of the prompt (question, ground_truth, student_answer, verification) unless
`--name` says otherwise: how TIGER-Lab/verifier-sft-data names its own is nowhere to read for this project.

What the judge decided is kept in OUT's folder `.decisions`: of an endpoint as it comes, of an engine after each call. A
repetition after a failure asks only for the rest. It may be removed when all is done.

Does not know: how lessons are made. Invariant: what can be refused is refused before the judge is asked.
"""

import argparse
import dataclasses
import hashlib
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from grhpc.answer.judge import load_template
from grhpc.config_file import load
from grhpc.errors import ConfigError, DataError
from grhpc.evaluate_verifier.apart import apart
from grhpc.evaluate_verifier.command import columns_of, versions
from grhpc.evaluate_verifier.judging import Bench
from grhpc.evaluate_verifier.labelled import digest_of, is_table, read_rows, text
from grhpc.evaluate_verifier.lessons import Lesson, Recipe, answers_of, balanced, hardened, label, split, tally
from grhpc.report.text import one_line
from grhpc.store.atomic import make_dir, to_json, write_bytes, write_json
from grhpc.store.decisions import DecisionLog

COLUMNS = {
    "question": ("question", "problem", "prompt"),
    "reference": ("reference", "ground_truth", "gold", "answer"),
    "responses": ("responses", "response", "solutions", "solution"),
}
LEASE_S = 60.0  # of another process that makes the same file
NAMES = ("question", "ground_truth", "student_answer", "verification", "decision", "origin")


def command(args: argparse.Namespace) -> int:
    """The verb."""
    config = load(args.config, args.overrides)
    recipe = Recipe(args.balance, args.attacks, args.equal, args.heldout, config.run.seed)
    recipe.check()
    out, names = Path(args.out), _names(columns_of(args.name))
    if out.suffix not in (".parquet", ".jsonl"):
        raise ConfigError(f"--out {args.out} has no known ending", "name a .parquet or .jsonl file")
    template = load_template(config.verifier.template)
    paths = [Path(place) for place in args.solutions]
    solutions = [s for path in paths for s in read_solutions(path, columns_of(args.column))][: args.limit]
    counts = Counter[str]()
    folder = out.with_suffix(".decisions")

    def tell_wait(what: str, since_s: float) -> None:
        print(f"waits for {what}, {time.time() - since_s:.0f} s so far", file=judge.terminal)

    memory = DecisionLog(folder, run_id="lessons", task="labelling", lease_s=LEASE_S, on_wait=tell_wait)
    make_dir(out.parent)
    with closing(Bench(config, "generative", memory)) as judge, apart(out.with_suffix(".engine.log")) as judge.terminal:
        labelled = label(judge.decide, template, answers_of(solutions, counts), counts)
        kept = balanced(labelled, recipe.balance, recipe.seed)
        counts["left out to balance"] = len(labelled) - len(kept)
        lessons = kept + hardened(judge.decide, template, kept, recipe, counts)
    if not lessons:
        raise DataError("no lesson is left", f"what became of the responses: {dict(counts)}")
    train, heldout = split(lessons, recipe.heldout)
    twin = out.with_stem(out.stem + "-heldout")
    manifest = {
        "solutions": [str(path) for path in paths],
        "solutions_sha256": digest_of(paths),
        "judge": judge.judge,
        "template_sha256": hashlib.sha256(template.encode()).hexdigest(),
        "recipe": dataclasses.asdict(recipe),
        "counts": dict(counts),
        "usage": judge.usage,
        "files": {
            str(path): tally(part) | {"sha256": write_lessons(path, part, names)}
            for path, part in ((out, train), (twin, heldout))
        },
        "columns": names,
        "versions": versions(),
    }
    write_json(out.with_suffix(".manifest.json"), manifest)
    print("\n".join(_told(manifest)))
    return 0


def read_solutions(path: Path, wanted: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """(question, reference, response) of every response in a table. Raises DataError."""
    if not path.is_file() or not is_table(path):
        raise DataError(f"no table of solutions at {path}", "give parquet, jsonl, json, csv or tsv")
    rows = read_rows(path)
    there = list(dict.fromkeys(column for row in rows for column in row))
    if unknown := sorted(set(wanted) - set(COLUMNS)):
        raise DataError(f"--column names {unknown[0]!r}, which is none of ours", f"use: {', '.join(COLUMNS)}")
    chosen = {}
    for name, usual in COLUMNS.items():
        candidates = (wanted[name],) if name in wanted else usual
        column = next((c for c in candidates if c in there), None)
        if column is None:
            raise DataError(f"no column of {path} is the {name}", f"--column {name}=ONE OF: {', '.join(there)}")
        chosen[name] = column
    found = []
    for row in rows:
        question, reference = text(row.get(chosen["question"])), text(row.get(chosen["reference"]))
        if question and reference:
            found += [(question, reference, response) for response in _responses(row.get(chosen["responses"]))]
    return found


def _responses(value: Any) -> list[str]:
    """One response, a list of them, or the JSON text of a list, as CSV has it."""
    if isinstance(value, str) and value.startswith("["):
        try:
            value = json.loads(value)
        except ValueError:
            return [value]
    return [text(v) for v in value] if isinstance(value, list) else [text(value)]


def write_lessons(path: Path, lessons: Sequence[Lesson], names: Mapping[str, str]) -> str:
    """Write the rows whole or not at all; the sha256 of the file."""
    rows = [
        dict(
            zip(names.values(), (p.question, p.reference, p.answer, x.verification, x.decision, x.origin), strict=True)
        )
        for x in lessons
        for p in (x.pair,)
    ]
    if path.suffix == ".jsonl":
        data = "".join(to_json(row) + "\n" for row in rows).encode("utf-8", "backslashreplace")
    else:
        buffer = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(rows, pa.schema([(n, pa.string()) for n in names.values()])), buffer)
        data = buffer.getvalue().to_pybytes()
    write_bytes(path, data)
    return hashlib.sha256(data).hexdigest()


def _names(wanted: Mapping[str, str]) -> dict[str, str]:
    if unknown := sorted(set(wanted) - set(NAMES)):
        raise ConfigError(f"--name names {unknown[0]!r}, which is none of ours", f"use: {', '.join(NAMES)}")
    names = {name: wanted.get(name, name) for name in NAMES}
    if len(set(names.values())) < len(names):
        raise ConfigError("--name gives two columns the same name", "give each its own")
    return names


def _told(manifest: Mapping[str, Any]) -> list[str]:
    lines = [", ".join(f"{num} {what}" for what, num in manifest["counts"].items())]
    for path, part in manifest["files"].items():
        told = ", ".join(f"{what} {num}" for what, num in part.items() if what != "sha256")
        lines.append(f"{one_line(path)}: {told}")
    if usage := manifest["usage"]:
        tokens = f"{usage['prompt_tokens']:.0f} + {usage['new_tokens']:.0f} tokens"
        cost = f", cost {usage['cost']:.2f}" if usage.get("cost") else ""
        lines.append(f"judge: {usage['requests']:.0f} requests, {tokens}{cost}")
    return lines
