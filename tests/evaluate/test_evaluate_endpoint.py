"""An endpoint in the engine's place: a server that fails in every way it can, and a real `vllm serve`."""

import json
import random
import threading
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from eval_bench import Task, configured, make_evaluation
from openai_server import CUT, Server
from vllm_server import NAME, SERVED

from grhpc.cli import main
from grhpc.config import EndpointConfig, VerifierConfig, VerifyConfig
from grhpc.config_file import dump
from grhpc.engine.probe import PROBE
from grhpc.errors import ConfigError, Unavailable
from grhpc.evaluate.benchmarks import load_benchmarks
from grhpc.evaluate.endpoint_sampler import EndpointSampler
from grhpc.evaluate.engine_sampler import EngineSampler
from grhpc.evaluate.grading import left_open, look, scores
from grhpc.evaluate.sampling import first_seed
from grhpc.evaluate.statistics import TOO_LONG, summarise
from grhpc.judge.decide import Pair
from grhpc.judge.layers import ExactDecider
from grhpc.records import YES, Question
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
        place = EndpointConfig(url=url, **{"timeout_s": 30.0, "max_retries": 0, "concurrency": 4} | endpoint)
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
    with pytest.raises(ConfigError, match=r"all of 8 questions to a-model: .*400 seed is not supported"):
        Task(run).step()
    assert not run.samples_path.exists() and run.queue("samples").counts()["ready"] == 0


NO_ROOM = (
    "This model's maximum context length is 8192 tokens. However, you requested 8200 (8 in the messages, 8192 ...)."
)


@pytest.mark.parametrize("words", [NO_ROOM, "seed not allowed in this context"])
@pytest.mark.parametrize("few", [False, True])
def test_a_server_that_refuses_everything_makes_no_table_of_zeros(tmp_path, server, words, few):
    """Eight questions at once, or one after the other."""
    server.answer = lambda prompt: (400, words)
    sampler = sampler_of(tmp_path, server)
    with pytest.raises(ConfigError, match=r"all of \d questions to a-model: ") as caught:
        sampler.sample([question(i) for i in range(1 if few else 8)], never)
    sampler.close()
    assert words[:60] in caught.value.problem


def test_what_was_answered_of_another_shard_makes_no_refusal_of_everything_right(tmp_path, server):
    """Its server went away in the middle, another task did the rest, and what came back refuses all."""
    server.answer = lambda prompt: "\\boxed{5}" if len(server.prompts) == 1 else (503, "going down")
    sampler = sampler_of(tmp_path, server, concurrency=1)
    with pytest.raises(Unavailable):
        sampler.sample([question(i) for i in range(8)], never)
    server.answer = lambda prompt: "2" if prompt == PROBE else (400, "seed not allowed in this context")
    with pytest.raises(ConfigError, match="all of 8 questions to a-model: "):
        sampler.sample([question(i) for i in range(8, 16)], never)
    sampler.close()


@pytest.mark.parametrize("together", [1, 12])
def test_a_question_that_is_refused_for_what_it_says_is_one_wrong_answer(tmp_path, server, together):
    """Among others, and where it is a shard of its own."""
    server.answer = lambda prompt: (400, "content filtered by policy") if prompt.startswith("What is 0 ") else "5"
    sampler = sampler_of(tmp_path, server)
    found = sampler.sample([question(i) for i in range(together)], never)
    sampler.close()
    assert [s.finish_reason for s in found] == ["refused"] + ["stop"] * (together - 1)
    assert (found[0].response, found[0].num_tokens) == ("", 0)
    looked = look(found[:1], {"tiny": "tiny"}, never)
    [score] = scores(looked, ExactDecider().decide(left_open([looked]), never).decisions)
    assert (score.score, score.extracted, score.layer) == (0.0, None, "extract")
    part = summarise([score], load_benchmarks(configured(tmp_path, "tiny"))["tiny"])
    assert part["refused"]["num"] == 1 and part["missing"]["num"] == part["too_long"]["num"] == 0
    assert part["tokens_mean"]["value"] is None


@pytest.mark.parametrize("together", [1, 12])
def test_a_sample_that_cannot_be_had_is_one_wrong_answer_of_its_own_kind(tmp_path, server, together):
    """The others of its shard are kept, and bought once; it is asked five times more, alone."""
    server.answer = lambda prompt: (500, "internal error") if prompt.startswith("What is 0 ") else "5"
    sampler = sampler_of(tmp_path, server)
    found = sampler.sample([question(i) for i in range(together)], never)
    sampler.close()
    assert [s.finish_reason for s in found] == ["refused"] + ["stop"] * (together - 1)
    assert len(server.prompts) == together + 5


