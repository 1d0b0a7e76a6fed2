"""The engine with real vLLM on random models, held against transformers."""

import dataclasses
import os
import shutil
import signal
import subprocess
from itertools import pairwise

import pytest
import torch
from random_models import SPECIAL, reference_greedy, reference_logprobs
from safetensors.torch import load_file, save_file

from grhpc.config import EngineConfig
from grhpc.engine.vllm import Request, VllmEngine, context_tokens
from grhpc.engine.vllm_start import _children_ignore_warnings
from grhpc.errors import ConfigError, EngineError

PROMPTS = [[2, 40 + i, 41, 42, 43 + i, 3] for i in range(6)]
LONG = [2] + [4 + (7 * i) % 200 for i in range(300)] + [3]  # several blocks of the prefix cache


def sampled(prompts=PROMPTS, **changes) -> list[Request]:
    base = Request([], n=2, temperature=0.7, max_tokens=16)
    return [dataclasses.replace(base, prompt_ids=p, seed=1000 * i, **changes) for i, p in enumerate(prompts)]


def tokens(groups) -> list[list[list[int]]]:
    return [[completion.token_ids for completion in group] for group in groups]


def assert_logprobs_match(model, requests, groups):
    for request, group in zip(requests, groups, strict=True):
        for completion in group:
            top_k = max(0, request.top_k)
            wanted = reference_logprobs(model, request.prompt_ids, completion.token_ids, request.temperature, top_k)
            assert completion.logprobs == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.0, "top_k": 5}], ids=["temperature", "top-k"])
def test_logprobs_are_those_of_the_distribution_sampled_from(engine_of, models, sampling):
    requests = sampled(PROMPTS[:3], **sampling)
    groups = engine_of(models.tied_a).generate(requests)
    assert [len(group) for group in groups] == [2, 2, 2]
    assert_logprobs_match(models.tied_a, requests, groups)


def test_greedy_is_the_most_likely_token_each_time(engine_of, models):
    [[completion]] = engine_of(models.tied_a).generate([Request(PROMPTS[0], temperature=0.0, max_tokens=8)])
    tokens = completion.token_ids
    assert tokens == reference_greedy(models.tied_a, PROMPTS[0], len(tokens))


def test_a_seed_gives_the_same_samples_alone_and_in_a_batch(engine_of, models):
    engine = engine_of(models.tied_a)
    requests = sampled(n=4)
    together = tokens(engine.generate(requests))
    assert tokens(engine.generate(requests)) == together
    assert tokens(engine.generate(requests[3:4])) == together[3:4]
    third = dataclasses.replace(requests[3], n=1, seed=requests[3].seed + 2)
    assert tokens(engine.generate([third])) == [[together[3][2]]], "sample k must be drawn with seed + k"
    assert all(a != b for group in together for a, b in pairwise(group)), "siblings must differ"


def test_a_step_takes_as_many_prompt_tokens_as_vllm_s_own_offline_class_lets_it(engine_of, models):
    """By vLLM's other default, 2,048, prompts wait for further steps."""
    engine = engine_of(models.tied_a)
    assert engine._engine.vllm_config.scheduler_config.max_num_batched_tokens >= 4096


def test_batches_come_and_go_one_beside_the_other(engine_of, models):
    engine = engine_of(models.tied_a)
    short, long = sampled(PROMPTS[:2], max_tokens=4), sampled(PROMPTS[2:], max_tokens=16)
    wanted = [tokens(engine.generate(requests)) for requests in (long, short)]
    first = engine.add(long)
    assert engine.step() == {}
    second, done = engine.add(short), {}
    assert second != first
    order = []
    while len(done) < 2:
        finished = engine.step()
        order += finished
        done |= finished
    assert order == [second, first]
    assert [tokens(done[first]), tokens(done[second])] == wanted


def test_what_is_aborted_never_comes(engine_of, models):
    engine = engine_of(models.tied_a)
    dropped = engine.add(sampled(max_tokens=16))
    engine.step()
    engine.abort()
    kept = engine.add(sampled(PROMPTS[:1], max_tokens=4))
    done = {}
    while kept not in done:
        done |= engine.step()
    assert dropped not in done and engine.step() == {}


def test_stops_when_asked_and_goes_on_afterwards(engine_of, models):
    engine = engine_of(models.tied_a)
    wanted = tokens(engine.generate(sampled()))
    asked = []

    def third_time() -> bool:
        asked.append(True)
        return len(asked) >= 3

    assert engine.generate(sampled(max_tokens=300), third_time) is None
    assert len(asked) == 3
    assert tokens(engine.generate(sampled())) == wanted


