"""Rows to questions: every benchmark's true format with the shipped entry; only the place of the data is given."""

import csv
import json
import random

import pytest
from eval_inputs import FIXTURES, PLACES, evaluation

from grhpc.data.source import as_source
from grhpc.errors import DataError
from grhpc.evaluate import rows
from grhpc.evaluate.benchmarks import load_benchmarks
from grhpc.evaluate.prepare import prepare
from grhpc.evaluate.questions import read_questions

INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."


def questions(name, **settings):
    config = evaluation(name, **settings)
    return read_questions(name, load_benchmarks(config)[name], config)[0]


def own(data, tmp_path, **settings):
    """Questions of a benchmark of one's own, from rows."""
    (tmp_path / "own.json").write_text(json.dumps(data))
    base = {"source": str(tmp_path / "own.json"), "fields": {"question": "q", "gold": "a"}, "scorer": "math"}
    return questions("own", entries={"own": base | settings.pop("entry", {})}, **settings)


@pytest.mark.parametrize("name", PLACES)
def test_the_shipped_entry_reads_the_true_format(name):
    asked = questions(name)
    assert [q.index for q in asked] == list(range(len(asked))) and len({q.item for q in asked}) == len(asked)
    assert all(q.benchmark == name and q.question and q.gold and "\\boxed{}" in q.prompt for q in asked)


def test_maths_is_asked_as_the_policy_is_trained():
    first = questions("math500")[0]
    assert first.prompt == f"Compute $1+\\frac{{1}}{{2}}$. {INSTRUCTION}"
    assert (first.gold, first.item, json.loads(first.groups)) == (
        "\\frac{3}{2}",
        "test/algebra/1.json",
        {"level": "1", "subject": "Algebra"},
    )


def test_multiple_choice_lists_its_options_and_braces_of_the_data_mean_nothing():
    last = questions("mmlu-pro")[2]
    assert last.prompt.startswith("What is {x} if 2x = 8?\nOptions are:\n(A): 2\n(B): 3\n(C): 4\n(D): 5\n\n")
    assert "only the letter" in last.prompt and "Only one option is correct" in last.prompt
    assert (last.gold, last.options, last.question) == ("C", ["2", "3", "4", "5"], "What is {x} if 2x = 8?")


