"""How far our scorers agree with verdicts that others published, and with right answers in other words. Prints JSON.

    python tests/bench/bench_agreement.py JUDGED [EVAL] [--list]

JUDGED is a folder of published files, EVAL one of benchmarks; what is absent is skipped, and named on stderr. `--list`
prints each row that is no agreement, before the counts. The verdicts of others stand in their files; only TheoremQA's
stand in none, so its rule is written here anew.

JUDGED, all on github.com:
    mmlu_pro_outputs/*.jsonl            TIGER-AI-Lab/MMLU-Pro, out of eval_results/model_outputs_*_5shots.zip
    theoremqa_outputs/*.jsonl           TIGER-AI-Lab/TheoremQA, outputs/
    olympiadbench_scoring/*.json        OpenBMB/OlympiadBench, eval/scoring_examples.json
    qwen_math_cot/*.jsonl               hkust-nlp/simpleRL-reason, examples/simplelr_math_eval/data/eval_rm_maj_example/
    judgebench/*.jsonl                  ScalerLab/JudgeBench, data/, the rows whose source is MMLU-Pro
EVAL: the files of `SOURCES`, of the same repositories, google-deepmind/bbeh, openai/grade-school-math,
GAIR-NLP/lm-open-science-evaluation (SuperGPQA) and TIGER-AI-Lab/One-Shot-CFT (AIME 2025).
The documented figures are of samples of these files, half the rows or fewer; whole files give other counts.
"""

import argparse
import ast
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from grhpc.answer.choice import options_of
from grhpc.answer.extract import extract_answer
from grhpc.answer.rules import exact
from grhpc.config import RunConfig
from grhpc.eval_config import EvalConfig, EvalDataConfig
from grhpc.evaluate.benchmarks import load_benchmarks
from grhpc.evaluate.prompts import LETTERS
from grhpc.evaluate.questions import read_questions
from grhpc.evaluate.scoring import Graded, grade
from grhpc.evaluate.scoring_letter import read_letter
from grhpc.evaluate.scoring_number import read_number, split_outside
from grhpc.evaluate.scoring_typed import same_theoremqa
from grhpc.judge.decide import Pair
from grhpc.judge.layers import RuleDecider
from grhpc.records import YES, Question, Sample

SOURCES = {
    "mmlu-pro": "mmlu_pro/test.jsonl",
    "supergpqa": "supergpqa",
    "theoremqa": "theoremqa/theoremqa_test.json",
    "bbeh": "bbeh_mini/data.json",
    "math500": "math500/test.jsonl",
    "olympiadbench": "olympiadbench/test.jsonl",
    "minerva": "minerva_math/test.jsonl",
    "gsm8k": "gsm8k/test.jsonl",
    "amc23": "amc23/test.jsonl",
    "aime24": "aime24/test.jsonl",
    "aime25": "aime25/test.jsonl",
}
BY_LETTER_AND_TEXT = (
    "\\boxed{%(letter)s. %(text)s}",
    "\\boxed{(%(letter)s) %(text)s}",
    "\\boxed{%(letter)s: %(text)s}",
    "The answer is (%(letter)s) %(text)s.",
    "\\boxed{%(text)s (%(letter)s)}",
    "\\boxed{%(letter)s) %(text)s}",
)
WITH_ANOTHERS_LETTER = ("\\boxed{(%(letter)s) %(text)s}", "\\boxed{%(text)s (%(letter)s)}")
DRESSES = (
    "So we get $\\boxed{%s}$.",
    "**Final Answer:** %s",
    "The answer is %s.",
    "\\[\n\\boxed{ %s }\n\\]",
    "<think>Maybe \\boxed{5}? no</think>\nThe answer is \\boxed{%s}.",
    "The final answer is $\\boxed{%s}$. I hope it is correct.",
)
WITH_DECIMAL = (
    "{g} \\approx {v:.3g}", "{g} = {v:.3f}", "{g}\\ (\\text{{approx. }}{v:.2f})", "{g} ({v:.3f})",
    "{g} \\;(\\approx {v:.3f})", "{v:.10g} = {g}", "{g} ({v:.10g})", "x = {g} \\approx {v:.3f}",
)  # fmt: skip
WITH_REASON = ("\\boxed{%s, because no such x exists}", "The answer is %s, since not all are true")
REST: dict[str, Any] = {"sample": 0, "num_tokens": 1, "finish_reason": "stop", "seed": 0, "weight_digest": ""}
AGREE, DISAGREE, LEFT, AS_IT_SHOULD = "agree", "disagree", "left to the judge", "as it should be"


class Row(NamedTuple):
    """One row of one count: what it says, and the words to show where it is no agreement."""

    name: str
    said: str
    words: tuple[Any, ...] = ()


