"""How far an evaluation is: in status, while it is watched, and as a training run's status names it."""

import time
from dataclasses import replace

import pytest

from grhpc.cluster.submissions import Submission, record
from grhpc.config import RunConfig
from grhpc.eval_config import EvalConfig, EvalDataConfig
from grhpc.records import Question, Sample, Score
from grhpc.report import evaluating, follow, status
from grhpc.report import watch as watching
from grhpc.report.watch import watch
from grhpc.store.questions import Extent
from grhpc.store.rundir import RunDir

EXTENT = Extent(questions={"maths": 10, "aime": 4}, samples={"maths": 1, "aime": 3}, per_shard=6)
QUESTION = Question(
    benchmark="b",
    item="1",
    index=0,
    question="q",
    prompt="q",
    options=[],
    gold="5",
    gold_type="",
    groups="{}",
    num_samples=1,
)
SAMPLE = Sample(**vars(QUESTION), sample=0, response="5", num_tokens=1, finish_reason="stop", seed=0, weight_digest="d")
SCORE = Score(**vars(SAMPLE), extracted="5", score=1.0, layer="exact", reason="")
ROWS = {"questions": QUESTION, "samples": SAMPLE, "scores": SCORE}


@pytest.fixture
def run(tmp_path):
    config = EvalConfig(RunConfig("e", str(tmp_path)), ["maths", "aime"], EvalDataConfig("none"))
    config = replace(config, cluster=replace(config.cluster, executor="local"))
    return RunDir.create(tmp_path / "e", config, model="a-model", extent=EXTENT.as_json())


def put(run, **names):
    for queue, shards in names.items():
        for shard in shards.split():
            run.queue(queue).put(shard, [ROWS[queue]])


def test_shards_cover_every_question_once_and_hold_about_as_many_samples_each():
    shards = list(EXTENT.shards())
    assert [s.name for s in shards] == [
        "maths-000000-0006",
        "maths-000006-0004",
        "aime-000000-0002",
        "aime-000002-0002",
    ]
    assert sum(s.num_samples for s in shards) == EXTENT.num_samples == 22
    assert Extent.of({"extent": EXTENT.as_json()}) == EXTENT


def test_what_passed_a_stage_is_counted_by_the_listing_wherever_it_stands(run):
    put(run, questions="aime-000002-0002", samples="maths-000006-0004", scores="maths-000000-0006 aime-000000-0002")
    put(run, samples="maths-000000-0006")  # delivered again by a task that was taken for dead
    found = status.status(run)
    assert found["samples_done"] == {"sample": 16, "grade": 12} and found["shards_done"] == {"sample": 3, "grade": 2}
    text = "\n".join(status.lines(found))
    assert text.startswith("e: broken off, 2 of 4 shards done\nmodel: a-model\n")
    assert "asked: 16 of 22 samples in 3 of 4 shards\ngraded: 12 of 22 samples in 2 of 4 shards\n" in text


def test_the_pace_is_that_of_all_tasks_together_and_tells_what_is_left(run, monkeypatch):
    now_s = time.time()
    put(run, questions="maths-000006-0004 aime-000002-0002", samples="aime-000000-0002", scores="maths-000000-0006")
    events = [
        {
            "t": now_s - 5,
            "event": "shard",
            "role": "evaluate",
            "job": "1",
            "stage": "sample",
            "samples": 4,
            "seconds": 3,
        },
        {"t": now_s, "event": "shard", "role": "evaluate", "job": "2", "stage": "sample", "samples": 12, "seconds": 8},
        {"t": now_s - 9999, "event": "shard", "role": "evaluate", "job": "2", "stage": "sample", "samples": 99},
        {"t": now_s, "event": "shard", "role": "evaluate", "job": "2", "stage": "grade", "samples": 4, "seconds": 2},
    ]
    found = evaluating.facts(run, events, now_s)
    assert found["samples_per_s"] == {"sample": pytest.approx(2.0), "grade": pytest.approx(2.0)}
    assert found["left_s"] == pytest.approx(10 / 2 + 16 / 2)
    assert "about 13 s to go" in evaluating.lines(found | {"state": "running"})
    assert "to go" not in "\n".join(evaluating.lines(found | {"state": "broken off"}))
    for event in events[:1]:  # a stop of minutes between what was done before and after it is no work
        event["t"] -= 300
    assert evaluating.facts(run, events, now_s)["samples_per_s"]["sample"] == pytest.approx(16 / (3 + 8))


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(follow, "GONE_S", 0.2)
    monkeypatch.setattr(watching, "POLL_S", 0.05)
    monkeypatch.setitem(follow.JOBS_EVERY_S, "local", 0.05)


def test_watching_tells_how_many_shards_are_done_of_all_when_that_changed(run, capsys, quick):
    events = run.events("evaluate", "local-7")
    events.emit("start")
    events.emit("ready", stage="questions")
    events.emit("shard", shard="maths-000000-0004", stage="sample", samples=4, seconds=1.25)
    events.emit("shard", shard="maths-000000-0004", stage="grade", samples=4, seconds=0.5)
    events.emit("shard", shard="maths-000000-0004", stage="grade", samples=4, seconds=0.5)  # twice over
    run.request_stop("enough")
    assert watch(run) == 0
    said = capsys.readouterr().out
    assert said.count("1 asked, 1 graded of 4 shards") == 1 and "stopped: enough" in said


def test_a_role_that_is_gone_is_said(run, capsys, quick):
    record(run.jobs_dir, Submission("local", "evaluate", "1", started=1))  # no process began then
    assert watch(run) == 1
    assert "no evaluate task is left" in capsys.readouterr().out


def test_a_training_run_names_its_evaluations(tmp_path):
    from tests.cluster.conftest import new_run

    training = new_run(tmp_path, "local", "t")
    config = EvalConfig(RunConfig("x"), ["maths"], EvalDataConfig("none"))
    made = []
    for version in (0, 5, 10):
        root = training.evaluation_dir("paper", version)
        made.append(RunDir.create(root, config, model="t", extent=EXTENT.as_json()))
    made[0].finish({})
    (made[1].jobs_dir / "1-evaluate-7.json").write_text("{}")
    found = status.status(training)
    assert found["evaluations"] == {
        "t/eval/paper/v000000": "finished",
        "t/eval/paper/v000005": "started",
        "t/eval/paper/v000010": "not submitted yet",
    }
    training.finish({})
    assert status.status(training)["next"] == "python submit.py resume t/eval/paper/v000010"
