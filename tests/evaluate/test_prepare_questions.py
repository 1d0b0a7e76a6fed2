"""The prepared folder: whole or not at all, kept while the settings stay, refused where they changed."""

import json
from dataclasses import replace

import pytest
import yaml
from eval_inputs import PLACES, evaluation

from grhpc.config_file import dump, with_absolute_paths
from grhpc.errors import DataError
from grhpc.evaluate.prepare import load_questions, main, prepare, read_prepared, summary_lines


def test_every_benchmark_comes_back_as_it_was_read(tmp_path):
    config = evaluation(*PLACES, "tiny", prepared=tmp_path, limit=2)
    manifest = prepare(config)
    assert list(manifest["benchmarks"]) == [*PLACES, "tiny"]
    for name, part in manifest["benchmarks"].items():
        asked = load_questions(tmp_path, name)
        assert 1 <= len(asked) == part["questions"] <= 2
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
        ({"limit": 1}, "limit"),
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


@pytest.mark.parametrize("settings", [{"max_prompt_tokens": 7}, {"entries": {"math500": {"published": {"ours": 1.0}}}}])
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
    assert main([str(path), "--set", "data.limit=1"]) == 0
    out = capsys.readouterr().out
    assert "math500: 1 questions" in out and f"prepared in {tmp_path / 'p'}" in out
    assert main([str(path), "--set", "data.limit=1"]) == 0
    assert "already prepared" in capsys.readouterr().out
    assert main([str(path)]) == 2
    problem, remedy = capsys.readouterr().err.strip().splitlines()
    assert problem.startswith("error: math500 in") and remedy.startswith("  do: name another folder")


def test_the_manifest_is_plain_json_without_this_machines_model(tmp_path):
    prepare(evaluation("math500", prepared=tmp_path))
    part = json.loads((tmp_path / "math500.json").read_text())
    assert set(part) == {"settings", "data_sha256", "questions", "samples", "sha256"}


def test_a_configuration_file_reads_back(tmp_path):
    config = evaluation("math500", prepared=tmp_path)
    assert yaml.safe_load(dump(replace(config, entries={"x": {"a": [1]}})))["entries"] == {"x": {"a": [1]}}
