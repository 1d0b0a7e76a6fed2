"""Rows of true formats become questions and answers; the shapes are those of published datasets, the texts our own."""

import json

import pytest

from grhpc.data.columns import choose_columns, read_fields
from grhpc.errors import DataError

WEB_INSTRUCT = {
    "id": 17,
    "question": "A ball falls 20 m. How long does it take?",
    "answer": "2.02 s",
    "answer_type": "Float",
    "category": "Physics",
    "difficulty": "Senior High School",
}
GSM8K = {"question": "Ann has 3 bags of 700 nuts.", "answer": "3*700=<<3*700=2100>>2100 nuts.\n#### 2,100"}
MESSAGES = {
    "id": "5",
    "prompt": "You are a helpful solver.",
    "messages": json.dumps(
        [{"role": "system", "content": "You are a helpful solver."}, {"role": "user", "content": "What is 2+2?"}]
    ),
    "ground_truth": "4",
    "tag": "sums",
}
VERL = {
    "data_source": "x",
    "prompt": [{"role": "user", "content": "What is 6*7?\nLet's think."}],
    "ability": "math",
    "reward_model": {"style": "rule", "ground_truth": "42"},
}
WRAPPED = {
    "prompt": "\nQuestion: Which gas do\nplants take in?\n\nAnswer the question and return in the following format:\n\n"
    "<think>\n...\n</think>\n\n<answer>\n...\n</answer>\n",
    "reference": "Therefore, the final answer is: \\\\boxed{carbon dioxide}.",
    "split": "train",
}
SCIBENCH = {
    "problem_text": "Find the pressure.\r\n",
    "answer_latex": " 50.7",
    "answer_number": "50.7",
    "unit": "$\\mathrm{atm}$ ",
    "source": "atkins",
    "problemid": " e1.17(a)",
}
MULTIPLE_CHOICE = {"idx": "3", "kind": "mcq", "answer": "B", "prompt": "Which one?\n\nA: x\nB: y", "dataset": "sci"}


@pytest.mark.parametrize(
    ("row", "question", "answer", "category"),
    [
        (WEB_INSTRUCT, "A ball falls 20 m. How long does it take?", "2.02 s", "Physics"),
        (GSM8K, "Ann has 3 bags of 700 nuts.", "2100", ""),
        (MESSAGES, "What is 2+2?", "4", "sums"),
        (VERL, "What is 6*7?\nLet's think.", "42", "math"),
        (WRAPPED, "Which gas do\nplants take in?", "carbon dioxide", ""),
        (SCIBENCH, "Find the pressure.", "50.7 $\\mathrm{atm}$", "atkins"),
        (MULTIPLE_CHOICE, "Which one?\n\nA: x\nB: y", "B", "sci"),
    ],
)
def test_true_formats_are_recognised(row, question, answer, category):
    fields = read_fields(row, choose_columns(row, {}))
    assert fields is not None
    assert (fields.question, fields.answer, fields.category) == (question, answer, category)


def test_labels_come_along():
    fields = read_fields(WEB_INSTRUCT, choose_columns(WEB_INSTRUCT, {}))
    assert fields is not None
    assert (fields.id, fields.answer_type, fields.difficulty) == ("17", "Float", "Senior High School")


def test_a_persons_mapping_wins_over_recognition():
    row = {"question": "no", "q": {"text": "yes?"}, "answer": "no", "a": 3}
    fields = read_fields(row, choose_columns(row, {"question": "q.text", "answer": "a"}))
    assert fields is not None
    assert (fields.question, fields.answer) == ("yes?", "3")


def test_nested_values_survive_a_csv_writer():
    row = {"prompt": json.dumps(VERL["prompt"]), "reward_model": json.dumps(VERL["reward_model"])}
    fields = read_fields(row, choose_columns(row, {}))
    assert fields is not None
    assert (fields.question, fields.answer) == ("What is 6*7?\nLet's think.", "42")


@pytest.mark.parametrize(
    ("row", "wanted", "says"),
    [
        ({"text": "x", "answer": "1"}, {}, "columns there: text, answer"),
        ({"question": "x", "label": "1"}, {}, "columns there: question, label"),
        ({"question": "x", "answer": "1"}, {"answer": "solution"}, "columns there: question, answer"),
        ({"question": "x", "answer": "1"}, {"anser": "answer"}, "use: question, answer"),
    ],
)
def test_a_missing_column_names_those_there_are(row, wanted, says):
    with pytest.raises(DataError) as caught:
        choose_columns(row, wanted)
    assert says in caught.value.remedy


@pytest.mark.parametrize("row", [{"question": "  ", "answer": "1"}, {"question": "x", "answer": None}])
def test_an_empty_question_or_answer_is_no_row(row):
    assert read_fields(row, choose_columns(row, {})) is None


def test_a_list_shaped_answer_keeps_its_brackets():
    row = {"question": "Which set?", "answer": "[1, 2]"}
    fields = read_fields(row, choose_columns(row, {}))
    assert fields is not None and fields.answer == "[1, 2]"
