"""Preparation: from files and `datasets.load_dataset` to prompts, with everything that is left out counted."""

import csv
import json
import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

from grhpc.config_file import load
from grhpc.data.prepare import load_prompts, main, prepare
from grhpc.errors import DataError
from grhpc.records import HELDOUT, TRAIN


def rows(num, start=0):
    return [
        {"question": f"How many nuts are in {i} bags of 3?", "answer": f"#### {3 * i}"}
        for i in range(start, start + num)
    ]


def write(path, content):
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in content))
    elif path.suffix == ".json":
        path.write_text(json.dumps(content))
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(content[0]))
            writer.writeheader()
            writer.writerows(content)
    else:
        pq.write_table(pa.Table.from_pylist(content), path)
    return path


@pytest.fixture
def config_for(tmp_path, policy_dir):
    """A function: source and settings -> configuration."""

    def make(source, *overrides):
        path = tmp_path / "c.yaml"
        path.write_text(
            f"run: {{name: t, dir: {tmp_path}/runs}}\n"
            f"policy: {{model: {policy_dir}}}\nverifier: {{model: {policy_dir}}}\n"
            f"data: {{source: '{source}', prepared: {tmp_path}/prepared, max_prompt_tokens: 200}}\n"
            "train: {steps: 1}\nevaluate: {heldout_every: 5, heldout_prompts: 4}\n"
        )
        return load(path, overrides)

    return make


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
def test_every_file_kind_gives_the_same_prompts(tmp_path, config_for, suffix):
    config = config_for(write(tmp_path / f"d{suffix}", rows(50)))
    manifest = prepare(config)
    train, heldout = (load_prompts(tmp_path / "prepared", split) for split in (TRAIN, HELDOUT))
    assert manifest["prompts"] == {TRAIN: len(train), HELDOUT: len(heldout)} == {TRAIN: 46, HELDOUT: 4}
    assert {p.question for p in train} | {p.question for p in heldout} == {r["question"] for r in rows(50)}
    assert all(p.answer == str(3 * int(p.question.split()[5])) for p in train)


def test_prompts_are_the_chat_template_with_question_and_instruction(tmp_path, config_for, policy_dir):
    prepare(config_for(write(tmp_path / "d.jsonl", rows(20)), "data.instruction=Think first."))
    prompt = load_prompts(tmp_path / "prepared", TRAIN)[0]
    text = AutoTokenizer.from_pretrained(policy_dir).decode(prompt.token_ids)
    assert text == f"<|user|>{prompt.question} Think first.<|end|><|bot|>"


def test_what_is_left_out_is_counted(tmp_path, config_for):
    content = [
        *rows(20),
        {"question": "How many nuts are in  4 bags of 3?", "answer": "12"},  # as row 4, but for a space
        {"question": "How many nuts are in 5 bags of 3?", "answer": "16"},  # as row 5, another answer
        {"question": "long " * 300, "answer": "1"},
        {"question": "", "answer": "1"},
    ]
    manifest = prepare(config_for(write(tmp_path / "d.jsonl", content), "evaluate.heldout_every=0"))
    assert manifest["dropped"] == {
        "duplicate question": 1,
        "duplicate question, another answer": 1,
        "empty question or answer": 1,
        "longer than 200 tokens": 1,
    }
    assert manifest["prompts"] == {TRAIN: 20, HELDOUT: 0}
    assert load_prompts(tmp_path / "prepared", HELDOUT) == []


def test_no_heldout_question_is_trained_on(tmp_path, config_for):
    source, heldout = write(tmp_path / "d.jsonl", rows(30)), write(tmp_path / "h.jsonl", rows(10, start=25))
    manifest = prepare(config_for(source, f"data.heldout_source={heldout}"))
    split = {name: {p.question for p in load_prompts(tmp_path / "prepared", name)} for name in (TRAIN, HELDOUT)}
    assert not split[TRAIN] & split[HELDOUT]
    assert manifest["dropped"] == {"question is held out": 5} and len(split[HELDOUT]) == 10