def test_refuses_what_does_not_fit_and_stays_usable(engine_of, models):
    engine = engine_of(models.tied_a)
    for hopeless in (Request([5] * 380, max_tokens=5), Request([], max_tokens=5)):
        with pytest.raises(EngineError, match="request 1 has"):
            engine.generate([sampled()[0], hopeless])
    [[fits]] = engine.generate([Request([5] * 380, max_tokens=4)])
    assert 1 <= len(fits.token_ids) <= 4
    assert engine.generate([]) == []


def test_says_how_a_completion_ended(engine_of, models):
    groups = engine_of(models.tied_a).generate(sampled([[2, 60 + i] for i in range(40)], n=4, max_tokens=60))
    ends = {c.finish_reason for group in groups for c in group}
    assert ends == {"stop", "length"}
    for completion in (c for group in groups for c in group):
        assert (completion.token_ids[-1] == 1) == (completion.finish_reason == "stop")
        assert 1 not in completion.token_ids[:-1]
        assert len(completion.logprobs) == len(completion.token_ids)
        assert not any(token in completion.text for token in SPECIAL)
        completion.text.encode("utf-8")  # half of a character must not leave text that no file can hold


@pytest.mark.parametrize("kind", ["tied", "own"])
def test_weights_are_replaced_in_place_and_nothing_of_the_old_ones_stays(engine_of, models, kind):
    first, second = getattr(models, f"{kind}_a"), getattr(models, f"{kind}_b")
    engine = engine_of(first)
    requests = sampled([*PROMPTS[:2], LONG])
    before = engine.generate(requests)
    engine.load_weights(second)
    after = engine.generate(requests)
    assert tokens(after) != tokens(before)
    assert_logprobs_match(second, requests, after)
    engine.load_weights(first)
    assert engine.generate(requests) == before


def test_incomplete_or_wrong_weights_close_the_engine(engine_of, models, tmp_path):
    engine = engine_of(models.tied_a)
    with pytest.raises(EngineError, match="no safetensors files"):
        engine.load_weights(tmp_path)
    assert not engine.closed
    broken = shutil.copytree(models.tied_b, tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    del weights["model.layers.1.mlp.down_proj.weight"]
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    with pytest.raises(EngineError, match=r"1 weights are missing, the first is model\.layers\.1\.mlp\.down_proj"):
        engine.load_weights(broken)
    assert engine.closed
    with pytest.raises(EngineError, match="closed"):
        engine.generate(sampled())


def test_weights_that_are_not_finite_never_become_a_completion(engine_of, models, tmp_path):
    broken = shutil.copytree(models.tied_b, tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"][0] = torch.nan
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    engine = engine_of(models.tied_a)
    engine.load_weights(broken)
    with pytest.raises(EngineError, match="not finite"):
        engine.generate(sampled())
    assert engine.closed, "its key-value cache is poisoned"
    healthy = engine_of(models.tied_a)
    assert_logprobs_match(models.tied_a, sampled(PROMPTS[:1]), healthy.generate(sampled(PROMPTS[:1])))


def test_an_engine_that_does_not_start_is_an_engine_error(tmp_path):
    with pytest.raises(EngineError, match="did not start"):
        VllmEngine(str(tmp_path / "nothing"), dtype="float32", settings=EngineConfig(), max_model_tokens=32)
    with pytest.raises(EngineError, match="no readable config"):
        context_tokens(str(tmp_path / "nothing"))


def test_an_unknown_engine_setting_is_a_config_error(models):
    settings = EngineConfig(extra={"kv_cash": 1})
    with pytest.raises(ConfigError, match="kv_cash"):
        VllmEngine(str(models.tied_a), dtype="float32", settings=settings, max_model_tokens=32)


def test_warnings_do_not_reach_children_of_the_start_and_are_not_lost_on_us():
    heard = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: heard.append(number))
    try:
        with _children_ignore_warnings():
            os.kill(os.getpid(), signal.SIGUSR2)
            child = subprocess.Popen(["sleep", "600"])
        assert heard == [signal.SIGUSR2]
    finally:
        signal.signal(signal.SIGUSR2, before)
    try:
        child.send_signal(signal.SIGUSR2)
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.5)
        child.terminate()
        assert child.wait(20) == -signal.SIGTERM, "it is to end where the engine is closed"
    finally:
        child.kill()
        child.wait()
