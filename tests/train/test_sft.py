"""Supervised fine-tuning equals a plain transformers loop, under every layout, and refuses what it cannot use."""

import json

import numpy as np
import pytest
import rank_tasks
import torch
import transformers
from grpo_reference import load
from safetensors.torch import load_file
from tiny_models import VOCAB, make_model
from tokenizers import Tokenizer, models, pre_tokenizers

from grhpc.errors import ConfigError, DataError
from grhpc.train import sft as sft_module
from grhpc.train.sft import Example, SftSettings, learning_rate, sft, shuffled_batches

SETTINGS = SftSettings(steps=4, lr=1e-3, batch_size=13, micro_batch_size=4, warmup_steps=2, weight_decay=0.1)


@pytest.fixture(scope="module")
def examples():
    random = np.random.default_rng(0)
    made = []
    for number in range(13):
        prompt, completion = int(random.integers(1, 9)), int(random.integers(1, 20))
        weights = random.random(completion).tolist() if number % 2 else None
        made.append(Example(random.integers(0, VOCAB, prompt + completion).tolist(), prompt, weights))
    return made


@pytest.fixture(scope="module")
def expected(model_of, examples):
    """Loss and gradient norm of each step of a plain loop, and the weights it ends with."""
    model = load(model_of("qwen3-tied"))
    decayed, plain = ([p for p in model.parameters() if (p.ndim > 1) == many] for many in (True, False))
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]
    adam = torch.optim.AdamW(groups, lr=1e-3)
    figures = []
    tokens = sum(len(e.token_ids) - e.prompt_length for e in examples)
    for step in range(SETTINGS.steps):
        loss = torch.zeros(())
        for e in examples:
            ids = torch.tensor(e.token_ids)
            logprobs = model(ids[None]).logits[0, :-1].log_softmax(-1).gather(-1, ids[1:, None])[:, 0]
            weights = torch.tensor(e.weights) if e.weights else 1.0
            loss = loss - (logprobs[e.prompt_length - 1 :] * weights).sum() / tokens
        adam.zero_grad()
        loss.backward()
        norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), SETTINGS.grad_clip))
        for group in adam.param_groups:
            group["lr"] = learning_rate(step, SETTINGS)
        adam.step()
        figures.append((float(loss.detach()), norm))
    return figures, {name: p.detach() for name, p in model.named_parameters()}


@pytest.mark.parametrize(("ranks", "sizes"), [(1, {}), (2, {}), (4, {"tensor_parallel": 2, "pipeline_parallel": 2})])
def test_agrees_with_a_plain_loop(pool, model_of, examples, expected, tmp_path, ranks, sizes):
    settings = SftSettings(**{**vars(SETTINGS), **sizes})
    answers = pool.run(ranks, rank_tasks.fine_tune, model_of("qwen3-tied"), tmp_path, examples, settings)
    figures, weights = expected
    for answer in answers:
        for ours, theirs in zip(answer, figures, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-5)
    found = {name: t for path in tmp_path.glob("*.safetensors") for name, t in load_file(path).items()}
    assert found.keys() == weights.keys()
    for name, weight in weights.items():
        # Adam divides by gradients near zero: the plain loop itself is up to 4e-5 from the same in float64.
        torch.testing.assert_close(found[name], weight, rtol=1e-3, atol=1e-4)


def test_batches_cover_every_example_once_an_epoch(examples):
    batch_of = shuffled_batches(examples, batch_size=5, seed=3)
    drawn = [id(e) for step in range(26) for e in batch_of(step)]  # ten epochs of thirteen
    epochs = [drawn[13 * i : 13 * (i + 1)] for i in range(10)]
    assert all(sorted(epoch) == sorted(map(id, examples)) for epoch in epochs)
    assert len(set(map(tuple, epochs))) > 1, "each epoch has an order of its own"
    again = shuffled_batches(examples, batch_size=5, seed=3)
    assert [id(e) for e in again(7)] == [id(e) for e in batch_of(7)]


def test_learning_rate_schedules():
    cosine = SftSettings(steps=12, lr=1.0, warmup_steps=2, min_lr=0.1)
    rates = [learning_rate(step, cosine) for step in range(12)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates[7] == pytest.approx(0.55)
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert 0.1 < rates[-1] < 0.15
    assert learning_rate(9, SftSettings(steps=12, lr=1.0, schedule="constant")) == 1.0


@pytest.mark.parametrize(
    "example", [Example([1, 2], 2), Example([1, 2], 0), Example([1, 2, 3], 1, [1.0]), Example([1, 2, 3], 1, [1.0] * 3)]
)
def test_unusable_example_is_refused(model_of, tmp_path, example):
    with pytest.raises(DataError, match="example"):
        sft(model_of("qwen3"), tmp_path / "out", lambda _step: [example], SftSettings(steps=1, lr=1e-3))
    assert not (tmp_path / "out").exists()


def test_settings_and_places_are_refused_in_words(model_of, tmp_path, examples):
    with pytest.raises(ConfigError, match="schedule"):
        sft(model_of("qwen3"), tmp_path, lambda _step: examples, SftSettings(steps=1, lr=1.0, schedule="linear"))
    with pytest.raises(DataError, match="already holds a model"):
        sft(model_of("qwen3"), model_of("qwen3"), lambda _step: examples, SftSettings(steps=1, lr=1.0))
    with pytest.raises(DataError, match="no examples"):
        shuffled_batches([], 4, 0)


@pytest.fixture
def model_with_tokenizer(tmp_path):
    folder = make_model(tmp_path / "model", "qwen3")
    words = ["<end>", *(f"w{i}" for i in range(50))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<end>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    wrapped = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")
    wrapped.save_pretrained(folder)
    return folder


def test_command_line_trains_and_writes_a_model(model_with_tokenizer, tmp_path, capsys):
    pairs = [{"prompt": f"w{i} w{i + 1}", "completion": f"w{i + 2}"} for i in range(10)]
    data, out = tmp_path / "pairs.jsonl", tmp_path / "out"
    data.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    arguments = ["--model", str(model_with_tokenizer), "--data", str(data), "--out", str(out)]
    arguments += ["--steps", "12", "--lr", "3e-3", "--batch-size", "10", "--schedule", "constant"]
    assert sft_module.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    losses = [float(line.split("loss")[1].split()[0]) for line in lines if line.startswith("step")]
    assert len(losses) == 12
    assert losses[-1] < losses[0] / 2, "ten pairs are learned by heart quickly"
    model = load(out)
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    ids = torch.tensor([tokenizer.encode("w3 w4")])
    assert tokenizer.decode(model(ids).logits[0, -1].argmax()) == "w5"
    assert sft_module.main(arguments) == 2, "the folder holds a model by now"
    assert "already holds a model" in capsys.readouterr().err


@pytest.mark.parametrize("line", ["{", "[]", '{"prompt": "w1"}', '{"prompt": "w1", "completion": 7}', "3"])
def test_bad_line_is_named(model_with_tokenizer, tmp_path, line, capsys):
    data = tmp_path / "pairs.jsonl"
    data.write_text('{"prompt": "w1", "completion": "w2"}\n' + line + "\n")
    arguments = ["--model", str(model_with_tokenizer), "--data", str(data), "--out", str(tmp_path / "out")]
    assert sft_module.main([*arguments, "--steps", "1", "--lr", "1"]) == 2
    assert "line 2" in capsys.readouterr().err
