"""The benchmarks: what each one is, as small declarative entries of benchmarks.yaml and of the configuration.

An entry says where the rows are, which columns hold what, how the question is put, how the right answer is written, how
a response is scored, and which mean is the figure. A configuration changes shipped entries, or adds others, under
`entries`, and names other places for the data under `data.sources`.

Does not know: rows, models, scores. Invariant: what `load_benchmarks` returns is checked: known prompt, scorer, way to
read the right answer, and metric; every column setting is a list of alternatives.
"""

import dataclasses
import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from grhpc.errors import ConfigError
from grhpc.eval_config import EvalConfig
from grhpc.evaluate.prompts import PROMPTS, SLOTS, slots
from grhpc.strict import build, read_yaml

SHIPPED = Path(__file__).with_name("benchmarks.yaml")
SCORERS = ("letter", "math", "theoremqa", "olympiad", "bbeh", "tiny")
GOLDS = ("text", "letter", "index", "first_option", "boxed", "after_hashes")
FIELDS = ("question", "gold", "options", "item", "context", "gold_type", "error", "unit", "several", "solution")
NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")
MEANS = ("micro", "macro", "harmonic")


@dataclass(frozen=True)
class FewShot:
    """Worked examples, first to last. `same`: only those whose group of this name is the question's."""

    num: int  # at most; `sample.few_shot` asks for as many or fewer
    source: str = ""  # empty: the benchmark's own
    split: str = "train"
    fields: dict[str, list[str]] = field(default_factory=dict)  # beside the benchmark's own
    same: str = ""
    examples: list[dict[str, str]] = field(default_factory=list)  # question and solution, where they are no data set's


@dataclass(frozen=True)
class Benchmark:
    """One benchmark. Columns are alternatives: the first that the data has; a dot goes into a nested value."""

    source: str  # Hub id (id:configuration), folder, file, pattern of files, or "tiny"
    scorer: str
    fields: dict[str, list[str]]  # ours (FIELDS) -> theirs
    title: str = ""  # for tables; empty: the entry's name
    split: str = "test"
    prompt: str = "maths"  # a name in evaluate/prompts.py, or a text with {question}, and {options} if there are any
    gold: str = "text"  # how the right answer is written in its column (GOLDS)
    groups: dict[str, list[str]] = field(default_factory=dict)  # kind of category -> column
    options_from: list[str] = field(default_factory=list)  # columns that hold one option each
    shuffle_seed: int | None = None  # options in another order for every row, one generator for all rows
    where: dict[str, str] = field(default_factory=dict)  # only rows whose column has this value; "" is empty
    metric: str = "micro"  # or macro:GROUP, harmonic:GROUP
    samples: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    pass_at: list[int] = field(default_factory=list)
    few_shot: FewShot | None = None
    published: dict[str, float] = field(default_factory=dict)  # model -> per cent


@dataclass(frozen=True)
class Average:
    """A published mean of several benchmarks."""

    of: list[str]
    published: dict[str, float]
    title: str = ""


def load_benchmarks(config: EvalConfig) -> dict[str, Benchmark]:
    """The entries that the configuration names, in its order. Raises ConfigError."""
    trees = dict(_shipped()["benchmarks"])
    for name, changes in config.entries.items():
        if not NAME.fullmatch(name):
            raise ConfigError(f"entries: {name!r} is no name", "use small letters, digits, `_`, `-` and `.`")
        if not isinstance(changes, dict):
            raise ConfigError(f"entries.{name} must be a mapping", "write `key: value` lines; see docs/evaluation.md")
        trees[name] = _merged(trees.get(name, {}), changes)
    for where, names in (("benchmarks", config.benchmarks), ("data.sources", config.data.sources)):
        if unknown := next((name for name in names if name not in trees), None):
            raise ConfigError(f"{where} names {unknown!r}, and there is no such benchmark", _nearest(unknown, trees))
    entries = {name: _build(name, trees[name]) for name in config.benchmarks}
    sources = config.data.sources
    return {
        name: dataclasses.replace(entry, source=sources[name]) if name in sources else entry
        for name, entry in entries.items()
    }


def source_key(name: str, config: EvalConfig) -> str:
    """The setting that says where a benchmark's rows are; of a shipped one, which none does, that which would."""
    own = "source" in config.entries.get(name, {}) and name not in config.data.sources
    return f"entries.{name}.source" if own else f"data.sources.{name}"


def load_averages() -> dict[str, Average]:
    """The published means of several benchmarks, by name."""
    return {name: build(Average, tree, f"averages.{name}") for name, tree in _shipped()["averages"].items()}


