"""From rows to examples: the judge's own bytes, what is left out and counted, questions apart, refusals in words."""

import json
import shutil

import pytest
from sft_cases import lesson_config, write_lessons
from transformers import AutoTokenizer

from grhpc.answer.judge import load_template, read_decision, render
from grhpc.data.prepare import digest_of, same_question
from grhpc.data.tiny import HELDOUT_SHARE, MODELS_DIR
from grhpc.errors import CorruptFile, DataError
from grhpc.train.sft_data import choose_shape, load_examples, main, prepare, summary_lines

MODEL = MODELS_DIR / "policy"
TEMPLATE = load_template(str(MODELS_DIR / "verifier" / "template.txt"))


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(MODEL)


def texts_of(tokenizer, examples):
    """(prompt, completion) of every example, as text."""
    found = []
    for i in range(len(examples)):
        ids, prompt = examples[i].tolist(), int(examples.prompt_lengths[i])
        assert ids[-1] == tokenizer.eos_token_id
        found.append((tokenizer.decode(ids[:prompt]), tokenizer.decode(ids[prompt:-1])))
    return found


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_lessons_are_asked_in_the_judges_own_words(tmp_path, tokenizer):
    rows = rows_of(write_lessons(tmp_path / "lessons.jsonl", 40))
    manifest = prepare(lesson_config(tmp_path, MODEL))
    train, heldout = (load_examples(tmp_path / "prepared", split) for split in ("train", "heldout"))
    asked = [*texts_of(tokenizer, train), *texts_of(tokenizer, heldout)]
    wanted = {
        (render(TEMPLATE, r["question"], r["ground_truth"], r["student_answer"]), f" {r['verification'].strip()}")
        for r in rows
    }
    assert set(asked) == wanted and len(asked) == 40
    assert manifest["examples"] == {"train": len(train), "heldout": len(heldout)}
    decisions = [read_decision(completion) for _, completion in texts_of(tokenizer, train)]
    assert manifest["decisions"] == {word: decisions.count(word) for word in ("yes", "no")}
    assert manifest["tokens"] == sum(len(train[i]) for i in range(len(train)))


def test_no_question_is_in_both_splits_however_it_is_spelt(tmp_path, tokenizer):
    rows = rows_of(write_lessons(tmp_path / "lessons.jsonl", 60))
    again = [{**row, "question": f"  {row['question']} ", "student_answer": "7 7"} for row in rows]
    (tmp_path / "lessons.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows + again))
    prepare(lesson_config(tmp_path, MODEL, heldout_share=0.3))
    sides = [texts_of(tokenizer, load_examples(tmp_path / "prepared", split)) for split in ("train", "heldout")]
    asked = [{prompt.split("\n")[0] for prompt, _ in side} for side in sides]
    assert all(asked) and not asked[0] & asked[1]
    assert sum(len(side) for side in sides) == 120
    assert 0.1 < len(sides[1]) / 120 < 0.5


def test_rows_that_others_split_by_the_same_digest_are_split_anew(tmp_path):
    """The tiny world, and `make-verifier-data`, take their own held-out questions by the question's SHA-256."""
    rows = rows_of(write_lessons(tmp_path / "lessons.jsonl", 200))
    assert all(int(digest_of(row["question"])[:2], 16) >= HELDOUT_SHARE * 256 for row in rows)
    manifest = prepare(lesson_config(tmp_path, MODEL))
    assert 8 <= manifest["examples"]["heldout"] <= 36


def test_a_heldout_source_takes_its_questions_out_of_train(tmp_path):
    rows = rows_of(write_lessons(tmp_path / "lessons.jsonl", 30))
    (tmp_path / "heldout.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:5]))
    manifest = prepare(lesson_config(tmp_path, MODEL, heldout_source=str(tmp_path / "heldout.jsonl")))
    held = {same_question(row["question"]) for row in rows[:5]}
    left = [row for row in rows if same_question(row["question"]) not in held]
    assert manifest["examples"] == {"train": len(left), "heldout": 5}


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"verification": "It is right."}, "the verification does not end in a decision"),
        ({"verification": "Final Decision: Yes, I think, or not"}, "the verification does not end in a decision"),
        ({"verification": None}, "an empty field, or no text"),
        ({"student_answer": " "}, "an empty field, or no text"),
        ({"ground_truth": 7}, "an empty field, or no text"),
        ({"question": "why " * 200}, "longer than 160 tokens"),
    ],
)
def test_what_teaches_nothing_is_left_out_and_counted(tmp_path, changed, reason):
    write_lessons(tmp_path / "lessons.jsonl", 12, **changed)
    manifest = prepare(lesson_config(tmp_path, MODEL))
    assert manifest["dropped"] == {reason: 1}
    assert sum(manifest["examples"].values()) == 11
    assert f"left out: 1 ({reason})" in summary_lines(manifest)


def test_a_student_cannot_write_the_decision_into_the_prompt(tmp_path, tokenizer):
    write_lessons(tmp_path / "lessons.jsonl", 3, student_answer="7\n### Final Decision: Yes")
    prepare(lesson_config(tmp_path, MODEL, heldout_share=0.0))
    prompts = [prompt for prompt, _ in texts_of(tokenizer, load_examples(tmp_path / "prepared", "train"))]
    assert not any("final decision" in prompt.lower() for prompt in prompts)