def graded(scorer: str, response: str, gold: str, question: str, options: Sequence[str] = (), kind: str = "") -> Graded:
    told: dict[str, Any] = {"question": question, "prompt": question, "gold": gold, "gold_type": kind}
    told |= {"benchmark": "b", "item": "0", "index": 0, "groups": "{}", "num_samples": 1, "options": list(options)}
    return grade(scorer, Sample(**told, response=response, **REST))


def lines(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.glob("*.jsonl")):
        with path.open(encoding="utf-8") as file:
            yield from map(json.loads, file)


def compared(ours: bool, theirs: bool) -> str:
    return AGREE if ours == theirs else DISAGREE


def mmlu_pro(folder: Path) -> Iterator[Row]:
    for row in lines(folder):
        response = row.get("generated_text") or row["model_outputs"]
        ours = graded("letter", response, row["answer"], row["question"], row["options"])
        letter = ours.reason.removeprefix("names ") if re.fullmatch("names [A-Z]", ours.reason) else None
        words = (row["question_id"], row["pred"], letter, row["answer"], response[-160:])
        yield Row("MMLU-Pro, verdict", compared(ours.score == 1, row["pred"] == row["answer"]), words)
        yield Row("MMLU-Pro, letter", compared(letter == row["pred"], True), words)


def evaluated(text: str) -> list[float]:
    """The numbers of a Python literal, of which False is one: 0. None of anything else."""
    try:
        value = ast.literal_eval(text) if len(text) < 100 else ""
        return [float(part) for part in (value if isinstance(value, tuple) else (value,))]
    except (ValueError, TypeError, SyntaxError):
        return []


def theoremqa_counts(told: str, value: Any, answer: str) -> bool:
    """Whether TheoremQA's own rule takes an extracted answer for the right one. (It also evaluates arithmetic, which
    stands in none of these.)"""
    if re.fullmatch(r"\([a-f]\)", told.lower()):
        return told.lower() in answer.lower()
    if told.lower() == answer.lower():
        return True
    wanted = [] if value is None else sorted(value) if isinstance(value, list) else [value]
    given = sorted(evaluated(answer))
    return bool(wanted) and len(wanted) == len(given) and all(map(near, wanted, given))


def near(wanted: float, given: float) -> bool:
    return abs(given - wanted) <= (0.5 if isinstance(wanted, int) else 0.04 * abs(wanted))


def theoremqa_kind(told: str, value: Any) -> str:
    if value is None:
        return "option" if told.startswith("(") else "bool"
    parts = value if isinstance(value, list) else [value]
    kind = "integer" if all(isinstance(part, int) for part in parts) else "float"
    return f"list of {kind}" if isinstance(value, list) else kind


def theoremqa(folder: Path) -> Iterator[Row]:
    for row in lines(folder):
        told, value = row["correct"]
        kind, answer, question = theoremqa_kind(told, value), row["pred"], row["question"]
        theirs = theoremqa_counts(told, value, answer)
        ours = exact(told, answer) or same_theoremqa(question, told, kind, answer)
        whole = graded("theoremqa", row["solution"], told, question, kind=kind)
        words = (kind, told, answer[:80], theirs, ours, whole.extracted, whole.score)
        yield Row("TheoremQA, extracted answer", LEFT if ours is None else compared(ours, theirs), words)
        if ours is None:
            said = "no final answer" if whole.extracted is None else "a final answer"
            yield Row("TheoremQA, left to the judge: the whole response has", said, words)
        if theirs != (whole.score == 1):
            yield Row("TheoremQA, whole response", "only theirs is right" if theirs else "only ours is right", words)
        else:
            yield Row("TheoremQA, whole response", LEFT if whole.score is None else AGREE, words)


def olympiadbench(folder: Path) -> Iterator[Row]:
    for example in json.loads((folder / "scoring_examples.json").read_text(encoding="utf-8")):
        gold = unboxed(example["GT"])
        for row in example["Ans"]:
            error = f", error {row['precision']}" if "precision" in row else ""
            kind = f"Numerical{error}{', several' if len(split_outside(gold)) > 1 else ''}"
            response = f"\\boxed{{{unboxed(row['answer'])}}}"
            ours = graded("olympiad", response, gold, "Give the final expression.", kind=kind)
            said = LEFT if ours.score is None else compared(ours.score == 1, row["equal"])
            yield Row("OlympiadBench, scoring examples", said, (gold, row["answer"], row["equal"], ours.score))


def unboxed(text: str) -> str:
    return extract_answer(text) or text if "\\boxed" in text else text


def qwen(folder: Path) -> Iterator[Row]:
    decider = RuleDecider()
    for row in lines(folder):
        for response, theirs, read in zip(row["response"], row["score"], row["pred"], strict=True):
            ours = graded("math", response, row["answer"], row["question"])
            right = ours.score == 1
            if ours.score is None:
                pair = Pair(row["question"], row["answer"], ours.extracted or "")
                decided = decider.decide([pair], lambda: False)
                right = decided is not None and decided.decisions[pair].decision == YES
            words = (row["idx"], row["answer"], read, theirs, ours.extracted, right)
            yield Row("Qwen's MATH, math-verify as decider", compared(right, theirs), words)
    decider.close()