@cache
def _shipped() -> dict[str, Any]:
    return read_yaml(SHIPPED)


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` over `below`; mappings are merged, everything else is replaced."""
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def _build(name: str, tree: Mapping[str, Any]) -> Benchmark:
    where = f"entries.{name}"
    entry = build(Benchmark, _with_lists(tree), where)
    _check(where, entry)
    return entry


def _with_lists(tree: Mapping[str, Any]) -> dict[str, Any]:
    """One column may be written without the brackets of a list."""
    changed = dict(tree)
    for key in ("fields", "groups"):
        if isinstance(tree.get(key), dict):
            changed[key] = {k: [v] if isinstance(v, str) else v for k, v in tree[key].items() if v is not None}
    if isinstance(tree.get("few_shot"), dict):
        changed["few_shot"] = _with_lists(tree["few_shot"])
    if isinstance(tree.get("where"), dict):
        changed["where"] = {k: "" if v is None else str(v) for k, v in tree["where"].items()}
    return changed


def _check(where: str, entry: Benchmark) -> None:
    choices = (("scorer", entry.scorer, SCORERS), ("gold", entry.gold, GOLDS))
    for key, value, known in choices:
        if value not in known:
            raise ConfigError(f"{where}.{key} is {value!r}", _nearest(value, known))
    _check_prompt(f"{where}.prompt", entry)
    for key in [*entry.fields, *(entry.few_shot.fields if entry.few_shot else ())]:
        if key not in FIELDS:
            raise ConfigError(f"{where}.fields names {key!r}, which is not a field of ours", _nearest(key, FIELDS))
    needed = {"question"} | (set() if entry.gold == "first_option" else {"gold"})
    if missing := sorted(needed - set(entry.fields)):
        raise ConfigError(f"{where}.fields has no {missing[0]}", f"add `{missing[0]}: <column>`")
    mean, _, group = entry.metric.partition(":")
    if mean not in MEANS or (mean == "micro") != (group == "") or (group and group not in entry.groups):
        groups = ", ".join(entry.groups) or f"none; `{where}.groups` would name some"
        remedy = f"use micro, macro:GROUP or harmonic:GROUP; its groups: {groups}"
        raise ConfigError(f"{where}.metric is {entry.metric!r}", remedy)
    _check_numbers(where, entry)


def _check_prompt(where: str, entry: Benchmark) -> None:
    if entry.prompt in PROMPTS:
        return
    if re.fullmatch(r"[\w-]+", entry.prompt):
        raise ConfigError(f"{where} is {entry.prompt!r}", _nearest(entry.prompt, PROMPTS))
    there = " and ".join(f"{{{name}}}" for name in SLOTS)
    ours, unknown = slots(entry.prompt)
    if unknown:
        remedy = f"there are {there}; braces that are to stay as they are: {{ {unknown[0]} }}"
        raise ConfigError(f"{where} has {{{unknown[0]}}}, for which nothing is put in", remedy)
    has_options = bool(entry.options_from or "options" in entry.fields)
    if "question" not in ours and not ("options" in ours and has_options):
        raise ConfigError(f"{where} has no {{question}}, so none would be asked", f"there are {there}")


def _check_numbers(where: str, entry: Benchmark) -> None:
    if entry.samples < 1 or not 0 <= entry.temperature < math.inf or not 0 < entry.top_p <= 1:
        raise ConfigError(
            f"{where}: samples {entry.samples}, temperature {entry.temperature}, top_p {entry.top_p}",
            "samples must be at least 1, temperature at least 0, top_p above 0 and at most 1",
        )
    if entry.samples > 1 and entry.temperature == 0:
        raise ConfigError(
            f"{where}: {entry.samples} samples at temperature 0 are all the same", f"raise {where}.temperature"
        )
    if entry.few_shot and entry.few_shot.num < 1:
        raise ConfigError(f"{where}.few_shot.num is {entry.few_shot.num}", "it must be at least 1")
    if entry.few_shot and any(set(e) != {"question", "solution"} for e in entry.few_shot.examples):
        raise ConfigError(f"{where}.few_shot.examples has one that is not whole", "give each a question and a solution")
    if too_many := [k for k in entry.pass_at if not 1 <= k <= entry.samples]:
        raise ConfigError(f"{where}.pass_at {too_many[0]} of {entry.samples} samples", "ask for as many samples")


def _nearest(word: str, known: Any) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"choose one of: {', '.join(known)}"
