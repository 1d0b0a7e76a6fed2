"""An endpoint in the engine's place: a server that fails in every way it can, and a real `vllm serve`."""

import json
import threading
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from eval_bench import Task, configured
from openai_server import Server
from vllm_server import NAME, SERVED

from grhpc.cli import main
from grhpc.config import EndpointConfig
from grhpc.config_file import dump
from grhpc.errors import EngineError, GaveUp, Unavailable
from grhpc.evaluate.benchmarks import load_benchmarks
from grhpc.evaluate.sampling import TOO_LONG, EndpointSampler, EngineSampler, first_seed
from grhpc.records import Question
from grhpc.store.rundir import RunDir


def never() -> bool:
    return False


@pytest.fixture
def server():
    it = Server(lambda prompt: "It is \\boxed{5}.")
    it.models = [{"id": "a-model", "object": "model", "created": 0, "owned_by": "x", "root": "org/a-model-7b"}]
    yield it
    it.die()


@pytest.fixture
def evaluate(tmp_path, monkeypatch, capfd):
    """`evaluate(url, *benchmarks)`: the evaluation that the command makes of the server's `a-model`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))

    def make(url: str, *benchmarks: str, **endpoint) -> RunDir:
        config = configured(tmp_path, *benchmarks)
        place = EndpointConfig(url=url, **{"timeout_s": 2.0, "max_retries": 0, "concurrency": 4} | endpoint)
        config = replace(config, sample=replace(config.sample, endpoint=place))
        (tmp_path / "c.yaml").write_text(dump(config))
        words = ["evaluate", "a-model", "c.yaml", "--no-launch", "--set", "cluster.executor=slurm"]
        assert main(words) == 0, capfd.readouterr().err
        return RunDir.open(tmp_path / "e")

    return make


def rows(run):
    return pq.read_table(run.samples_path).to_pylist()


def test_every_sample_is_one_request_with_its_own_seed_and_the_benchmarks_decoding(server, evaluate):
    run = evaluate(server.url, "tiny", "aime24")
    task = Task(run)
    assert task.serve() == "the run is finished"
    scores = rows(run)
    assert {(s["weight_digest"], s["finish_reason"], s["num_tokens"]) for s in scores} == {
        ("a-model org/a-model-7b", "stop", 10)
    }
    asked = {(r["seed"], r["temperature"], r["max_tokens"], r["model"]) for r in server.requests}
    heat = {"tiny": 0.0, "aime24": 1.0}
    assert asked == {(s["seed"], heat[s["benchmark"]], 24, "a-model") for s in scores}
    assert len(asked) == len(scores) == len(server.requests) == 24 + 4
    assert {r["messages"][0]["content"] for r in server.requests} == {s["prompt"] for s in scores}
    assert server.most_at_once <= 4
    usage = [event for event in task.told("shard") if event["stage"] == "sample"][-1]["usage"]
    assert usage.items() >= {"requests": 28, "retries": 0, "prompt_tokens": 2800, "new_tokens": 280}.items()
    summary = json.loads(run.summary_path.read_text())
    assert (summary["model"], summary["weight_digest"]) == ("a-model", "a-model org/a-model-7b")
    assert server.url not in run.summary_path.read_text()


def test_what_the_server_finds_too_long_is_counted(server, evaluate):
    long = "This model's maximum context length is 240 tokens. However, you requested 300."
    server.answer = lambda prompt: (400, long) if len(prompt) % 2 else "\\boxed{1}"
    run = evaluate(server.url, "tiny")
    Task(run).serve()
    found = rows(run)
    assert {len(s["prompt"]) % 2 for s in found if s["finish_reason"] == TOO_LONG} == {1}
    assert {len(s["prompt"]) % 2 for s in found if s["finish_reason"] != TOO_LONG} == {0}


def test_a_request_that_the_server_does_not_understand_is_no_wrong_answer(server, evaluate):
    server.answer = lambda prompt: (400, "seed is not supported")
    run = evaluate(server.url, "tiny")
    with pytest.raises((EngineError, GaveUp), match="seed is not supported"):
        Task(run).serve()
    assert not run.samples_path.exists() and run.queue("samples").counts()["ready"] == 0


def test_while_the_server_is_away_the_task_waits_and_pays_for_nothing_twice(server, evaluate):
    """It dies in the middle of a shard, and comes back on the same port."""
    seen = threading.Event()

    def answer(prompt):
        if len(server.prompts) == 6:
            seen.set()
            return (503, "going down")
        return "\\boxed{5}"

    server.answer = answer
    run = evaluate(server.url, "tiny", concurrency=1)
    task = Task(run)
    task.worker.prepare()
    lease = run.queue("questions").claim("local-1")
    with pytest.raises(Unavailable, match=r"the model at .* does not answer: 503 going down"):
        task.worker.work(lease)
    lease.release("away")
    assert not task.worker.sampler.running and seen.is_set()
    heard = len(task.worker.sampler._kept)
    server.answer = lambda prompt: "\\boxed{5}"
    assert task.serve() == "the run is finished"
    assert heard == 5 and len(server.prompts) == 24 + 1, "only the refused one was asked again"
    assert len(rows(run)) == 24


def test_a_server_that_was_exchanged_on_the_way_makes_no_table(server, evaluate):
    run = evaluate(server.url, "tiny")
    Task(run).step()
    server.models[0]["root"] = "org/another"
    with pytest.raises(Exception, match="the samples are of 2 models"):
        Task(run, "local-2").serve()


def test_a_real_server_answers_as_the_engine_in_the_task(tmp_path, vllm_server):
    """`vllm serve` with a small model against the same model in this process: greedy, and seeded sampling."""
    config = configured(tmp_path, "tiny", "aime24")
    there = EndpointConfig(url=vllm_server, model=NAME)
    elsewhere = replace(config, sample=replace(config.sample, endpoint=there))
    entries = load_benchmarks(config)
    server = EndpointSampler(elsewhere, entries)
    engine = EngineSampler(config, entries, lambda: str(SERVED), "d", print)
    questions = [question(i) for i in range(12)]
    try:
        ours, theirs = (sampler.sample(questions, never) for sampler in (engine, server))
    finally:
        engine.close()
        server.close()
    same = ("item", "sample", "response", "finish_reason", "num_tokens", "seed")
    assert [[getattr(s, name) for name in same] for s in theirs] == [[getattr(s, name) for name in same] for s in ours]
    assert {s.weight_digest for s in theirs} == {f"{NAME} {SERVED}"}
    usage = server.usage()
    assert usage["requests"] == 12 and usage["new_tokens"] == sum(s.num_tokens for s in theirs)
    assert theirs[0].seed == first_seed(3, questions[0])


def question(number: int):
    return Question(
        benchmark="tiny",
        item=str(number),
        index=number,
        question=f"What is {number} + 2?",
        prompt=f"What is {number} + 2?",
        options=[],
        gold=str(number + 2),
        gold_type="",
        groups="{}",
        num_samples=1,
    )
