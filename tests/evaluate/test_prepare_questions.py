"""The prepared folder: whole or not at all, kept while the settings stay, refused where they changed."""

import json
import shutil
from dataclasses import replace

import pytest
import yaml
from eval_inputs import PLACES, evaluation

from grhpc.config_file import dump, with_absolute_paths
from grhpc.errors import ConfigError, DataError
from grhpc.evaluate.prepare import load_questions, main, prepare, read_current, read_prepared, summary_lines


def test_every_benchmark_comes_back_as_it_was_read(tmp_path):
    config = evaluation(*PLACES, prepared=tmp_path)
    manifest = prepare(config)
    assert list(manifest["benchmarks"]) == [*PLACES]
    for name, part in manifest["benchmarks"].items():
        asked = load_questions(tmp_path, name)
        assert 1 <= len(asked) == part["questions"]
        assert part["samples"] == len(asked) * (32 if name.startswith("aime") else 1)
        assert len(part["data_sha256"]) == len(part["sha256"]) == 64
    assert read_prepared(config) == manifest
    assert "aime24: 1 questions, 32 responses" in summary_lines(manifest)


def test_the_same_settings_are_kept_and_further_benchmarks_are_added(tmp_path):
    first = prepare(evaluation("math500", prepared=tmp_path))
    before = (tmp_path / "math500.parquet").stat().st_mtime_ns
    both = evaluation("math500", "amc23", prepared=tmp_path)
    assert read_prepared(both) is None
    assert prepare(both)["benchmarks"]["math500"] == first["benchmarks"]["math500"]
    assert (tmp_path / "math500.parquet").stat().st_mtime_ns == before
    assert read_prepared(evaluation("math500", prepared=tmp_path)) == first


def test_two_preparations_give_the_same_bytes(tmp_path):
    digests = [prepare(evaluation(*PLACES, prepared=tmp_path / name))["benchmarks"] for name in "ab"]
    assert digests[0] == digests[1]
    assert (tmp_path / "a" / "gpqa-diamond.json").read_bytes() == (tmp_path / "b" / "gpqa-diamond.json").read_bytes()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"few_shot": 2}, "few_shot, examples"),
        ({"entries": {"math500": {"prompt": "{question}"}}}, "prompt"),
        ({"sources": {"math500": "other.jsonl"}}, "source"),
    ],
)
def test_other_settings_are_refused(settings, named, tmp_path):
    prepare(evaluation("math500", prepared=tmp_path))
    with pytest.raises(DataError) as refused:
        read_prepared(evaluation("math500", prepared=tmp_path, **settings))
    assert named in refused.value.problem and "math500.json" in refused.value.remedy


@pytest.mark.parametrize(
    "settings", [{"max_prompt_tokens": 7}, {"limit": 1}, {"entries": {"math500": {"published": {"ours": 1.0}}}}]
)
def test_settings_that_no_question_shows_do_not_matter(settings, tmp_path):
    manifest = prepare(evaluation("math500", prepared=tmp_path))
    assert read_prepared(evaluation("math500", prepared=tmp_path, **settings)) == manifest


@pytest.mark.parametrize("source", ["own.jsonl", "data/*.jsonl", "data"])
@pytest.mark.parametrize("by", ["sources", "entries"])
def test_a_task_that_starts_elsewhere_finds_the_same(source, by, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for name in ("own.jsonl", "data/own.jsonl"):
        (tmp_path / name).write_text('{"problem": "1+1?", "answer": "2"}\n')
    if by == "sources":
        config = evaluation("math500", sources={"math500": source})
    else:
        own = {"source": source, "fields": {"question": "problem", "gold": "answer"}, "scorer": "math"}
        config = evaluation("own", entries={"own": own})
    manifest = prepare(config)
    resolved = with_absolute_paths(config)
    monkeypatch.chdir("/")
    assert read_prepared(resolved) == manifest


OWN = {"fields": {"question": "problem", "gold": "answer"}, "scorer": "math"}


def own(source, *, few_shot=0, examples=""):
    """An evaluation of a benchmark of one's own in the current folder."""
    entry = OWN | {"source": source}
    if examples:
        entry |= {"few_shot": {"num": 1, "source": examples, "fields": {"solution": "answer"}}}
    return evaluation("own", entries={"own": entry}, few_shot=few_shot)


def write(place, answer, problem="1+1?"):
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps({"problem": problem, "answer": answer}) + "\n")


