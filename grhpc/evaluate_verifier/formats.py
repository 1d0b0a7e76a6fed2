"""The shapes of public judgements: which columns tell them, and how one row of theirs becomes labelled pairs.

    evouna              open questions, five systems' answers, human judgement of each (EVOUNA: NQ, TQ)
    nq301               open questions, human judgement; the gold answers stand in a table beside it (OpenQA-eval)
    semeval             student answers graded correct or not, XML (SemEval-2013 task 7), a file or a folder of them
    theoremqa           solutions with a typed reference; no judgement, so labelled by typed comparison
    qwen-math-cot       eight solutions a question, scored by rule
    xverify             model outputs, human judgement
    olympiadbench       expressions that are equal or not
    nemo-gym            rollouts with the reward that rule or judge gave
    general-verifier-log  prompts and replies of TIGER-Lab/general-verifier; its decision is the label
    mmlu-pro            model outputs on multiple choice; right where the letter is
    judgebench          two responses to a multiple-choice question, one of them right

Does not know: judges. Invariant: what a source says is used as it stands; a label is made only where the list above
says so, and the answer is the extractor's wherever the source has a whole response.
"""

import json
import math
import re
import string
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from grhpc.answer.extract import extract_answer
from grhpc.answer.judge import read_decision
from grhpc.errors import DataError
from grhpc.evaluate_verifier.labelled import (
    Labelled,
    LabelledFile,
    Row,
    choose_columns,
    digest_of,
    gathered,
    is_table,
    pairs_of_rows,
    read_label,
    read_rows,
    text,
    tiny_pairs,
)

Pairs = Iterator[Labelled | None]

SYSTEMS = ("fid", "gpt35", "chatgpt", "gpt4", "newbing")
NUMBER_TOLERANCE = 0.01  # relative, for TheoremQA's numbers


@dataclass(frozen=True)
class Format:
    """A public shape: a file with all of these columns has it; `pairs` reads one row.

    `beside` is a column that the file lacks: another file of its folder has it, for the same values in `key`.
    """

    columns: frozenset[str]
    pairs: Callable[[Row], Pairs]
    beside: str = ""
    key: tuple[str, ...] = ()


def _evouna(row: Row) -> Pairs:
    for system in SYSTEMS:
        label = None if row.get("improper") else row.get(f"judge_{system}")
        answer = text(row.get(f"answer_{system}"))
        if isinstance(label, bool):
            yield _pair(row["question"], row["golden_answer"], answer, label, "Open", system, "evouna")
        else:
            yield None


def _nq301(row: Row) -> Pairs:
    gold = text(row["Gold answers"])
    yield _pair(row["Question"], gold, text(row["Model answer"]), read_label(row["Acceptable?"]), "Open", "", "nq301")


def _theoremqa(row: Row) -> Pairs:
    told, value = row["correct"]
    given = text(row["pred"])
    right = _typed_equal(value if value is not None else told, given)
    kind = {bool: "Boolean", float: "Float", int: "Integer", list: "List"}.get(type(value), "Option")
    yield _pair(row["question"], str(told), given, right, kind, "", "theoremqa")


def _typed_equal(value: Any, given: str) -> bool | None:
    """Whether the text says the value; None where it is a whole solution that was never cut down to an answer."""
    if len(given) > 80 or not given:
        return None
    if isinstance(value, str):
        return _bare(value) == _bare(given)
    try:
        said = json.loads(given)
    except ValueError:
        return False
    values = (value if isinstance(value, list) else [value]), (said if isinstance(said, list) else [said])
    if not all(isinstance(v, int | float) and not isinstance(v, bool) for side in values for v in side):
        return False
    close = (math.isclose(a, b, rel_tol=NUMBER_TOLERANCE, abs_tol=1e-9) for a, b in zip(*values, strict=False))
    return len(values[0]) == len(values[1]) and all(close)


def _bare(value: str) -> str:
    return value.strip().strip("().").lower()


def _qwen_math_cot(row: Row) -> Pairs:
    for response, score in zip(row["response"], row["score"], strict=True):
        answer = extract_answer(response)
        yield _pair(row["question"], row["answer"], answer, score, "Maths", text(row.get("level")), "qwen-math-cot")


def _xverify(row: Row) -> Pairs:
    answer, label = extract_answer(row["llm_output"]), read_label(row["human_judgment_result"])
    kind, category = text(row["key_answer_type"]), text(row["dataset"])
    yield _pair(row["question"], row["correct_answer"], answer, label, kind, category, "xverify")


