"""The shipped tiny models: what they are, and that they are as good as the docs say."""

import json
import random
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoTokenizer

from grhpc.config_file import load
from grhpc.data.tiny import MODELS_DIR, ROLES
from grhpc.data.tiny_lessons import DOMAINS, TEMPLATE, hostile_pair, make_task, solution
from grhpc.data.tiny_make import policy_prompt
from grhpc.data.tiny_measure import Model, heldout_pairs, judge_pairs, measure_policy, precision_recall

CONFIG = Path(__file__).parents[2] / "configs" / "tiny.yaml"


@pytest.fixture(scope="module")
def verifier() -> Model:
    return Model(MODELS_DIR / "verifier")


@pytest.fixture(scope="module")
def tokenizer():  # type: ignore[no-untyped-def]
    return AutoTokenizer.from_pretrained(MODELS_DIR / "policy")


@pytest.mark.parametrize("role", ROLES)
def test_shipped_model_is_small_and_whole(role: str) -> None:
    folder = MODELS_DIR / role
    config = json.loads((folder / "config.json").read_text())
    tensors = load_file(folder / "model.safetensors")
    assert config["model_type"] == "qwen3" and config["head_dim"] == 32 and config["vocab_size"] % 128 == 0
    assert 1e6 < sum(t.numel() for t in tensors.values()) < 3e6
    assert all(t.dtype == torch.bfloat16 and t.isfinite().all() for t in tensors.values())
    assert (folder / "model.safetensors").stat().st_size < 3_000_000


def test_both_models_have_one_tokenizer_and_the_verifier_its_template() -> None:
    assert len({(MODELS_DIR / role / "tokenizer.json").read_bytes() for role in ROLES}) == 1
    assert (MODELS_DIR / "verifier" / "template.txt").read_text() == TEMPLATE
    config = load(CONFIG)
    root = CONFIG.parents[1]
    assert (root / config.policy.model / "config.json").exists() and (root / config.verifier.template).exists()


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_text_comes_back_from_the_tokenizer(tokenizer, text: str) -> None:  # type: ignore[no-untyped-def]
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


def test_the_world_is_written_in_whole_tokens(tokenizer) -> None:  # type: ignore[no-untyped-def]
    assert all(len(tokenizer.encode(text)) == 1 for n in range(321) for text in (f"{n}", f" {n}"))
    assert [len(tokenizer.encode(t)) for t in (" 9/20", " 45%", "0.45", " centimeters", "\\boxed{")] == [1] * 5
    rng = random.Random(0)
    for domain in DOMAINS:
        task = make_task(rng, domain)
        assert len(tokenizer.encode(policy_prompt(task.question))) <= 24
        assert len(tokenizer.encode(solution(task, rng, careful=1.0))) <= 40


def test_chat_template_is_the_prompt_that_the_policy_was_taught(tokenizer) -> None:  # type: ignore[no-untyped-def]
    for content in ("Add 1/4 and 1/4.", "Add 1/4 and 1/4. "):  # an empty instruction leaves a space
        turn = [{"role": "user", "content": content}]
        text = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        assert text == policy_prompt("Add 1/4 and 1/4.")
    assert tokenizer.encode(text)[0] == tokenizer.convert_tokens_to_ids("<|user|>")


def test_verifier_is_precise_and_recalls_in_every_domain(verifier: Model) -> None:
    num = 50
    pairs = heldout_pairs(num, seed=101)
    accepted, right = judge_pairs(verifier, pairs), [pair.equivalent for pair in pairs]
    precision, recall = precision_recall(accepted, right)
    assert precision >= 0.95 and recall >= 0.95
    for number, domain in enumerate(DOMAINS):
        of = slice(number * num, (number + 1) * num)
        agree = sum(a == r for a, r in zip(accepted[of], right[of], strict=True))
        assert agree >= 0.9 * num, domain.name


def test_verifier_rejects_hostile_texts(verifier: Model) -> None:
    pairs = [pair for pair in heldout_pairs(40, seed=102, make=hostile_pair) if not pair.equivalent]
    assert len(pairs) > 250
    assert sum(judge_pairs(verifier, pairs)) <= 0.02 * len(pairs)


def test_policy_is_able_but_mostly_wrong_when_greedy() -> None:
    found = measure_policy(MODELS_DIR / "policy", num=160, samples=8)
    assert 0.1 < found["greedy"] < 0.4
    assert found["best_of_8"] > 0.7
    assert min(found["sampled_by_domain"].values()) > 0.05  # each domain gives reward to learn from