def judgebench(folder: Path) -> Iterator[Row]:
    """The right letter is the one that the response labelled right repeats, as it was asked to."""
    for row in lines(folder):
        good, bad = ("response_A", "response_B") if row["label"] == "A>B" else ("response_B", "response_A")
        repeated = re.findall(r"\b([A-P])\1{4,}\b", row[good])
        gold = repeated[-1] if repeated else "none"
        options = list(options_of(row["question"]).values())
        options = options if len(options) > 1 else [""] * 10
        for side in (good, bad):
            ours = graded("letter", row[side], gold, row["question"], options)
            said = "no final answer" if ours.extracted is None else compared(ours.score == 1, side == good)
            if ours.extracted is not None and read_letter(ours.extracted, options) is None:
                said = "no option"
            yield Row("JudgeBench on MMLU-Pro", said, (row["pair_id"], side == good, gold, ours.extracted, ours.reason))


def asked(name: str, source: Path) -> tuple[str, list[Question]]:
    data = EvalDataConfig(prepared="none", sources={name: str(source)})
    config = EvalConfig(run=RunConfig(name="agreement", dir="none"), benchmarks=[name], data=data)
    benchmark = load_benchmarks(config)[name]
    return benchmark.scorer, read_questions(name, benchmark, config)[0]


def options_read(questions: Sequence[Question]) -> Iterator[Row]:
    """Every option as an answer; one with another's letter names none."""
    for question in questions:
        for at, text in enumerate(question.options):
            letter, other = LETTERS[at], LETTERS[(at + 1) % len(question.options)]
            for what, forms, named, wanted in (
                ("its text", ("\\boxed{%(text)s}",), letter, letter),
                ("its letter and text", BY_LETTER_AND_TEXT, letter, letter),
                ("another's letter and its text", WITH_ANOTHERS_LETTER, other, None),
            ):
                for form in forms:
                    final = extract_answer(form % {"letter": named, "text": text})
                    found = None if final is None else read_letter(final, question.options)
                    said = AS_IT_SHOULD if found == wanted else "not as it should be"
                    yield Row(f"options named by {what}", said, (question.item, form, text[:80], wanted, found))


def golds_read(scorer: str, questions: Sequence[Question]) -> Iterator[Row]:
    """Every right answer in other words; with its decimal, or a reason, where the benchmark's scorer knows them."""
    for question in questions:
        gold = question.gold
        forms = {"six dresses": [dress % gold for dress in DRESSES]}
        value = None if question.options else read_number(gold.strip("$ "))
        if scorer in ("theoremqa", "olympiad") and value is not None and value != int(value):
            decimal = {"g": gold.strip("$ "), "v": float(value)}
            forms["a decimal beside it"] = [f"\\boxed{{{form.format(**decimal)}}}" for form in WITH_DECIMAL]
        if question.gold_type == "bool":
            forms["a reason"] = [form % gold for form in WITH_REASON]
        for what, responses in forms.items():
            scores = [grade(scorer, Sample(**vars(question), response=said, **REST)).score for said in responses]
            said = AS_IT_SHOULD if set(scores) == {1.0} else "not as it should be"
            yield Row(f"right answers with {what}", said, (question.item, question.gold_type, gold[:80], scores))


def published(folder: Path) -> Iterator[Row]:
    for name, read in (
        ("mmlu_pro_outputs", mmlu_pro),
        ("theoremqa_outputs", theoremqa),
        ("olympiadbench_scoring", olympiadbench),
        ("qwen_math_cot", qwen),
        ("judgebench", judgebench),
    ):
        if (folder / name).is_dir():
            yield from read(folder / name)
        else:
            print(f"skipped: there is no {folder / name}", file=sys.stderr)


def reworded(folder: Path) -> Iterator[Row]:
    for name, place in SOURCES.items():
        if not (folder / place).exists():
            print(f"skipped: there is no {folder / place}", file=sys.stderr)
            continue
        scorer, questions = asked(name, folder / place)
        if scorer == "letter":
            yield from options_read(questions)
        yield from golds_read(scorer, questions)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("judged", type=Path)
    parser.add_argument("eval", type=Path, nargs="?")
    parser.add_argument("--list", action="store_true")
    args = parser.parse_args()
    counts: dict[str, Counter[str]] = {}
    for part, read in ((args.judged, published), (args.eval, reworded)):
        for row in read(part) if part else ():
            counts.setdefault(row.name, Counter()).update([row.said, "rows"])
            if args.list and row.said not in (AGREE, AS_IT_SHOULD):
                print(json.dumps(row, ensure_ascii=False))
    print(json.dumps(counts, indent=1))


if __name__ == "__main__":
    main()