def _olympiadbench(row: Row) -> Pairs:
    for given in row["Ans"]:
        question = "Give the final expression."  # the source has none
        yield _pair(question, row["GT"], given["answer"], read_label(given["equal"]), "Expression", "", "olympiadbench")


def _nemo_gym(row: Row) -> Pairs:
    asked = next(turn["content"] for turn in row["responses_create_params"]["input"] if turn["role"] == "user")
    parts = [part for item in row["response"]["output"] for part in item.get("content") or []]
    response = "\n".join(part.get("text", "") for part in parts)
    label = read_label(row["reward"])
    yield _pair(asked, row["expected_answer"], extract_answer(response), label, "", "", "nemo-gym")


def _mmlu_pro(row: Row) -> Pairs:
    response = row.get("model_outputs") or row.get("generated_text")
    options = (f"({letter}) {option}" for letter, option in zip(string.ascii_uppercase, row["options"], strict=False))
    question = row["question"] + "\nOptions are:\n" + "\n".join(options)
    label = None if row["pred"] is None else row["pred"] == row["answer"]
    answer = extract_answer(response) if isinstance(response, str) else None
    yield _pair(question, row["answer"], answer, label, "Multiple Choice", row["category"], "mmlu-pro")


def _judgebench(row: Row) -> Pairs:
    """The question asks for a letter five times over: so the right response has it. The answers are the last lines."""
    right, wrong = ("response_A", "response_B") if row["label"] == "A>B" else ("response_B", "response_A")
    letters = re.findall(r"\b([A-P])\1{4}\b", row[right])
    last = {name: row[name].strip().splitlines()[-1].strip(" *`.") for name in (right, wrong) if row[name].strip()}
    if not letters or len(last) < 2 or re.search(rf"\b{letters[-1]}{{5}}\b", last[wrong]):
        yield None
        return
    for name, label in ((right, True), (wrong, False)):
        yield _pair(row["question"], 5 * letters[-1], last[name], label, "Multiple Choice", row["source"], "judgebench")


def _pair(
    question: str, reference: str, answer: str | None, label: bool | None, kind: str, category: str, source: str
) -> Labelled | None:
    if label is None or not text(reference) or answer == "":
        return None
    return Labelled(text(question), text(reference), answer, label, kind, category, source)


def _semeval(path: Path) -> Pairs:
    root = ElementTree.parse(path).getroot()
    references = root.findall("referenceAnswers/referenceAnswer")
    best = next((r for r in references if r.get("category") == "BEST"), references[0])
    question, kind = root.findtext("questionText", ""), root.get("qtype") or "Explanation"
    for student in root.findall("studentAnswers/studentAnswer"):
        label = {"correct": True, "incorrect": False, "contradictory": False}.get(student.get("accuracy", ""))
        yield _pair(question, text(best.text), text(student.text), label, kind, text(root.get("module")), "semeval")


_EXCHANGE = re.compile(r"^PROMPT:\n(.*?)^RESPONSE:\n(.*?)(?=^=====+$|\Z)", re.DOTALL | re.MULTILINE)
_ASKED = re.compile(
    r"\AUser: ### Question: (?P<question>.*?)\n\n### Ground Truth Answer: (?P<reference>.*?)"
    r"\n\n### Student Answer: (?P<answer>.*)\n\nFor the above question, please verify",
    re.DOTALL,
)


@dataclass(frozen=True)
class Exchange:
    """One call of a general-verifier: the prompt as it was, the three values in it, and the reply."""

    prompt: str
    values: Mapping[str, str]
    reply: str


def read_exchanges(log: str) -> list[Exchange]:
    """The exchanges of a log with PROMPT: and RESPONSE: headings."""
    found = []
    for prompt, reply in _EXCHANGE.findall(log):
        if asked := _ASKED.match(prompt):
            found.append(Exchange(prompt.rstrip("\n"), asked.groupdict(), reply.rstrip("\n")))
    return found


def _general_verifier_log(path: Path) -> Pairs:
    for exchange in read_exchanges(path.read_text(encoding="utf-8")):
        decision = read_decision(exchange.reply)
        label = None if decision is None else decision == "yes"
        v = exchange.values
        yield _pair(v["question"], v["reference"], v["answer"], label, "", "", "general-verifier-log")