def test_a_question_that_brings_the_server_down_each_time_is_one_wrong_answer(server, evaluate):
    """The evaluation goes on, without a person."""
    poison: list[str] = []

    def answer(prompt):
        poison.extend([prompt] if not poison else [])
        return CUT if prompt == poison[0] else "\\boxed{5}"

    server.answer = answer
    run = evaluate(server.url, "tiny", concurrency=1)
    task = Task(run)
    assert task.serve() == "the run is finished"
    assert sorted(s["finish_reason"] for s in rows(run)) == ["refused"] + ["stop"] * 23
    assert any("asked alone, one question met such failures 5 times" in e["problem"] for e in task.told("error"))


def test_a_service_that_turns_half_of_all_requests_away_costs_no_score(server, evaluate, monkeypatch):
    """The task waits and asks again, until every sample has its answer."""
    monkeypatch.setattr("grhpc.engine.endpoint.back_off_s", lambda failed, wish: 0.0)
    coin = random.Random(7)
    server.answer = lambda prompt: (429, "slow down") if coin.random() < 0.5 else "\\boxed{5}"
    run = evaluate(server.url, "tiny", max_retries=1)
    task = Task(run)
    assert task.serve() == "the run is finished"
    assert {s["finish_reason"] for s in rows(run)} == {"stop"} and len(rows(run)) == 24
    assert any("429 slow down" in event["problem"] for event in task.told("error"))


def test_a_task_that_is_told_to_stop_believes_no_refusal(tmp_path, server):
    server.answer = lambda prompt: (400, "content filtered by policy")
    sampler = sampler_of(tmp_path, server)
    assert sampler.sample([question(0)], lambda: len(server.prompts) > 0) is None
    sampler.close()


def test_a_server_that_holds_no_more_than_the_response_is_refused_at_the_start(tmp_path, server):
    server.models[0]["max_model_len"] = 24
    sampler = sampler_of(tmp_path, server)
    with pytest.raises(ConfigError, match=r"may have 24 tokens, but a-model at .* holds 24 together with the question"):
        sampler.start()
    sampler.close()
    server.models[0]["max_model_len"] = 25
    sampler.start()
    sampler.close()
    assert not server.prompts


def test_an_answer_keeps_the_name_of_the_server_that_gave_it(tmp_path, server):
    """One model answers the first question and goes away; another one comes back in its place."""
    server.answer = lambda prompt: "\\boxed{old}" if len(server.prompts) == 1 else (503, "going down")
    sampler = sampler_of(tmp_path, server, concurrency=1)
    questions = [question(i) for i in range(3)]
    with pytest.raises(Unavailable):
        sampler.sample(questions, never)
    server.answer, server.models[0]["root"] = lambda prompt: "\\boxed{new}", "org/another"
    found = [(s.response, s.weight_digest) for s in sampler.sample(questions, never)]
    sampler.close()
    assert found == [("\\boxed{old}", "a-model org/a-model-7b"), *[("\\boxed{new}", "a-model org/another")] * 2]


def test_tokens_that_a_server_does_not_tell_are_unknown_and_not_none(server, evaluate):
    server.usage = None
    run = evaluate(server.url, "tiny")
    Task(run).serve()
    assert {s["num_tokens"] for s in rows(run)} == {None}
    part = json.loads(run.summary_path.read_text())["benchmarks"]["tiny"]
    assert part["tokens_mean"] == {"value": None, "se": None, "interval": None}


def test_a_judge_without_a_model_is_asked_whatever_the_measured_model_would_count(tmp_path, server):
    """The judge's own server says what is too long for it; no tokenizer but its own does."""
    config = configured(tmp_path, "gsm8k")
    judge = VerifierConfig(
        "", endpoint=EndpointConfig(url=server.url, model="a-judge"), template="chat", max_input_tokens=2
    )
    config = replace(config, verifier=judge, verify=VerifyConfig(mode="generative"))
    server.answer = lambda prompt: "Final Decision: Yes"
    task = Task(make_evaluation(tmp_path, config))
    pair = Pair("How many apples are left?", "5", "five of them")
    decided = task.worker.decider.decide([pair], never)
    task.worker.close()
    assert decided.decisions[pair].decision == YES and len(server.prompts) == 1


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
        ours, theirs = (next(sampler.stream(questions, lambda: None, never))[1] for sampler in (engine, server))
    finally:
        engine.close()
        server.close()
    same = ("item", "sample", "response", "finish_reason", "num_tokens", "seed")
    assert [[getattr(s, name) for name in same] for s in theirs] == [[getattr(s, name) for name in same] for s in ours]
    assert {s.weight_digest for s in theirs} == {f"{NAME} {SERVED}"}
    usage = server.usage()
    assert usage["requests"] == 12 and usage["new_tokens"] == sum(s.num_tokens for s in theirs)
    assert theirs[0].seed == first_seed(3, questions[0])


def sampler_of(folder, server, **endpoint) -> EndpointSampler:
    config = configured(folder, "tiny")
    place = EndpointConfig(url=server.url, model="a-model", **{"max_retries": 0, "timeout_s": 30.0} | endpoint)
    return EndpointSampler(replace(config, sample=replace(config.sample, endpoint=place)), load_benchmarks(config))


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
