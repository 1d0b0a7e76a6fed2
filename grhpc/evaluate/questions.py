"""A benchmark's rows to its questions: columns read, options put in their order, the user turn written.

Does not know: models, chat templates, tokens. Invariant: the same rows and the same entry give the same questions, in
the rows' order; an item's name is unique within its benchmark.
"""

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from grhpc.errors import DataError
from grhpc.eval_config import EvalConfig
from grhpc.evaluate.benchmarks import Benchmark, FewShot, source_key
from grhpc.evaluate.fields import Row, as_options, as_text, choose, look_up, read_gold
from grhpc.evaluate.prompts import LETTERS, ask, listed, with_examples
from grhpc.evaluate.rows import is_file, read_rows
from grhpc.records import Question

Examples = Callable[[Mapping[str, str]], list[tuple[str, str]]]  # a question's groups -> its worked examples
OPTIONAL = ("item", "context", "gold_type", "error", "unit", "several", "solution")


def read_questions(name: str, benchmark: Benchmark, config: EvalConfig) -> tuple[list[Question], str]:
    """A benchmark's questions, and the digest of its data. Raises DataError, naming the row where there is one."""
    with naming(name, source_key(name, config)):
        source = read_rows(benchmark.source, benchmark.split)
    reader = _Reader(name, benchmark, source.columns)
    rows = [row for row in source.rows if _wanted(row, benchmark.where)]
    if not rows:
        raise DataError(f"{name}: no row of {source.name} is as `where` says", "mend the entry, or name other data")
    orders = _orders(benchmark.shuffle_seed, [len(reader.options(row)) for row in rows])
    examples = _examples(name, benchmark, config)
    asked = [reader.question(index, row, orders[index], examples) for index, row in enumerate(rows)]
    items = Counter(question.item for question in asked)
    if max(items.values()) > 1 or "" in items:  # the data set's own names are no names
        asked = [_named(question, str(question.index)) for question in asked]
    return asked, source.digest


@contextmanager
def naming(name: str, key: str) -> Iterator[None]:
    """What is wrong with data, said with the benchmark's name and the setting that names the place."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{name}: {error.problem}", f"{key}: {error.remedy}") from None


class _Reader:
    """One row after the other, by columns chosen once."""

    def __init__(self, name: str, entry: Benchmark, columns: list[str]) -> None:
        self._name, self._entry = name, entry
        self._columns = choose(columns, entry.fields)
        self._groups = choose(columns, entry.groups)
        there = ", ".join(columns)
        for field in entry.fields:
            if field not in OPTIONAL and field not in self._columns:
                wanted = " or ".join(entry.fields[field])
                problem = f"{name}: {entry.source} has no column {wanted} for the {field}"
                raise DataError(problem, f"set entries.{name}.fields.{field} to one of: {there}")
        _, _, group = entry.metric.partition(":")
        if group and group not in self._groups:
            wanted = " or ".join(entry.groups[group])
            problem = f"{name}: {entry.source} has no column {wanted}, by which the metric {entry.metric} groups"
            raise DataError(problem, f"set entries.{name}.groups.{group} to one of: {there}")
        if missing := [column for column in entry.options_from if column not in columns]:
            problem = f"{name}: {entry.source} has no column {missing[0]!r} of options_from"
            raise DataError(problem, f"set entries.{name}.options_from; there: {there}")

    def question(self, index: int, row: Row, order: list[int] | None, examples: Examples) -> Question:
        try:
            return self._question(index, row, order, examples)
        except DataError as error:
            raise DataError(f"{self._name}: row {index + 1}: {error.problem}", error.remedy) from None

    def _question(self, index: int, row: Row, order: list[int] | None, examples: Examples) -> Question:
        entry = self._entry
        text = "\n\n".join(filter(None, (self._text(row, "context"), self._text(row, "question"))))
        if not text:
            raise DataError("no question", "mend the data")
        options, gold = self._options_and_gold(row, order)
        groups = {kind: as_text(look_up(row, column)) for kind, column in self._groups.items()}
        # Whatever rows the examples are from, none may be the question itself.
        shown = [
            (q, solution) for q, solution in examples(groups) if q.strip() != text and not q.startswith(text + "\n")
        ]
        return Question(
            benchmark=self._name,
            item=self._text(row, "item"),
            index=index,
            question=text,
            prompt=with_examples(ask(entry.prompt, text, options), shown),
            options=options,
            gold=gold,
            gold_type=self._gold_type(row),
            groups=json.dumps(groups, ensure_ascii=False, sort_keys=True),
            num_samples=entry.samples,
        )

    def options(self, row: Row) -> list[str]:
        """A row's options as they stand in it."""
        if self._entry.options_from:
            return [as_text(look_up(row, column)) for column in self._entry.options_from]
        return as_options(self._value(row, "options"))

    def worked(self, row: Row) -> tuple[dict[str, str], tuple[str, str]]:
        """A row's groups, and the example that it makes."""
        options, gold = self._options_and_gold(row, None)
        groups = {kind: as_text(look_up(row, column)) for kind, column in self._groups.items()}
        return groups, (listed(self._text(row, "question"), options), _solution(self._text(row, "solution"), gold))

    def _options_and_gold(self, row: Row, order: list[int] | None) -> tuple[list[str], str]:
        entry, options = self._entry, self.options(row)
        if (entry.options_from or "options" in self._columns) and len(options) < 2:
            raise DataError("fewer than two options", f"mend the data, or entries.{self._name}.fields.options")
        if entry.gold == "first_option":
            gold, right = "A", 0
        else:
            gold = read_gold(entry.gold, self._value(row, "gold"), len(options), f"entries.{self._name}")
            right = LETTERS.find(gold) if options else -1
        if order is not None:
            options = [options[at] for at in order]
            gold = LETTERS[order.index(right)]
        return options, gold

    def _gold_type(self, row: Row) -> str:
        parts = (("", "gold_type"), ("error ", "error"), ("unit ", "unit"))
        told = [f"{label}{text}" for label, field in parts if (text := self._text(row, field))]
        return ", ".join(told + ["several"] * (self._text(row, "several") == "True"))

    def _value(self, row: Row, field: str) -> Any:
        column = self._columns.get(field)
        value = look_up(row, column) if column else None
        if isinstance(value, Mapping) and value:
            remedy = f"set entries.{self._name}.fields.{field} to one of them, such as {column}.{next(iter(value))}"
            raise DataError(f"{column}, for the {field}, holds {', '.join(map(str, value))}", remedy)
        return value

    def _text(self, row: Row, field: str) -> str:
        return as_text(self._value(row, field))