FORMATS: dict[str, Format] = {
    "evouna": Format(frozenset({"question", "golden_answer", "judge_fid", "answer_fid"}), _evouna),
    "nq301": Format(
        frozenset({"Question", "Model answer", "Acceptable?", "annotator1"}),
        _nq301,
        beside="Gold answers",
        key=("Question", "Model answer"),
    ),
    "theoremqa": Format(frozenset({"question", "correct", "pred", "solution"}), _theoremqa),
    "qwen-math-cot": Format(frozenset({"question", "answer", "response", "score", "pred_score"}), _qwen_math_cot),
    "xverify": Format(frozenset({"question", "correct_answer", "llm_output", "human_judgment_result"}), _xverify),
    "olympiadbench": Format(frozenset({"GT", "Ans"}), _olympiadbench),
    "nemo-gym": Format(frozenset({"responses_create_params", "response", "reward", "expected_answer"}), _nemo_gym),
    "mmlu-pro": Format(frozenset({"question", "options", "answer", "pred", "category"}), _mmlu_pro),
    "judgebench": Format(frozenset({"question", "response_A", "response_B", "label"}), _judgebench),
}
FILES: dict[str, Callable[[Path], Pairs]] = {"semeval": _semeval, "general-verifier-log": _general_verifier_log}
OWN = "pairs"
NAMES = (OWN, *FORMATS, *FILES)
_BY_SUFFIX = {".xml": "semeval", ".txt": "general-verifier-log"}


def read_labelled(place: str, name: str = "", columns: Mapping[str, str] | None = None) -> LabelledFile:
    """The labelled pairs of a file, of a folder of XML files, or of `tiny:N`; the format by its name or shape.

    Raises DataError where the file is missing, unreadable or has no labelled pair.
    """
    if place.partition(":")[0] == "tiny" and place.partition(":")[2].isdigit():
        return tiny_pairs(int(place.partition(":")[2]))
    path = Path(place)
    if not path.exists():
        raise DataError(f"no such file: {place}", "give labelled pairs, or tiny:N for N pairs of the tiny world")
    paths = sorted(path.rglob("*.xml")) if path.is_dir() else [path]
    name = name or _BY_SUFFIX.get(paths[0].suffix if paths else "", "")
    try:
        if name in FILES:
            return gathered(place, (pair for file in paths for pair in FILES[name](file)), digest_of(paths))
        if not path.is_file() or not is_table(path):
            raise DataError(f"{place} is no table that is known here", "give parquet, jsonl, json, csv, tsv, xml, txt")
        rows = read_rows(path)
        return gathered(place, _table_pairs(rows, name, columns or {}, path), digest_of([path]))
    except (KeyError, TypeError, ValueError, IndexError, StopIteration, ElementTree.ParseError) as error:
        problem = f"{place} is not what the format {name or OWN} expects: {type(error).__name__}: {error}"
        raise DataError(problem, f"name another --format: {', '.join(NAMES)}") from None


def _table_pairs(rows: list[dict[str, Any]], name: str, columns: Mapping[str, str], path: Path) -> Pairs:
    there = list(dict.fromkeys(column for row in rows for column in row))
    if not name and not columns:
        name = next((n for n, known in FORMATS.items() if known.columns <= set(there)), "")
    if name in FORMATS:
        if missing := sorted(FORMATS[name].columns - set(there)):
            raise DataError(f"{path} is not {name}: it has no column {missing[0]!r}", f"there: {', '.join(there)}")
        for row in _joined(rows, FORMATS[name], path):
            yield from FORMATS[name].pairs(row)
    else:
        yield from pairs_of_rows(rows, choose_columns(there, columns, str(path)), path.stem)


def _joined(rows: list[dict[str, Any]], form: Format, path: Path) -> list[dict[str, Any]]:
    """The rows with the column that another file of the folder has. Raises DataError where none has it."""
    if not form.beside:
        return rows
    for other in sorted(path.parent.glob(f"*{path.suffix}")):
        found = {
            tuple(row.get(k) for k in form.key): row[form.beside] for row in read_rows(other) if form.beside in row
        }
        if found:
            return [row | {form.beside: found.get(tuple(row[k] for k in form.key), "")} for row in rows]
    raise DataError(f"no {path.suffix} file beside {path} has the column {form.beside!r}", "put it there")
