"""Where a response ends: at what would begin a further worked example, at a string of one's own, with its turn."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from eval_inputs import evaluation
from openai_server import Server

from grhpc.config import EndpointConfig
from grhpc.engine.vllm import Completion
from grhpc.evaluate.benchmarks import load_benchmarks
from grhpc.evaluate.endpoint_sampler import EndpointSampler
from grhpc.evaluate.engine_sampler import EngineSampler, end_of_turn
from grhpc.evaluate.questions import read_questions
from grhpc.evaluate.sampling import stops

NEXT = ("\n\nQuestion:",)


@pytest.mark.parametrize(
    ("benchmark", "few_shot", "stop", "expected"),
    [
        ("gsm8k", 0, None, ()),
        ("gsm8k", 4, None, NEXT),
        ("math500", 4, None, NEXT),
        ("theoremqa", 4, None, ()),  # it has no worked examples
        ("gsm8k", 4, [], ()),
        ("gsm8k", 4, ["\nQ:"], ("\nQ:",)),
        ("theoremqa", 0, ["\nQ:"], ("\nQ:",)),
    ],
)
def test_what_ends_a_response(benchmark, few_shot, stop, expected):
    config = evaluation(benchmark, few_shot=few_shot)
    config = replace(config, sample=replace(config.sample, stop=stop))
    assert stops(config, load_benchmarks(config)[benchmark]) == expected


def few_shot_questions():
    config = evaluation("gsm8k", few_shot=2)
    entries = load_benchmarks(config)
    found = read_questions("gsm8k", entries["gsm8k"], config)[0][:2]
    assert all(NEXT[0] in question.prompt for question in found), "what ends a response is how an example begins"
    return config, entries, found


def test_the_engine_is_told_where_to_stop(tokenizer):
    config, entries, asked = few_shot_questions()
    sampler = EngineSampler(config, entries, lambda: "", "d", print)
    told = []

    def add(requests):
        told.extend(requests)
        return 0

    def step():
        return {0: [[Completion([5], [], "\\boxed{1}", "stop")] for _ in told]}

    engine = SimpleNamespace(tokenizer=tokenizer)
    sampler._host = SimpleNamespace(engine=engine, add=add, step=step, abort=list, has_room=False)
    [(number, samples)] = sampler.stream(asked, lambda: None, lambda: False)
    assert (number, len(samples)) == (0, 2)
    assert {(request.stop, request.stop_token_ids) for request in told} == {(NEXT, end_of_turn(tokenizer))}


@pytest.mark.parametrize("few_shot", [True, False])
def test_a_server_is_told_where_to_stop_and_of_nothing_where_nowhere(few_shot):
    config, entries, asked = few_shot_questions()
    server = Server(lambda prompt: "\\boxed{5}")
    try:
        endpoint = EndpointConfig(url=server.url, model="a-model", max_retries=0)
        sample = replace(config.sample, endpoint=endpoint, few_shot=2 if few_shot else 0)
        sampler = EndpointSampler(replace(config, sample=sample), entries)
        sampler.sample(asked, lambda: False)
        sampler.close()
    finally:
        server.die()
    assert [request.get("stop") for request in server.requests] == [list(NEXT) if few_shot else None] * 2


@pytest.mark.parametrize(
    ("template", "token"),
    [
        ("<|{{ m['role'] }}|>{{ m['content'] }}<|end|>\n", "<|end|>"),
        ("<|{{ m['role'] }}|>\n\n{{ m['content'] }}\n<|pad|>", "<|pad|>"),  # not the end of the text
        ("{{ m['role'] }}: {{ m['content'] }}\n", None),
        ("{% if m['role'] == 'user' %}<|user|>{{ m['content'] }}<|end|>{% endif %}", None),
    ],
)
def test_the_end_of_a_turn_is_the_chat_templates(tokenizer, monkeypatch, template, token):
    monkeypatch.setattr(tokenizer, "chat_template", "{% for m in messages %}" + template + "{% endfor %}")
    assert end_of_turn(tokenizer) == (() if token is None else (tokenizer.convert_tokens_to_ids(token),))
