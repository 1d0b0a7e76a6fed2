"""Where a completion ends: at a string, or at a token, that the request names."""

import dataclasses

from grhpc.engine.vllm import Request

PROMPT = [2, 40, 41, 42, 43, 3]
LONG = Request(PROMPT, temperature=0.0, max_tokens=24)


def greedy(engine, **changes):
    [[completion]] = engine.generate([dataclasses.replace(LONG, **changes)])
    return completion


def test_a_completion_ends_before_a_stop_string_and_with_a_stop_token(engine_of, models):
    engine = engine_of(models.tied_a)
    whole = greedy(engine)
    assert whole.finish_reason == "length", "the test needs a prompt that the model goes on with"
    string = whole.text[5:7]
    ended = greedy(engine, stop=("no such text", string))
    assert (ended.text, ended.finish_reason) == (whole.text[: whole.text.index(string)], "stop")
    assert len(ended.logprobs) == len(ended.token_ids) < len(whole.token_ids)
    token = whole.token_ids[4]
    ended = greedy(engine, stop_token_ids=(token,))
    assert ended.finish_reason == "stop"
    assert ended.token_ids == whole.token_ids[: whole.token_ids.index(token) + 1]
