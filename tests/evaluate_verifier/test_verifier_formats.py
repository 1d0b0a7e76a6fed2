"""Labelled pairs out of files: our own columns, and small ones in the shapes of public data sets."""

import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from grhpc.answer.judge import GENERAL_VERIFIER, fill
from grhpc.errors import DataError
from grhpc.evaluate_verifier.formats import FORMATS, read_exchanges, read_labelled
from grhpc.evaluate_verifier.labelled import Labelled, read_label

ROWS = [
    {"question": "1+1?", "reference": "2", "answer": "two", "label": "yes", "answer_type": "Integer"},
    {"question": "1+2?", "reference": "3", "answer": "4", "label": "no", "answer_type": "Integer"},
    {"question": "1+3?", "reference": "4", "answer": "4", "label": "unsure", "answer_type": "Integer"},
]


def write(path, rows):
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0], delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return str(path)


@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet", "csv", "tsv"])
def test_our_own_columns_in_any_table(tmp_path, suffix):
    read = read_labelled(write(tmp_path / f"mine.{suffix}", ROWS))
    assert [(p.answer, p.label, p.answer_type, p.source) for p in read.pairs] == [
        ("two", True, "Integer", "mine"),
        ("4", False, "Integer", "mine"),
    ]
    assert read.unlabelled == 1
    assert len(read.digest) == 64


@pytest.mark.parametrize(
    ("value", "label"),
    [(True, True), ("TRUE", True), (1, True), (1.0, True), ("Correct", True), (0, False), ("no ", False)]
    + [("Incorrect", False), (None, None), ("", None), ("maybe", None), (0.5, None)],
)
def test_labels(value, label):
    assert read_label(value) is label


def test_a_response_goes_through_the_extractor(tmp_path):
    rows = [{"question": "q", "reference": "5", "response": text, "label": 1} for text in ("so \\boxed{5}", "no idea")]
    assert [p.answer for p in read_labelled(write(tmp_path / "r.jsonl", rows)).pairs] == ["5", None]


def test_columns_of_other_names(tmp_path):
    rows = [{"q": "1+1?", "gold": "2", "said": "two", "ok": 1}]
    path = write(tmp_path / "theirs.jsonl", rows)
    columns = {"question": "q", "reference": "gold", "answer": "said", "label": "ok"}
    assert read_labelled(path, "", columns).pairs == [Labelled("1+1?", "2", "two", True, source="theirs")]
    with pytest.raises(DataError, match="looks like the question"):
        read_labelled(path)
    with pytest.raises(DataError, match="no column 'nowhere'"):
        read_labelled(path, "", columns | {"label": "nowhere"})
    with pytest.raises(DataError, match="none of ours"):
        read_labelled(path, "", columns | {"lable": "ok"})


def test_one_file_of_each_public_shape(tmp_path):
    """Recognised by its columns; what has no usable judgement is left out and counted."""
    write(
        tmp_path / "beside.tsv",
        [{"Question": "q", "Model answer": a, "Gold answers": "Ann | Bob"} for a in ("Bob", "Cy")],
    )
    for name, (rows, wanted, unlabelled) in SHAPES.items():
        suffix = "tsv" if name == "nq301" else "json"
        read = read_labelled(write(tmp_path / f"{name}.{suffix}", rows))
        assert [(p.reference, p.answer, p.label) for p in read.pairs] == wanted, name
        assert read.unlabelled == unlabelled, name
        assert {p.source for p in read.pairs} == {name}
    assert set(SHAPES) == set(FORMATS)


EVOUNA = {"question": "q", "golden_answer": "Paris", "improper": False} | {
    f"{what}_{system}": value
    for system, (answer, judged) in {
        "fid": ("paris", True),
        "gpt35": ("London", False),
        "chatgpt": ("Rome", None),
        "gpt4": ("It is Paris.", True),
        "newbing": ("Paris, France", True),
    }.items()
    for what, value in (("answer", answer), ("judge", judged))
}


def nemo(text, reward):
    asked = {"input": [{"role": "user", "content": "What heats water?"}]}
    response = {"output": [{"type": "message", "content": [{"type": "output_text", "text": text}]}]}
    return {"responses_create_params": asked, "response": response, "reward": reward, "expected_answer": "sun"}