@pytest.mark.parametrize("source", ["own.jsonl", "data/*.jsonl", "data"])
def test_data_that_changed_since_are_refused_and_what_was_prepared_of_them_stays(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    places = [tmp_path / "own.jsonl", tmp_path / "data" / "own.jsonl"]
    for place in places:
        write(place, "2")
    manifest = prepare(own(source))
    assert read_current(own(source)) == prepare(own(source)) == manifest
    for place in places:
        write(place, "3")
    for read in (prepare, read_current):
        with pytest.raises(DataError, match="prepared of other data") as refused:
            read(own(source))
        assert "remove own.json there" in refused.value.remedy
    assert read_prepared(own(source)) == manifest, "what goes on with its questions still finds them"
    (tmp_path / "prepared" / "own.json").unlink()
    prepare(own(source))
    assert [question.gold for question in load_questions(tmp_path / "prepared", "own")] == ["3"]


def test_worked_examples_that_changed_since_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "own.jsonl", "2")
    write(tmp_path / "worked.jsonl", "4", "2+2?")
    config = own("own.jsonl", few_shot=1, examples="worked.jsonl")
    assert prepare(config) == read_current(config)
    write(tmp_path / "worked.jsonl", "5", "2+3?")
    with pytest.raises(DataError, match=r"prepared of other data than worked\.jsonl"):
        read_current(config)


@pytest.mark.parametrize("with_data", [False, True])
def test_a_folder_copied_to_another_machine_is_that_of_the_same_data_wherever_they_are(
    with_data, tmp_path, monkeypatch
):
    here, there = tmp_path / "here", tmp_path / "there"
    write(here / "data" / "own.jsonl", "2")
    monkeypatch.chdir(here)
    manifest = prepare(own("data/own.jsonl"))
    shutil.copytree(here / "prepared", there / "prepared")
    monkeypatch.chdir(there)
    for config in (own("data/own.jsonl"), own(str(there / "own.jsonl"))):
        assert read_current(config) == prepare(config) == manifest, "without the data"
    if with_data:
        write(there / "moved.jsonl", "2")
        assert read_current(own("moved.jsonl")) == manifest
    with pytest.raises(DataError, match="other settings \\(source\\)"):
        read_current(own("some/hub-id"))


def test_half_of_a_surrogate_pair_in_the_data_is_refused_by_row(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.jsonl").write_text('{"problem": "1", "answer": "2"}\n{"problem": "\\ud800", "answer": "2"}\n')
    with pytest.raises(DataError, match="row 2 has half of a surrogate pair"):
        prepare(own("own.jsonl"))


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_that_leaves_no_question_is_refused(limit, tmp_path):
    with pytest.raises(ConfigError, match=f"data.limit is {limit}"):
        prepare(evaluation("math500", prepared=tmp_path / "p", limit=limit))


def test_no_benchmark_at_all_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="benchmarks is empty"):
        prepare(evaluation(prepared=tmp_path / "p"))


def test_nothing_is_written_before_everything_is_read(tmp_path):
    config = evaluation("math500", "amc23", prepared=tmp_path / "p", sources={"amc23": str(tmp_path / "absent.jsonl")})
    with pytest.raises(DataError, match="no such dataset file"):
        prepare(config)
    assert not (tmp_path / "p").exists()


def test_questions_that_are_not_prepared_are_missed_with_a_remedy(tmp_path):
    with pytest.raises(DataError, match="has no prepared math500"):
        load_questions(tmp_path, "math500")


def test_a_half_written_benchmark_is_none(tmp_path):
    config = evaluation("math500", prepared=tmp_path)
    prepare(config)
    (tmp_path / "math500.json").unlink()
    assert read_prepared(config) is None
    assert prepare(config)["benchmarks"]["math500"]["questions"] == 3


def test_the_program_prepares_and_says_so_and_refuses_in_two_lines(tmp_path, capsys):
    path = tmp_path / "eval.yaml"
    path.write_text(dump(evaluation("math500", "gsm8k", prepared=tmp_path / "p")))
    assert main([str(path)]) == 0
    out = capsys.readouterr().out
    assert "math500: 3 questions" in out and f"prepared in {tmp_path / 'p'}" in out
    assert main([str(path), "--set", "data.limit=1"]) == 0
    assert "already prepared" in capsys.readouterr().out
    assert main([str(path), "--set", "sample.few_shot=1"]) == 2
    problem, remedy = capsys.readouterr().err.strip().splitlines()
    assert problem.startswith("error: math500 in") and remedy.startswith("  do: name another folder")


def test_a_folder_that_holds_the_first_questions_only_serves_no_more_than_those(tmp_path):
    """As folders did that were prepared before a limit was the evaluation's."""
    prepare(evaluation("math500", prepared=tmp_path))
    part = json.loads((tmp_path / "math500.json").read_text())
    part["settings"]["limit"] = 2
    (tmp_path / "math500.json").write_text(json.dumps(part))
    assert read_prepared(evaluation("math500", prepared=tmp_path, limit=2))
    for more in (3, None):
        with pytest.raises(DataError, match="limit"):
            read_prepared(evaluation("math500", prepared=tmp_path, limit=more))


def test_the_manifest_is_plain_json_without_this_machines_model(tmp_path):
    prepare(evaluation("math500", prepared=tmp_path))
    part = json.loads((tmp_path / "math500.json").read_text())
    assert set(part) == {"settings", "sources", "data_sha256", "questions", "samples", "sha256"}


def test_a_configuration_file_reads_back(tmp_path):
    config = evaluation("math500", prepared=tmp_path)
    assert yaml.safe_load(dump(replace(config, entries={"x": {"a": [1]}})))["entries"] == {"x": {"a": [1]}}
