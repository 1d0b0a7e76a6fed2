"""Makes the tiny world's tokenizer, policy and verifier, by the product's own supervised fine-tuning.

The policy learns the careful way first (`skill`), then a habit of shortcuts over it: able, but mostly wrong when it
answers greedily, which is what reinforcement learning can mend. The verifier learns to write both answers canonically,
to compare them, and to decide. Training runs in processes of `grhpc.train.sft`, started by name.

Does not know: Megatron-Core, the run. Invariant: the same seed and the same lengths make the same files.
"""

import itertools
import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from grhpc.data.tiny import draw_task
from grhpc.data.tiny_lessons import DOMAINS, HOSTILE, TEMPLATE, Task, lesson_pair, solution
from grhpc.data.tiny_numbers import FRACTIONS
from grhpc.data.tiny_tokenizer import build_tokenizer, save_tokenizer
from grhpc.errors import DataError

TRAINER = "grhpc.train.sft"
OFTEN = 10  # a piece of text that comes as often in the corpus is one token
LARGEST_NUMBER = 320  # every whole number up to it is one token
SHORT_STEPS = 8  # of every phase, in a shortened make


Pairs = Callable[[int], Iterator[tuple[str, str]]]


@dataclass(frozen=True)
class Phase:
    """One supervised training: `steps` batches of fresh pairs, the rate falling from `lr` to `min_lr` by a cosine."""

    name: str
    pairs: Pairs
    steps: int
    batch_size: int
    lr: float
    min_lr: float


def make(
    out: Path,
    *,
    work: Path,
    roles: Sequence[str] = ("policy", "verifier"),
    short: bool = False,
    seed: int = 0,
    say: Callable[[str], None] = print,
) -> None:
    """Write out/policy and out/verifier, whole model folders in bfloat16.

    `work` keeps every phase's result; a phase whose result is there already is not repeated. Raises DataError where
    training fails.
    """
    say("building the tokenizer")
    tokenizer = build_tokenizer(_corpus(seed), at_least=OFTEN)
    for role in roles:
        model = work / role / "0-initial"
        if not _is_done(model):
            _initial_model(model, tokenizer, seed)
        for number, phase in enumerate(PLAN[role], start=1):
            start, model = model, work / role / f"{number}-{phase.name}"
            if not _is_done(model):
                say(f"{role}: {phase.name}, into {model}")
                _train(start, model, phase, seed=seed + 10 * number, short=short)
        _ship(model, out / role, tokenizer)
        say(f"written: {out / role}")
    if "verifier" in roles:
        (out / "verifier" / "template.txt").write_text(TEMPLATE)


def _is_done(model: Path) -> bool:
    return (model / "config.json").exists()


def policy_prompt(question: str) -> str:
    """What the chat template makes of a question with an empty instruction."""
    return f"<|user|> {question}<|assistant|>"


def _corpus(seed: int) -> Iterator[str]:
    """Texts of both models, for the tokenizer."""
    rng = random.Random(seed)
    for index in range(12000):
        task = draw_task(rng, DOMAINS[index % len(DOMAINS)], train=True)
        pair = lesson_pair(task, rng, hostile=0.0)
        yield policy_prompt(task.question) + solution(task, rng, 0.5)
        yield pair.prompt() + pair.reason()
        for form in task.domain.forms(task.facts, task.value):
            yield form
            yield f"\\boxed{{{form}}}"

    quantities = [*map(str, range(LARGEST_NUMBER + 1)), *(f"{n / 20:.2f}" for n in range(1, 41))]
    quantities += [str(60 * n) for n in range(6, 14)]  # hours in minutes
    quantities += [f"{5 * n}%" for n in range(1, 20)] + [f"{n}/20" for n in range(1, 20)]
    quantities += [f"{5 * n}/100" for n in range(1, 20)] + [*FRACTIONS]
    parts = [tuple(map(int, fraction.split("/"))) for fraction in FRACTIONS]
    quantities += sorted({f"{a + c}/{b + d}" for a, b in parts for c, d in parts})
    for text in (*quantities, *HOSTILE):
        yield f"{text} {text}\n" * OFTEN


def _tasks(seed: int) -> Iterator[tuple[Task, random.Random]]:
    rng = random.Random(seed)
    while True:
        yield draw_task(rng, rng.choice(DOMAINS), train=True), rng


def _solutions(careful: float) -> Pairs:
    """Solutions that take the careful way with this probability."""
    return lambda seed: ((policy_prompt(task.question), solution(task, rng, careful)) for task, rng in _tasks(seed))


def _judgements(hostile: float) -> Pairs:
    """Judged pairs, this share of them hostile."""

    def pairs(seed: int) -> Iterator[tuple[str, str]]:
        for task, rng in _tasks(seed):
            pair = lesson_pair(task, rng, hostile)
            yield pair.prompt(), pair.reason()

    return pairs


PLAN = {
    "policy": (
        Phase("skill", _solutions(careful=0.9), steps=800, batch_size=64, lr=4e-3, min_lr=8e-4),
        Phase("habit", _solutions(careful=0.33), steps=160, batch_size=64, lr=1e-3, min_lr=5e-5),
    ),
    "verifier": (
        Phase("canonical", _judgements(hostile=0.1), steps=1800, batch_size=32, lr=3e-3, min_lr=8e-4),
        Phase("strict", _judgements(hostile=0.25), steps=1200, batch_size=32, lr=8e-4, min_lr=2e-5),
    ),
}


def _initial_model(folder: Path, tokenizer: PreTrainedTokenizerFast, seed: int) -> None:
    """A random model: 1.1 million parameters, TP 2 and PP 4 divide it; head_dim 32 is the least that vLLM takes."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        intermediate_size=512,
        tie_word_embeddings=True,
        max_position_embeddings=1024,
        initializer_range=0.05,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    Qwen3ForCausalLM(config).save_pretrained(str(folder))
    save_tokenizer(tokenizer, folder)


def _train(model: Path, out: Path, phase: Phase, *, seed: int, short: bool) -> None:
    """Fine-tune `model` on fresh pairs, each seen once, into `out`."""
    steps = min(SHORT_STEPS, phase.steps) if short else phase.steps
    pairs = itertools.islice(phase.pairs(seed), steps * phase.batch_size)
    data = out.with_suffix(".jsonl")
    lines = (json.dumps({"prompt": prompt, "completion": completion}) + "\n" for prompt, completion in pairs)
    with data.open("w") as file:
        file.writelines(lines)
    settings: dict[str, object] = {
        "--model": model,
        "--data": data,
        "--out": out,
        "--steps": steps,
        "--lr": phase.lr,
        "--min-lr": phase.min_lr,
        "--warmup-steps": min(50, steps // 4),
        "--batch-size": phase.batch_size,
        "--micro-batch-size": phase.batch_size,
        "--adam-beta2": 0.95,
    }
    command = [sys.executable, "-m", TRAINER, *(str(part) for item in settings.items() for part in item)]
    if subprocess.run(command, check=False).returncode:
        raise DataError(f"training {out.name} failed", "read the messages above")
    data.unlink()


def _ship(model: Path, folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """Put a trained model in its place, in bfloat16, as one file."""
    tensors = {}
    for file in sorted(model.glob("*.safetensors")):
        tensors.update(load_file(file))
    config = json.loads((model / "config.json").read_text())
    config["dtype"] = "bfloat16"
    folder.mkdir(parents=True, exist_ok=True)
    halves = {name: t.to(torch.bfloat16).contiguous() for name, t in tensors.items()}
    save_file(halves, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    save_tokenizer(tokenizer, folder)
