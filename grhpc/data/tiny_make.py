"""Makes the tiny world's tokenizer, policy and verifier, by the product's own supervised fine-tuning.

The policy learns the careful way first (`skill`), then a habit of shortcuts over it: able, but mostly wrong when it
answers greedily, which is what reinforcement learning can mend. The verifier learns to write both answers canonically,
to compare them, and to decide. Training runs in processes of `grhpc.train.sft`, started by name.

Does not know: Megatron-Core, the run. Invariant: the same seed and the same lengths make the same files.
"""

import json
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from grhpc.data.tiny import draw_task
from grhpc.data.tiny_lessons import DOMAINS, TEMPLATE, Task, lesson_pair, solution
from grhpc.data.tiny_tokenizer import build_tokenizer, save_tokenizer
from grhpc.errors import DataError

TRAINER = "grhpc.train.sft"
BATCH_SIZE = 64


@dataclass(frozen=True)
class Phase:
    """One supervised training: `steps` batches, the rate falling from `lr` to `min_lr` by a cosine."""

    steps: int
    lr: float
    min_lr: float = 1e-4


SKILL, HABIT, JUDGE = Phase(640, 4e-3, 1e-3), Phase(160, 1e-3, 5e-5), Phase(4000, 3e-3)
SHORT = 40  # a shortened make divides the steps by this
CAREFUL_AT_FIRST, CAREFUL_AT_LAST = 0.9, 0.3


def make(out: Path, *, short: bool = False, seed: int = 0, say: Callable[[str], None] = print) -> None:
    """Write out/policy and out/verifier, whole model folders in bfloat16. Raises DataError where training fails."""
    tokenizer = build_tokenizer(_corpus(seed))
    with tempfile.TemporaryDirectory(prefix="tiny-make-") as scratch:
        work = Path(scratch)
        for number, role in enumerate(("policy", "verifier")):
            _initial_model(work / role, tokenizer, seed + number)
        say(f"tokenizer: {len(tokenizer)} entries; training the policy")
        skill = _train(work / "policy", _solutions(CAREFUL_AT_FIRST, seed + 10), SKILL, short)
        policy = _train(skill, _solutions(CAREFUL_AT_LAST, seed + 11), HABIT, short)
        say("training the verifier")
        verifier = _train(work / "verifier", _judgements(seed + 12), JUDGE, short)
        for role, model in (("policy", policy), ("verifier", verifier)):
            _ship(model, out / role, tokenizer)
    (out / "verifier" / "template.txt").write_text(TEMPLATE)
    say(f"written: {out}/policy and {out}/verifier")


def policy_prompt(question: str) -> str:
    """What the chat template makes of a question with an empty instruction."""
    return f"<|user|> {question}<|assistant|>"


def _corpus(seed: int) -> Iterator[str]:
    """Texts of both models, for the tokenizer."""
    rng = random.Random(seed)
    for index in range(12000):
        task = draw_task(rng, DOMAINS[index % len(DOMAINS)], train=True)
        pair = lesson_pair(task, rng, hostile=0.05)
        yield policy_prompt(task.question) + solution(task, rng, 0.5)
        yield pair.prompt() + pair.reason()
        for form in task.domain.forms(task.facts, task.value):
            yield form
            yield f"\\boxed{{{form}}}"


def _tasks(seed: int) -> Iterator[tuple[Task, random.Random]]:
    rng = random.Random(seed)
    while True:
        yield draw_task(rng, rng.choice(DOMAINS), train=True), rng


def _solutions(careful: float, seed: int) -> Iterator[tuple[str, str]]:
    return ((policy_prompt(task.question), solution(task, rng, careful)) for task, rng in _tasks(seed))


def _judgements(seed: int) -> Iterator[tuple[str, str]]:
    return ((pair.prompt(), pair.reason()) for pair in (lesson_pair(task, rng) for task, rng in _tasks(seed)))


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


def _train(model: Path, pairs: Iterator[tuple[str, str]], phase: Phase, short: bool) -> Path:
    """Fine-tune `model` on fresh pairs, each seen once; returns the folder of the result, beside it."""
    steps = max(4, phase.steps // SHORT) if short else phase.steps
    out = model.with_name(model.name + "-trained")
    data = model.with_name(model.name + "-pairs.jsonl")
    with data.open("w") as file:
        for _ in range(steps * BATCH_SIZE):
            prompt, completion = next(pairs)
            file.write(json.dumps({"prompt": prompt, "completion": completion}) + "\n")
    settings: dict[str, object] = {
        "--model": model,
        "--data": data,
        "--out": out,
        "--steps": steps,
        "--lr": phase.lr,
        "--min-lr": phase.min_lr,
        "--warmup-steps": min(30, steps // 2),
        "--batch-size": BATCH_SIZE,
        "--micro-batch-size": BATCH_SIZE,
        "--adam-beta2": 0.95,
    }
    command = [sys.executable, "-m", TRAINER, *(str(part) for item in settings.items() for part in item)]
    if subprocess.run(command, check=False).returncode:
        raise DataError(f"training {model.name} failed", "read the messages above")
    return out


def _ship(model: Path, folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """Put a trained model in its place, in bfloat16, as one file."""
    tensors = {}
    for file in sorted(model.glob("*.safetensors")):
        tensors.update(load_file(file))
    config = json.loads((model / "config.json").read_text())
    config["dtype"] = "bfloat16"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    halves = {name: t.to(torch.bfloat16).contiguous() for name, t in tensors.items()}
    save_file(halves, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    save_tokenizer(tokenizer, folder)
