"""An evaluation task's samples a second over bare vLLM's, on the same prompts with the same decoding. Prints JSON.

    python tests/bench/bench_evaluate.py [--shards 24] [--questions 64] [--tokens 128]

The two take turns in one process, shard by shard, each with an engine of its own, so that others' load falls on both:
`task` is the role's own main, over an evaluation, from delivered shard to delivered shard (claim, chat template,
tokens, engine, texts, shard), then `bare` gives the same prompts, tokenised before, to `LLM.generate`, greedily too.
Start-up and the first shard are left out. `ratio` is how many times as fast as bare vLLM the task is: the median over
the shards, and of all shards together; `cpu` by the process's CPU time. `generating` is the share of the task's time
that passes inside the engine; `grading` is how many samples a second the same task then scores.
"""

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from beside_vllm import ENGINE, Clock, bare_vllm, note_engine_time, now, quiet, since

CONTEXT = 1024
PROMPT_TOKENS = 256


def bare_generate(args: argparse.Namespace) -> Callable[[int], Clock]:
    """A function: the number of a shard -> how long `LLM.generate` took for it."""
    from transformers import AutoTokenizer
    from vllm import SamplingParams

    llm = bare_vllm(args.work / "model", PROMPT_TOKENS + args.tokens, enable_prefix_caching=False)
    tokenizer = AutoTokenizer.from_pretrained(args.work / "model")
    turns = [[{"role": "user", "content": row["question"]}] for row in questions(args)]
    texts = [tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True) for turn in turns]
    ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
    params = SamplingParams(temperature=0.0, max_tokens=args.tokens)

    def generate(number: int) -> Clock:
        shard = ids[number * args.questions : (number + 1) * args.questions]
        begun = now()
        assert len(llm.generate([{"prompt_token_ids": prompt} for prompt in shard], params, use_tqdm=False)) == len(
            shard
        )
        return since(begun, now())

    return generate


def measure(args: argparse.Namespace) -> dict:
    from random_models import random_model

    from grhpc.evaluate.worker import main
    from grhpc.lifetime import Lifetime
    from grhpc.store.events import EventLog

    random_model(args.work / "model", 0, context=CONTEXT)
    generate = bare_generate(args)
    generate(0)
    took: list[tuple[Clock, Clock]] = []  # of each shard: the task's, bare vLLM's
    graded: list[tuple[int, float]] = []
    emit, inside_s, begun = EventLog.emit, note_engine_time(), now()

    def emit_and_note(self: EventLog, event: str, **fields: object) -> None:
        nonlocal begun
        emit(self, event, **fields)
        if event == "shard" and fields["stage"] == "sample":
            spent = since(begun, now())
            took.append((spent, generate(len(took))))
            begun = now()
        elif event == "shard":
            graded.append((int(str(fields["samples"])), time.perf_counter()))

    EventLog.emit = emit_and_note
    main(make_evaluation(args).path, Lifetime(job="bench"))
    took, inside_s = took[1:], inside_s[1:]  # the first one had the engine's start
    told: dict = {"load": os.getloadavg()[0], "samples": args.questions * len(took)}
    for i, clock in enumerate(("wall", "cpu")):
        task, other = ([pair[side][i] for pair in took] for side in (0, 1))
        told[clock] = {
            "ratio, median": round(statistics.median(b / t for t, b in zip(task, other, strict=True)), 3),
            "ratio, all": round(sum(other) / sum(task), 3),
            "task": round(told["samples"] / sum(task), 1),
            "bare": round(told["samples"] / sum(other), 1),
        }
    told["generating"] = round(sum(inside_s) / sum(t[0] for t, _ in took), 4)
    told["grading"] = round(sum(n for n, _ in graded[1:]) / (graded[-1][1] - graded[0][1]))
    return told


def questions(args: argparse.Namespace) -> list[dict[str, str]]:
    """Of different lengths, as benchmarks' are, and none the beginning of another."""
    rows = []
    for number in range(args.shards * args.questions):
        words = " ".join(str((7 * number + 3 * i) % 97) for i in range(20 + number % 40))
        rows.append({"question": f"{number}: what follows {words}?", "answer": str(number)})
    return rows


def make_evaluation(args: argparse.Namespace):
    from grhpc.eval_config import EvalConfig
    from grhpc.evaluate.create import create, model_of, settled
    from grhpc.evaluate.prepare import prepare
    from grhpc.strict import build

    work = args.work
    shutil.rmtree(work / "runs", ignore_errors=True)
    (work / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in questions(args)))
    entry = {"source": str(work / "questions.jsonl"), "scorer": "math", "prompt": "{question}"}
    settings = {
        "run": {"name": "bench", "dir": str(work / "runs")},
        "benchmarks": ["bench"],
        "entries": {"bench": entry | {"fields": {"question": "question", "gold": "answer"}}},
        "model": {"model": "", "dtype": "float32"},
        "data": {"prepared": str(work / "prepared"), "max_prompt_tokens": PROMPT_TOKENS},
        "sample": {"max_response_tokens": args.tokens, "questions_per_shard": args.questions, "engine": ENGINE},
        "store": {"idle_s": 5.0, "poll_max_s": 0.5},
    }
    root = work / "runs" / "bench"
    config = settled(build(EvalConfig, settings, ""), root, str(work / "model"))
    prepare(config)
    return create(root, config, model_of(config.model.model))


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in (("shards", 24), ("questions", 64), ("tokens", 128)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    quiet()
    with tempfile.TemporaryDirectory() as work:
        args.work = Path(work)
        print(json.dumps(measure(args)))


if __name__ == "__main__":
    main()