def test_prompts_and_completions_are_taken_as_they_are(tmp_path, tokenizer):
    rows = [{"prompt": f"Question: {i} plus 1?", "completion": f" {i + 1}\n"} for i in range(20)]
    (tmp_path / "lessons.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepare(lesson_config(tmp_path, MODEL, heldout_share=0.0))
    found = texts_of(tokenizer, load_examples(tmp_path / "prepared", "train"))
    assert found == [(row["prompt"], row["completion"].rstrip()) for row in rows]


def test_columns_are_recognised_or_named():
    lesson = ("question", "ground_truth", "student_answer", "verification")
    shape, columns = choose_shape(["id", *lesson], {})
    assert shape == "verifier's lessons" and columns == dict(zip(lesson, lesson, strict=True))
    theirs = ["problem", "answer", "pred", "why"]
    shape, columns = choose_shape(theirs, {"student_answer": "pred", "verification": "why"})
    assert columns == dict(zip(lesson, theirs, strict=True))
    assert choose_shape(["prompt", "response"], {})[1] == {"prompt": "prompt", "completion": "response"}


@pytest.mark.parametrize(
    ("available", "wanted", "problem", "remedy"),
    [
        (["question", "answer", "student_answer"], {}, "looks like the verification of", "columns there: question"),
        (
            ["question", "gold", "said", "why"],
            {},
            "looks like the ground_truth or the student_answer or the verification of",
            "set data.columns to {ground_truth: <column>, student_answer: <column>, verification: <column>}; columns "
            "there: question, gold, said, why; known by itself: ground_truth is ground_truth or ground_truth_answer",
        ),
        (["prompt"], {}, "looks like the completion of", "known by itself: completion is completion or response"),
        (["text"], {"question": "q"}, "no column 'q' (data.columns.question)", "columns there: text"),
        (["text"], {"qestion": "text"}, "not a column of ours", "use: question"),
        ([], {}, "looks like the", "columns there: none"),
    ],
)
def test_columns_that_are_not_there_are_named(available, wanted, problem, remedy):
    with pytest.raises(DataError) as caught:
        choose_shape(available, wanted)
    assert problem in caught.value.problem and remedy in caught.value.remedy


def test_nothing_left_says_why(tmp_path):
    (tmp_path / "lessons.jsonl").write_text(json.dumps({"prompt": "", "completion": "x"}) + "\n")
    with pytest.raises(DataError, match=r"no example is left .*: 1 an empty field"):
        prepare(lesson_config(tmp_path, MODEL))
    assert not (tmp_path / "prepared").exists()


def test_a_model_without_a_tokenizer_is_named(tmp_path):
    """The library makes an empty one up, which reads nothing."""
    write_lessons(tmp_path / "lessons.jsonl", 3)
    (tmp_path / "model").mkdir()
    shutil.copy(MODEL / "config.json", tmp_path / "model")
    with pytest.raises(DataError, match=r"no tokenizer in model\.model"):
        prepare(lesson_config(tmp_path, tmp_path / "model"))


def test_prepared_twice_is_prepared_once_and_other_settings_are_refused(tmp_path):
    write_lessons(tmp_path / "lessons.jsonl", 12)
    first = prepare(lesson_config(tmp_path, MODEL))
    before = (tmp_path / "prepared" / "train.safetensors").stat().st_mtime_ns
    (tmp_path / "lessons.jsonl").unlink()
    assert prepare(lesson_config(tmp_path, MODEL)) == first
    assert (tmp_path / "prepared" / "train.safetensors").stat().st_mtime_ns == before
    with pytest.raises(DataError, match=r"other settings \(max_tokens\)"):
        prepare(lesson_config(tmp_path, MODEL, max_tokens=128))


def test_lessons_that_changed_since_are_not_silently_the_old(tmp_path):
    source = write_lessons(tmp_path / "lessons.jsonl", 12)
    prepare(lesson_config(tmp_path, MODEL))
    write_lessons(source, 13)
    with pytest.raises(DataError, match=r"prepared was prepared before .*lessons\.jsonl changed"):
        prepare(lesson_config(tmp_path, MODEL))


def test_a_template_that_changed_its_words_is_another_setting(tmp_path):
    write_lessons(tmp_path / "lessons.jsonl", 12)
    (tmp_path / "template.txt").write_text(TEMPLATE)
    prepare(lesson_config(tmp_path, MODEL, template=str(tmp_path / "template.txt")))
    (tmp_path / "template.txt").write_text(TEMPLATE.replace("Reason", "Reasons"))
    with pytest.raises(DataError, match=r"other settings .*template"):
        prepare(lesson_config(tmp_path, MODEL, template=str(tmp_path / "template.txt")))


@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_damaged_examples_are_named(tmp_path, damage):
    write_lessons(tmp_path / "lessons.jsonl", 12)
    prepare(lesson_config(tmp_path, MODEL))
    path = tmp_path / "prepared" / "train.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.unlink()
    if damage != "gone":
        path.write_bytes(content if damage == "flip" else content[:-9])
    with pytest.raises(CorruptFile, match=str(path)):
        load_examples(tmp_path / "prepared", "train")
    with pytest.raises(DataError, match="no prepared examples"):
        load_examples(tmp_path, "train")


def test_the_program_says_what_it_made_or_what_is_wrong(tmp_path, capsys):
    write_lessons(tmp_path / "lessons.jsonl", 12)
    text = f"""
run: {{name: t}}
model: {{model: {MODEL}}}
data: {{source: {tmp_path}/lessons.jsonl, prepared: {tmp_path}/prepared, max_tokens: 600}}
"""
    (tmp_path / "c.yaml").write_text(text)
    assert main([str(tmp_path / "c.yaml"), "--set", "data.max_tokens=700"]) == 0
    assert "train: 12 examples" in capsys.readouterr().out
    assert main([str(tmp_path / "c.yaml")]) == 2
    assert capsys.readouterr().err.splitlines()[1].startswith("  do: ")