def _wanted(row: Row, where: Mapping[str, str]) -> bool:
    return all(as_text(look_up(row, column)) == value for column, value in where.items())


def _orders(seed: int | None, nums_options: list[int]) -> list[list[int] | None]:
    """The options' order in each row, drawn for one row after the other as simple-evals does for GPQA."""
    if seed is None:
        return [None] * len(nums_options)
    rng = random.Random(seed)
    return [rng.sample(range(num), num) for num in nums_options]


def _examples(name: str, benchmark: Benchmark, config: EvalConfig) -> Examples:
    """The first `num` worked examples of every value of the group that they share with the question."""
    few_shot, num = benchmark.few_shot, config.sample.few_shot
    if not num or few_shot is None:
        return lambda groups: []
    num = min(num, few_shot.num)
    if few_shot.examples:
        fixed = [(example["question"], example["solution"]) for example in few_shot.examples[:num]]
        return lambda groups: fixed
    key = examples_key(name, benchmark, config)
    by_value = _read_examples(name, benchmark, few_shot, num, key)

    def of(groups: Mapping[str, str]) -> list[tuple[str, str]]:
        found = by_value.get(groups.get(few_shot.same, ""), [])
        if not found:
            problem = f"no worked example whose {few_shot.same} is {groups.get(few_shot.same)!r}"
            raise DataError(problem, f"name other data in {key}, or set sample.few_shot: 0")
        return found

    return of


def examples_key(name: str, benchmark: Benchmark, config: EvalConfig) -> str:
    """The setting that says where a benchmark's worked examples are."""
    own = benchmark.few_shot is not None and benchmark.few_shot.source
    return f"entries.{name}.few_shot.source" if own else source_key(name, config)


def _read_examples(
    name: str, benchmark: Benchmark, few_shot: FewShot, num: int, key: str
) -> dict[str, list[tuple[str, str]]]:
    place = few_shot.source or benchmark.source
    if not few_shot.source and is_file(place):  # its only rows are those that are asked
        problem = f"{name}: {place} has no split {few_shot.split!r} for worked examples"
        raise DataError(problem, f"name their place in entries.{name}.few_shot.source, or set sample.few_shot: 0")
    with naming(name, key):
        source = read_rows(place, few_shot.split)
    entry = Benchmark(**{**vars(benchmark), "fields": benchmark.fields | few_shot.fields, "metric": "micro"})
    reader = _Reader(name, entry, source.columns)
    found: dict[str, list[tuple[str, str]]] = {}
    for number, row in enumerate(source.rows, start=1):
        with naming(f"{name}: worked example {number}", key):
            groups, example = reader.worked(row)
        examples = found.setdefault(groups.get(few_shot.same, ""), [])
        if len(examples) < num:
            examples.append(example)
    return found


def _solution(text: str, gold: str) -> str:
    """A worked solution that ends as a response should: with the answer in a box."""
    text = re.sub(r"<<[^<>]*>>", "", text).partition("####")[0]  # GSM8K's calculator, and its mark
    text = re.sub(r"\AA:\s*", "", text).strip()
    return text if "\\boxed" in text else f"{text} \\boxed{{{gold}}}".lstrip()


def _named(question: Question, item: str) -> Question:
    return Question(**{**vars(question), "item": item})