def test_a_folder_goes_through_load_dataset_with_its_own_test_split(tmp_path, config_for):
    folder = tmp_path / "set"
    folder.mkdir()
    write(folder / "train.jsonl", rows(12))
    write(folder / "test.jsonl", rows(3, start=50))
    manifest = prepare(config_for(folder))
    assert manifest["prompts"] == {TRAIN: 12, HELDOUT: 3}


def test_ids_are_the_datasets_own_only_where_unique(tmp_path, config_for):
    content = [{**row, "id": i // 2 if i < 4 else i} for i, row in enumerate(rows(8))]
    prepare(config_for(write(tmp_path / "d.jsonl", content), "evaluate.heldout_every=0"))
    ids = [p.prompt_id for p in load_prompts(tmp_path / "prepared", TRAIN)]
    assert ids[4:] == ["4", "5", "6", "7"] and len(set(ids)) == 8


def test_preparing_twice_changes_nothing_and_other_settings_are_refused(tmp_path, config_for):
    source = write(tmp_path / "d.jsonl", rows(20))
    first = prepare(config_for(source))
    stamp = (tmp_path / "prepared" / "train.parquet").stat().st_mtime_ns
    assert prepare(config_for(source)) == first
    with pytest.raises(DataError, match=r"other settings \(instruction\)"):
        prepare(config_for(source, "data.instruction=Shout."))
    assert (tmp_path / "prepared" / "train.parquet").stat().st_mtime_ns == stamp


def test_data_that_changed_since_is_not_silently_the_old(tmp_path, config_for):
    source = write(tmp_path / "d.jsonl", rows(20))
    config = config_for(source)
    first = prepare(config)
    os.utime(source, ns=(1, 1))
    assert prepare(config) == first, "another time alone, as a copy has, is no change"
    before = source.read_text()
    source.write_text(before.replace("#### 3", "#### 4", 1))
    assert source.stat().st_size == len(before)
    with pytest.raises(DataError, match=rf"prepared was prepared before {source} changed") as caught:
        prepare(config)
    assert "remove this one if no run needs it; or put the data back" in caught.value.remedy
    source.write_text(before)
    assert prepare(config) == first
    source.unlink()
    assert prepare(config) == first, "on a machine without the data it is what it is"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda folder: write(folder / "test.jsonl", rows(5, start=99)), "test.jsonl changed"),
        (lambda folder: write(folder / "train-2.jsonl", rows(5, start=99)), "train-2.jsonl was there"),
        (lambda folder: (folder / "test.jsonl").unlink(), "test.jsonl went away"),
        (lambda folder: (folder / "README.md").write_text("words"), ""),
    ],
)
def test_every_file_of_a_folder_counts(tmp_path, config_for, change, problem):
    folder = tmp_path / "set"
    folder.mkdir()
    write(folder / "train.jsonl", rows(30))
    write(folder / "test.jsonl", rows(5, start=50))
    config = config_for(folder)
    first = prepare(config)
    change(folder)
    if not problem:
        assert prepare(config) == first
        return
    with pytest.raises(DataError, match=problem):
        prepare(config)


def test_a_heldout_source_counts_and_an_older_manifest_claims_nothing(tmp_path, config_for):
    source = write(tmp_path / "d.jsonl", rows(20))
    other = write(tmp_path / "h.jsonl", rows(8, start=50))
    config = config_for(source, f"data.heldout_source={other}")
    manifest = prepare(config)
    write(other, rows(9, start=50))
    with pytest.raises(DataError, match=r"h\.jsonl changed"):
        prepare(config)
    path = tmp_path / "prepared" / "manifest.json"
    older = {key: value for key, value in manifest.items() if key != "files"}
    path.write_text(json.dumps(older))
    assert prepare(config) == older