MMLU = {"question": "q", "options": ["a", "b"], "category": "law", "model_outputs": "The answer is (B)."}
SHAPES = {
    "evouna": (
        [EVOUNA, EVOUNA | {"improper": True}],
        [("Paris", "paris", True), ("Paris", "London", False), ("Paris", "It is Paris.", True)]
        + [("Paris", "Paris, France", True)],
        6,
    ),
    "nq301": (
        [
            {"Question": "q", "Model answer": answer, "Acceptable?": label, "annotator1": "Yes"}
            for answer, label in (("Bob", "Yes"), ("Cy", "No"), ("Di", "No"))
        ],
        [("Ann | Bob", "Bob", True), ("Ann | Bob", "Cy", False)],
        1,  # an answer that the other table lacks
    ),
    "theoremqa": (
        [
            {"question": "q", "solution": "s", "correct": correct, "pred": pred}
            for correct, pred in [
                (["1.372", 1.372], "1.37"),
                (["[1, 0]", [1, 0]], "[1, 1]"),
                (["True", None], "true"),
                (["(a)", None], "b"),
                (["3", 3], "The whole solution " * 9),
                (["2", 2], "two"),
            ]
        ],
        [("1.372", "1.37", True), ("[1, 0]", "[1, 1]", False), ("True", "true", True), ("(a)", "b", False)]
        + [("2", "two", False)],
        1,
    ),
    "qwen-math-cot": (
        [
            {
                "question": "q",
                "answer": "7",
                "response": ["\\boxed{7}", "\\boxed{8}"],
                "score": [True, False],
                "pred_score": [],
            }
        ],
        [("7", "7", True), ("7", "8", False)],
        0,
    ),
    "xverify": (
        [
            {
                "question": "q",
                "correct_answer": "1/2",
                "llm_output": "The answer is 0.5.",
                "human_judgment_result": "Correct",
                "key_answer_type": "math",
                "dataset": "MATH",
            }
        ],
        [("1/2", "0.5", True)],
        0,
    ),
    "olympiadbench": (
        [{"GT": "0.6", "Ans": [{"answer": "60%", "equal": True}, {"answer": "6", "equal": False}]}],
        [("0.6", "60%", True), ("0.6", "6", False)],
        0,
    ),
    "nemo-gym": (
        [nemo("\\boxed{the sun}", 1.0), nemo("the moon", 0.0)],
        [("sun", "the sun", True), ("sun", None, False)],
        0,
    ),
    "mmlu-pro": (
        [
            MMLU | {"answer": "B", "pred": "B"},
            MMLU | {"answer": "A", "pred": "B"},
            MMLU | {"answer": "A", "pred": None},
        ],
        [("B", "(B)", True), ("A", "(B)", False)],
        1,
    ),
    "judgebench": (
        [
            {
                "question": "q",
                "source": "law",
                "response_A": "so\n**BBBBB**",
                "response_B": "thus CCCCC",
                "label": "B>A",
            },
            {"question": "q", "source": "law", "response_A": "no letter", "response_B": "thus CCCCC", "label": "A>B"},
        ],
        [("CCCCC", "thus CCCCC", True), ("CCCCC", "BBBBB", False)],
        1,
    ),
}

SEMEVAL = """<?xml version="1.0"?><question id="x" module="LF"><questionText>Why?</questionText>
<referenceAnswers><referenceAnswer category="GOOD">well</referenceAnswer>
<referenceAnswer category="BEST">Because.</referenceAnswer></referenceAnswers>
<studentAnswers><studentAnswer accuracy="correct">because</studentAnswer>
<studentAnswer accuracy="contradictory">not so</studentAnswer></studentAnswers></question>"""


def test_a_folder_of_graded_answers(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "one.xml").write_text(SEMEVAL)
    (tmp_path / "two.xml").write_text(SEMEVAL.replace("because", "therefore"))
    read = read_labelled(str(tmp_path))
    assert [(p.reference, p.answer, p.label) for p in read.pairs] == [
        ("Because.", "because", True),
        ("Because.", "not so", False),
        ("Because.", "therefore", True),
        ("Because.", "not so", False),
    ]


def log_of(*exchanges):
    return "".join(
        f"{'=' * 80}\nTime: 2026-01-01\n\nPROMPT:\n{prompt}\n\nRESPONSE:\n{reply}\n\n" for prompt, reply in exchanges
    )


def test_a_log_of_general_verifier_calls(tmp_path):
    answer = "First\n\n### a heading of mine\n\nso 5"
    prompts = [fill(GENERAL_VERIFIER, "What?", "5", given) for given in (answer, "6", "7")]
    replies = [" Equal.\n\nFinal Decision: Yes ", " Final Decision: No", " I cannot say."]
    path = tmp_path / "log.txt"
    path.write_text(log_of(*zip(prompts, replies, strict=True)))
    exchanges = read_exchanges(path.read_text())
    assert [e.prompt for e in exchanges] == prompts
    assert [fill(GENERAL_VERIFIER, **e.values) for e in exchanges] == prompts
    read = read_labelled(str(path))
    assert [(p.reference, p.answer, p.label) for p in read.pairs] == [("5", answer, True), ("5", "6", False)]
    assert read.unlabelled == 1


def test_the_tiny_world_labels_by_its_oracle():
    read = read_labelled("tiny:80")
    assert len(read.pairs) == 80 and 20 < sum(p.label for p in read.pairs) < 60
    assert read_labelled("tiny:80") == read


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("gone.jsonl", None, "no such file"),
        ("bad.jsonl", "{", "not valid jsonl"),
        ("empty.jsonl", "", "no rows"),
        ("pairs.doc", "x", "no table"),
        ("none.jsonl", json.dumps(ROWS[2]), "no labelled pair"),
        ("bad.xml", "<question>", "semeval"),
        ("bad.txt", "nothing", "no labelled pair"),
        ("empty.tsv", "question\treference\n", "no rows"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(tmp_path, name, content, problem):
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=problem) as raised:
        read_labelled(str(path))
    assert name in raised.value.problem and raised.value.remedy


def test_gold_answers_must_stand_beside_their_judgements(tmp_path):
    with pytest.raises(DataError, match="has the column 'Gold answers'"):
        read_labelled(write(tmp_path / "human.tsv", SHAPES["nq301"][0]))


def test_a_shape_that_a_file_has_not(tmp_path):
    path = write(tmp_path / "mine.jsonl", ROWS)
    with pytest.raises(DataError, match="is not evouna: it has no column"):
        read_labelled(path, "evouna")