def test_gpqa_options_are_permuted_as_simple_evals_does():
    with (FIXTURES / "gpqa_diamond.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    rng = random.Random(0)
    for row, asked in zip(table, questions("gpqa-diamond"), strict=True):
        choices = [row["Correct Answer"], *(row[f"Incorrect Answer {i}"] for i in (1, 2, 3))]
        choices = [choices[i] for i in rng.sample(range(4), 4)]
        assert asked.options == choices and asked.gold == "ABCD"[choices.index(row["Correct Answer"])]


@pytest.mark.parametrize(
    ("name", "golds"),
    [
        ("gsm8k", ["12", "12000"]),
        ("minerva", ["0.02", "\\frac{1}{2\\pi}"]),
        ("amc23", ["36", "3.5"]),
        ("aime24", ["025"]),
        ("theoremqa", ["8", "1.414", "True", "[3, -3]", "(b)"]),
        ("olympiadbench", ["$2$,$-2$", "4.2", "$\\frac{n(n+1)}{2}$"]),
        ("supergpqa", ["B", "A"]),
        ("bbeh", ["(B)", "25", "1, 2, 3"]),
    ],
)
def test_the_right_answer_is_read_as_each_benchmark_writes_it(name, golds):
    assert [q.gold for q in questions(name)] == golds


def test_what_olympiadbench_says_of_an_answer_is_kept():
    first, second, third = questions("olympiadbench")
    assert (first.gold_type, third.gold_type) == ("Numerical, several", "Expression")
    assert second.gold_type == "Numerical, error 1e-1, unit %"
    assert second.question == "A shop sells two sorts of tea.\n\nGive its share of green tea in %, to one decimal."


def test_options_of_one_column_can_be_permuted_too_and_the_answer_follows(tmp_path):
    rows = [{"q": f"{i}?", "a": "B", "o": [f"{i} wrong", f"{i} right", *["other"] * (i % 3)]} for i in range(20)]
    fields = {"question": "q", "gold": "a", "options": "o"}
    asked = own(rows, tmp_path, entry={"fields": fields, "gold": "letter", "prompt": "choice", "shuffle_seed": 1})
    assert all(q.options["ABCD".index(q.gold)] == f"{q.index} right" for q in asked)
    assert len({q.gold for q in asked}) > 1


def test_a_folder_of_tasks_names_them_and_the_mini_file_has_none():
    assert [json.loads(q.groups)["task"] for q in questions("bbeh")] == ["bbeh_colours", "bbeh_sums", "bbeh_sums"]
    mini = questions("bbeh", sources={"bbeh": str(FIXTURES / "bbeh_mini.json")})
    assert [q.gold for q in mini] == ["No", "(B)"] and mini[0].groups == "{}"


def test_a_pattern_names_several_files():
    asked = questions("supergpqa", sources={"supergpqa": str(FIXTURES / "supergpqa" / "*_law.json")})
    assert [q.item for q in asked] == ["b1"]


def test_a_record_is_no_right_answer(tmp_path):
    rows = [{"q": "1+1?", "a": {"work": "1 and 1", "final": "2"}}]
    with pytest.raises(DataError, match="own: row 1: a, for the gold, holds work, final") as caught:
        own(rows, tmp_path)
    assert "set entries.own.fields.gold to one of them, such as a.work" in caught.value.remedy
    [question] = own(rows, tmp_path, entry={"fields": {"question": "q", "gold": "a.final"}})
    assert question.gold == "2"


def test_what_the_metric_groups_by_has_to_be_there(tmp_path):
    rows = [{"q": "1+1?", "a": "2", "branch": "sums"}]
    with pytest.raises(DataError, match="has no column brnch, by which the metric macro:kind groups") as caught:
        own(rows, tmp_path, entry={"groups": {"kind": "brnch"}, "metric": "macro:kind"})
    assert "set entries.own.groups.kind to one of: q, a, branch" in caught.value.remedy
    [question] = own(rows, tmp_path, entry={"groups": {"kind": "brnch"}})  # a table less, and no figure another one
    assert json.loads(question.groups) == {}


def test_columns_have_alternatives():
    assert [q.gold for q in questions("aime25", sources={"aime25": str(FIXTURES / "amc23.jsonl")})] == ["36", "3.5"]


def test_only_the_wanted_rows():
    entries = {"theoremqa": {"where": {"Picture": ""}}}
    assert len(questions("theoremqa", entries=entries)) == 4


def test_names_that_are_not_unique_are_replaced_by_places(tmp_path):
    asked = own([{"q": "1+1?", "a": 2, "n": "x"}, {"q": "1+2?", "a": 3, "n": "x"}], tmp_path, entry={"fields": {
        "question": "q", "gold": "a", "item": "n"}})  # fmt: skip
    assert [q.item for q in asked] == ["0", "1"]


def test_samples_are_asked_for():
    assert {q.num_samples for q in questions("aime24")} == {32}


def test_worked_examples_are_of_the_questions_category_and_in_the_same_turn():
    entries = {"mmlu-pro": {"few_shot": {"source": str(FIXTURES / "mmlu_pro_validation.jsonl")}}}
    maths, heart, _ = questions("mmlu-pro", few_shot=5, entries=entries)
    assert maths.prompt.count("Question: ") == 6 and maths.prompt.count("\\boxed{B}") == 5
    start = (
        "Question: What is 1 + 1?\nOptions are:\n(A): 1\n(B): 2\n(C): 3\nAnswer: Let's think step by step. 1 + 1 = 2."
    )
    assert maths.prompt.startswith(start)
    assert "The answer is (B). \\boxed{B}\n\nQuestion: Which of these is a prime" in maths.prompt
    assert maths.prompt.endswith(questions("mmlu-pro")[0].prompt) and "\nQuestion: Which organ" in heart.prompt


def test_examples_of_gsm8k_come_from_its_training_rows_without_the_calculator():
    first = questions("gsm8k", few_shot=2)[0]
    assert first.prompt.startswith(
        "Question: Bo has 1 pens and buys 2. How many pens?\nAnswer: 1+2=3 pens. \\boxed{3}\n\nQuestion: Bo has 2 pens"
    )


def test_examples_that_are_written_out_and_a_benchmark_that_has_none():
    assert questions("math500", few_shot=4)[0].prompt.count("Question: ") == 5
    assert questions("minerva", few_shot=9)[0].prompt.count("Question: ") == 5  # it has four
    assert questions("amc23", few_shot=4) == questions("amc23")


def test_questions_are_never_their_own_worked_examples():
    with pytest.raises(DataError, match="has no split 'validation' for worked examples"):
        questions("mmlu-pro", few_shot=5)
    for name, place in (("mmlu-pro", "mmlu_pro.jsonl"), ("gsm8k", "gsm8k/test.jsonl")):
        entries = {name: {"few_shot": {"source": str(FIXTURES / place)}}}
        for question in questions(name, few_shot=2, entries=entries):
            assert question.prompt.count(question.question) == 1


def test_a_category_without_an_example_is_refused(tmp_path):
    (tmp_path / "few.jsonl").write_text((FIXTURES / "mmlu_pro_validation.jsonl").read_text().splitlines()[0])
    entries = {"mmlu-pro": {"few_shot": {"source": str(tmp_path / "few.jsonl")}}}
    with pytest.raises(DataError, match="row 2: no worked example whose category is 'biology'"):
        questions("mmlu-pro", few_shot=5, entries=entries)


@pytest.mark.parametrize(
    ("data", "entry", "problem"),
    [
        ([{"q": "1+1?", "b": 2}], {}, "has no column a for the gold"),
        ([{"q": "1+1?", "a": 2}, {"q": "", "a": 2}], {}, "own: row 2: no question"),
        ([{"q": "1+1?", "a": 2}, {"q": "1+2?", "a": None}], {}, "own: row 2: no right answer"),
        ([{"q": "1+1?", "a": "first\nsecond"}], {"gold": "boxed"}, "row 1: a solution without a box"),
        ([{"q": "?", "a": "C", "o": ["x", "y"]}], {"gold": "letter"}, "the right answer is 'C', of 2 options"),
        ([{"q": "?", "a": 2, "o": ["x", "y"]}], {"gold": "index"}, "the right answer is 'C', of 2 options"),
        ([{"q": "?", "a": "A", "o": ["x"]}], {"gold": "letter"}, "own: row 1: fewer than two options"),
        ([{"q": "?", "a": "A"}], {"where": {"a": "B"}}, "no row of"),
        ([{"q": "?", "a": "A"}], {"options_from": ["c", "d"], "gold": "first_option"}, "no column 'c' of options_from"),
        ([], {}, "has no rows"),
    ],
)
def test_data_that_does_not_fit_is_refused_by_row(data, entry, problem, tmp_path):
    if data and "o" in data[0]:
        entry = entry | {"fields": {"question": "q", "gold": "a", "options": "o"}, "prompt": "choice"}
    with pytest.raises(DataError) as refused:
        own(data, tmp_path, entry=entry)
    assert problem in refused.value.problem and refused.value.remedy


def test_a_right_answer_that_is_not_there_names_the_settings(tmp_path):
    with pytest.raises(DataError, match="own: row 1: no right answer") as refused:
        own([{"q": "1+1?", "a": None}], tmp_path)
    assert "entries.own.fields.gold, the column, or entries.own.gold" in refused.value.remedy


def test_a_place_that_is_none_is_named_with_its_benchmark_and_setting():
    own_entry = {"source": "data/fewwww.jsonl", "fields": {"question": "q", "gold": "a"}, "scorer": "math"}
    few = {"few_shot": {"source": "data/fewwww.jsonl"}}
    cases = [
        ("own", {"entries": {"own": own_entry}}, "entries.own.source"),
        ("own", {"entries": {"own": own_entry}, "sources": {"own": "data/fewwww.jsonl"}}, "data.sources.own"),
        ("gsm8k", {"sources": {"gsm8k": "data/fewwww.jsonl"}}, "data.sources.gsm8k"),
        ("mmlu-pro", {"entries": {"mmlu-pro": few}, "few_shot": 5}, "entries.mmlu-pro.few_shot.source"),
    ]
    for name, settings, key in cases:
        with pytest.raises(DataError) as refused:
            questions(name, **settings)
        assert refused.value.problem == f"{name}: no such dataset file: data/fewwww.jsonl"
        assert refused.value.remedy == f"{key}: name one that is there"


def test_a_worked_example_without_an_answer_is_named(tmp_path):
    row = {"q": "1+1?", "a": "2"}
    (tmp_path / "few.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(row | {"a": None}) + "\n")
    few = {"num": 2, "source": str(tmp_path / "few.jsonl")}
    with pytest.raises(DataError, match="own: worked example 2: no right answer") as refused:
        own([row], tmp_path, entry={"few_shot": few}, few_shot=2)
    assert refused.value.remedy.startswith("entries.own.few_shot.source: ")


@pytest.mark.parametrize(
    ("files", "problem"),
    [(["train.jsonl"], "has 'test' in its name"), ([], "no data file in"), (["notes.txt"], "no data file in")],
)
def test_a_folder_without_the_split_is_not_read_as_another(files, problem, tmp_path):
    for name in files:
        (tmp_path / name).write_text('{"question": "1+1?", "answer": "#### 2"}\n')
    with pytest.raises(DataError) as refused:
        prepare(evaluation("gsm8k", sources={"gsm8k": str(tmp_path)}, prepared=tmp_path / "p"))
    assert problem in refused.value.problem and refused.value.problem.startswith("gsm8k: ")
    assert refused.value.remedy.startswith("data.sources.gsm8k: ") and not (tmp_path / "p").exists()


def test_a_copy_of_a_hub_data_set_is_read_by_its_splits(tmp_path):
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    for split, answer in (("train", 1), ("test", 2)):
        (tmp_path / f"{split}.jsonl").write_text(json.dumps({"question": "1+1?", "answer": f"#### {answer}"}) + "\n")
    assert [q.gold for q in questions("gsm8k", sources={"gsm8k": str(tmp_path)})] == ["2"]


def test_pictures_do_not_make_the_same_data_another(monkeypatch):
    def with_picture(source, split, **_):
        return as_source(source, [{"Question": "?", "Answer": "1", "Answer_type": "integer", "Picture": object()}])

    monkeypatch.setattr(rows, "read_source", with_picture)
    first, second = (rows.read_rows("TIGER-Lab/TheoremQA", "test") for _ in range(2))
    assert first.digest == second.digest and first.rows[0]["Picture"] == "(object)"


def test_the_digest_is_of_the_data():
    config = evaluation("math500")
    entry = load_benchmarks(config)["math500"]
    digest = read_questions("math500", entry, config)[1]
    assert digest == read_questions("math500", entry, config)[1] and len(digest) == 64
    other = evaluation("amc23")
    assert read_questions("amc23", load_benchmarks(other)["amc23"], other)[1] != digest
