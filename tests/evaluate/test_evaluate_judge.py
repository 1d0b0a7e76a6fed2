"""An evaluation with a judge in the task: what it says goes into the samples, so it must not depend on who asked it."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from eval_bench import POLICY, Scripted, Task, configured, make_evaluation, result

from grhpc.config import EngineConfig, VerifierConfig, VerifyConfig
from grhpc.data import tiny
from grhpc.judge import engine_judge, make
from grhpc.judge.engine_judge import make_engine_judge
from grhpc.judge.judge import Reply

VERIFIER = POLICY.parent / "verifier"


def judged(folder: Path, rows: list[dict], mode: str = "generative", per_shard: int = 2, batching: str = "alone"):
    """The configuration of an evaluation on `rows`, of which the tiny verifier judges what no rule settles."""
    (folder / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"source": str(folder / "own.jsonl"), "fields": {"question": "question", "gold": "answer"}}
    config = configured(folder, "own")
    return replace(
        config,
        batching=batching,
        entries={"own": {**source, "scorer": "math"}},
        sample=replace(config.sample, questions_per_shard=per_shard),
        verify=VerifyConfig(mode, 1.0 if mode == "hybrid" else 0.0, EngineConfig(kv_cache_mb=64, enforce_eager=True)),
        verifier=VerifierConfig(
            str(VERIFIER), "float32", str(VERIFIER / "template.txt"), max_new_tokens=40, max_input_tokens=256
        ),
    )


def asked(run, job: str, answers) -> Task:
    """A task whose questions are answered at once; its judge is its own."""
    return Task(run, job, Scripted(3, answers))


def undisturbed(run, answers) -> None:
    task = asked(run, "local-1", answers)
    assert task.serve() == "the run is finished"
    task.worker.close()


def disturbed(run, answers) -> None:
    """A task grades the second shard, dies with the first one in its hands, and another one does the rest."""
    first = asked(run, "local-1", answers)
    while run.queue("questions").counts()["ready"]:
        first.step()
    first.worker.stage = "samples"
    held = run.queue("samples").claim("local-1")
    assert first.step() > held.name
    first.worker.close()
    held._folders.give_back(held._file, "gave no sign of life", next_attempt=True)
    second = asked(run, "local-2", answers)
    assert second.serve() == "the run is finished"
    second.worker.close()


def digests(run) -> list[str]:
    return [hashlib.sha256(data).hexdigest() for data in result(run)]


class Telling:
    """A judge whose words tell how many questions it had before it, as rounding in a batch may."""

    identity, running = "telling", True

    def start(self) -> None: ...

    def ask(self, prompts, attempt, should_stop, heard=None):
        replies = [Reply(f"One of {len(prompts)}. Final Decision: Yes", True) for _ in prompts]
        heard(dict(zip(prompts, replies, strict=True)))
        return replies

    def usage(self):
        return {}

    def close(self) -> None: ...


def test_what_the_judge_says_depends_on_the_shard_alone(tmp_path, monkeypatch):
    """Both shards hold one question; whoever came second would else ask of it no more."""
    monkeypatch.setattr(make, "make_engine_judge", lambda *_: Telling())
    rows = [{"question": f"What is {word}?", "answer": word} for word in ("one", "both", "both", "two")]
    config = judged(tmp_path, rows)
    calm, crowd = make_evaluation(tmp_path, config, "calm"), make_evaluation(tmp_path, config, "crowd")
    answers = lambda question, k: f"\\boxed{{so to say {question.gold}}}"  # noqa: E731
    undisturbed(calm, answers)
    disturbed(crowd, answers)
    assert {row["reason"] for row in pq.read_table(calm.samples_path).to_pylist()} == {"One of 2. Final Decision: Yes"}
    assert digests(crowd) == digests(calm)


@pytest.mark.parametrize(("batching", "together"), [("alone", {2}), ("continuous", {3})])
def test_the_judge_is_asked_of_one_shard_or_of_several_at_once(tmp_path, monkeypatch, batching, together):
    monkeypatch.setattr(make, "make_engine_judge", lambda *_: Telling())
    rows = [{"question": f"What is {word}?", "answer": word} for word in ("one", "both", "both", "two")]
    run = make_evaluation(tmp_path, judged(tmp_path, rows, batching=batching))
    task = asked(run, "local-1", lambda question, k: f"\\boxed{{so to say {question.gold}}}")
    assert task.serve() == "the run is finished"
    found = pq.read_table(run.samples_path).to_pylist()
    assert [(row["item"], row["extracted"], row["score"]) for row in found] == [
        (str(i), f"so to say {row['answer']}", 1.0) for i, row in enumerate(rows)
    ]
    assert {row["reason"] for row in found} == {f"One of {num}. Final Decision: Yes" for num in together}
    shards = [event for event in task.told("shard") if event["stage"] == "grade"]
    assert len(shards) == 2 and sum(event["samples"] for event in shards) == 4
    asked_for = 4 if batching == "alone" else 3
    assert sum(event.get("asked", 0) for event in shards) == asked_for
    assert [event["so_far"]["asked"] for event in shards if "so_far" in event][-1] == asked_for
    task.worker.close()


def test_a_shard_that_rules_settle_waits_for_no_judge_and_few_are_judged_together(tmp_path, monkeypatch):
    """Else the first task would take every shard that is there, and deliver none until all are judged."""
    monkeypatch.setattr(make, "make_engine_judge", lambda *_: Telling())
    settled = [{"question": f"What is {i}?", "answer": str(i)} for i in range(6)]
    left = [{"question": f"Who is {i}?", "answer": f"person {i}"} for i in range(6)]
    run = make_evaluation(tmp_path, judged(tmp_path, settled + left, "hybrid", per_shard=1, batching="continuous"))
    answers = lambda question, k: f"\\boxed{{{question.gold if question.index < 6 else 'somebody else'}}}"  # noqa: E731
    task, in_hand = asked(run, "local-1", answers), []
    put = type(run.queue("scores")).put

    def count(self, name, rows):
        in_hand.append(len(task.worker._hand.shards))
        return put(self, name, rows)

    monkeypatch.setattr(type(run.queue("scores")), "put", count)
    while run.queue("questions").counts()["ready"]:
        task.step()
    in_hand.clear()
    assert task.serve() == "the run is finished"
    reasons = [row["reason"] for row in pq.read_table(run.samples_path).to_pylist()]
    assert sorted(reasons[6:]) == ["One of 2. Final Decision: Yes"] * 2 + ["One of 4. Final Decision: Yes"] * 4
    assert max(in_hand) <= 4 + 1
    task.worker.close()


def test_the_judges_engine_caches_no_prefix_in_an_evaluation(tmp_path, monkeypatch):
    settings = []
    monkeypatch.setattr(engine_judge, "engine_starter", lambda *words: settings.append(words[2]))
    config = judged(tmp_path, [])
    make_engine_judge(config, None, print)
    assert settings[0].extra == {"enable_prefix_caching": False}


@pytest.mark.parametrize(("mode", "batching"), [("generative", "alone"), ("hybrid", "alone"), ("hybrid", "continuous")])
def test_the_tiny_verifier_says_the_same_in_two_tasks_of_which_one_dies(tmp_path, mode, batching, one_engine):
    rows = tiny.rows("heldout", 24, 1)
    config = judged(tmp_path, rows, mode, per_shard=8)
    calm = make_evaluation(tmp_path, config, "calm")
    crowd = make_evaluation(tmp_path, replace(config, batching=batching), "crowd")
    wrong = ("it is red", "nobody knows", "left")

    def answers(question, k):
        return f"\\boxed{{{question.gold if question.index % 4 == 0 else wrong[question.index % 3]}}}"

    undisturbed(calm, answers)
    disturbed(crowd, answers)
    found = pq.read_table(calm.samples_path).to_pylist()
    assert sum(row["layer"] == "generative" for row in found) > 8
    assert digests(crowd)[0] == digests(calm)[0]
    assert (digests(crowd)[1] == digests(calm)[1]) == (batching == "alone"), "the summary says how batches were made"


@pytest.fixture(scope="module")
def engines():
    kept: list = []
    yield kept
    for engine, close in kept:
        engine.close = close
        engine.close()


@pytest.fixture
def one_engine(engines, monkeypatch):
    """The judges of all tasks share one engine, which none of them closes: it takes long to start."""
    starter = engine_judge.engine_starter

    def kept(*words):
        def start():
            if not engines:
                engine = starter(*words)()
                engines.append((engine, engine.close))
                engine.close = lambda: None
            return engines[0][0]

        return start

    monkeypatch.setattr(engine_judge, "engine_starter", kept)