@pytest.mark.parametrize(
    ("source", "overrides", "problem"),
    [
        ("nowhere.jsonl", (), "no such dataset file"),
        ("/nowhere/at/all", (), "cannot be read"),
        ("d.jsonl", ("data.columns={answer: solution}",), "no column 'solution'"),
        ("d.jsonl", ("policy.model=/nowhere",), "no tokenizer"),
        ("d.jsonl", ("data.max_prompt_tokens=2",), "no prompt is left"),
        ("broken.jsonl", (), "is not valid jsonl"),
        ("", (), "data.source is empty"),
    ],
)
def test_bad_input_is_one_line_and_makes_nothing(tmp_path, config_for, monkeypatch, source, overrides, problem):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    write(tmp_path / "d.jsonl", rows(20))
    (tmp_path / "broken.jsonl").write_text('{"question": "x", "answer"\n')
    with pytest.raises(DataError, match=problem) as caught:
        prepare(config_for(source, *overrides))
    assert caught.value.remedy and "\n" not in caught.value.problem
    assert not (tmp_path / "prepared").exists()


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"question": "x", "answer"', "line 13, column 27: Expecting ':' delimiter"),
        (b'{"question": "\xff", "answer": "1"}', "line 13: 'utf-8' codec can't decode"),
        (b"[1, 2]", "row 12 is not one object"),
    ],
)
def test_a_bad_line_is_named(tmp_path, config_for, line, problem):
    path = write(tmp_path / "d.jsonl", rows(11))
    path.write_bytes(path.read_bytes() + b"\n" + line + b"\n" + json.dumps(rows(1)[0]).encode())
    with pytest.raises(DataError, match=problem):
        prepare(config_for(path))


@pytest.mark.parametrize("override", ["data.source=org/name", "policy.model=org/name"])
def test_a_hub_that_does_not_answer_is_asked_once_and_said_in_two_lines(tmp_path, config_for, override):
    config_for(write(tmp_path / "d.jsonl", rows(20)))
    env = {k: v for k, v in os.environ.items() if not k.endswith("_OFFLINE")}
    env |= {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "hf"), "no_proxy": "127.0.0.1"}
    words = [sys.executable, "-m", "grhpc.data.prepare", str(tmp_path / "c.yaml"), "--set", override]
    done = subprocess.run(words, capture_output=True, text=True, env=env)
    problem, remedy = done.stderr.splitlines()  # and no line for each retry
    assert done.returncode == 2 and problem.startswith("error: ") and remedy.startswith("  do: ")
    assert "'org/name'" in problem and "the Hub does not answer" in problem and "HF_HOME" in problem


def test_a_tokenizer_without_a_chat_template_is_refused(tmp_path, config_for, policy_dir):
    bare = tmp_path / "bare"
    AutoTokenizer.from_pretrained(policy_dir).save_pretrained(bare)
    (bare / "chat_template.jinja").unlink()
    with pytest.raises(DataError, match="no chat template"):
        prepare(config_for(write(tmp_path / "d.jsonl", rows(20)), f"policy.model={bare}"))


def test_unprepared_data_cannot_be_loaded(tmp_path):
    with pytest.raises(DataError, match="no prepared data"):
        load_prompts(tmp_path, TRAIN)


def test_the_program_says_what_it_did(tmp_path, config_for, capsys):
    config_for(write(tmp_path / "d.jsonl", rows(50)))
    assert main([str(tmp_path / "c.yaml"), "--set", "evaluate.heldout_every=0"]) == 0
    assert "train: 50 prompts of 50 rows" in capsys.readouterr().out
    assert main([str(tmp_path / "c.yaml"), "--set", "data.instruction=x"]) == 2
    assert "other settings" in capsys.readouterr().err


def test_the_module_runs_as_a_program(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "grhpc.data.prepare", str(tmp_path / "no.yaml")], capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stderr.startswith("error: no such config file")
