"""An evaluation task's samples a second over bare vLLM's, on the same prompts with the same decoding. Prints JSON.

    python tests/bench/bench_evaluate.py [--shards 8] [--questions 64] [--tokens 128] [--rounds 3]

Both sides run in processes of their own, one at a time, round after round: `bare` calls `LLM.generate` on each shard's
prompts, greedily; `task` is the role's own main, over an evaluation, from claiming the first shard of questions to
delivering the last one's samples: chat template, tokens, texts and shards are in it, start-up is left out on both
sides. `wall` is samples a second, which means something on a quiet machine only; `cpu` is samples a second of the
process's CPU time. `generating` is the share of the task's wall time that passes inside the engine, which a busy
machine distorts less. `grading` is how many samples a second the same task then scores. Ratios and shares are medians
over the rounds.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

CONTEXT = 1024
PROMPT_TOKENS = 256
ENGINE = {"kv_cache_mb": 256, "max_num_seqs": 256, "enforce_eager": True}


def run_bare(args: argparse.Namespace) -> dict:
    from transformers import AutoTokenizer
    from vllm import LLM, SamplingParams

    llm = LLM(
        model=str(args.work / "model"),
        dtype="float32",
        max_model_len=PROMPT_TOKENS + args.tokens,
        max_num_seqs=ENGINE["max_num_seqs"],
        kv_cache_memory_bytes=ENGINE["kv_cache_mb"] << 20,
        enforce_eager=True,
        enable_prefix_caching=False,
        enable_chunked_prefill=False,
    )
    tokenizer = AutoTokenizer.from_pretrained(args.work / "model")
    turns = [[{"role": "user", "content": row["question"]}] for row in questions(args)]
    texts = [tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True) for turn in turns]
    ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
    shards = [ids[i : i + args.questions] for i in range(0, len(ids), args.questions)]
    params = SamplingParams(temperature=0.0, max_tokens=args.tokens)

    def generate(shard: list[list[int]]) -> int:
        return len(llm.generate([{"prompt_token_ids": prompt} for prompt in shard], params, use_tqdm=False))

    generate(shards[0])  # warm, as the task's first shard is
    begun = now()
    samples = sum(generate(shard) for shard in shards[1:])
    return rates(samples, begun, now())


def now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def rates(samples: int, begun: tuple[float, float], ended: tuple[float, float]) -> dict:
    return {key: samples / (e - b) for key, b, e in zip(("wall", "cpu"), begun, ended, strict=True)}


def run_task(args: argparse.Namespace) -> dict:
    from grhpc.engine.host import EngineHost
    from grhpc.evaluate.worker import main
    from grhpc.lifetime import Lifetime
    from grhpc.store.events import EventLog

    done: dict[str, list[tuple[int, tuple[float, float]]]] = {"sample": [], "grade": []}
    inside_s: list[float] = []
    emit, generate = EventLog.emit, EngineHost.generate

    def generate_and_note(self: EngineHost, *words: object) -> object:
        begun_s = time.perf_counter()
        found = generate(self, *words)
        inside_s.append(time.perf_counter() - begun_s)
        return found

    def emit_and_note(self: EventLog, event: str, **fields: object) -> None:
        emit(self, event, **fields)
        if event == "shard":
            done[str(fields["stage"])].append((int(str(fields["samples"])), now()))

    EventLog.emit, EngineHost.generate = emit_and_note, generate_and_note
    main(make_evaluation(args).path, Lifetime(job="bench"))
    # From the first shard's delivery to the last one's: claims, polls, tokens, texts and delivery are all in it.
    told = {stage: rates(sum(n for n, _ in ends[1:]), ends[0][1], ends[-1][1]) for stage, ends in done.items()}
    spent_s = done["sample"][-1][1][0] - done["sample"][0][1][0]
    return told["sample"] | {"generating": sum(inside_s[1:]) / spent_s, "grading": told["grade"]["wall"]}


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


def measure(args: argparse.Namespace) -> dict:
    from random_models import random_model

    random_model(args.work / "model", 0, context=CONTEXT)
    rounds = []
    for number in range(args.rounds):
        sides = ("bare", "task") if number % 2 == 0 else ("task", "bare")
        rounds.append({side: run_side(side, args) for side in sides})
    told: dict = {"load": os.getloadavg()[0]}
    for key in ("generating", "grading"):
        told[key] = round(statistics.median(r["task"][key] for r in rounds), 4)
    for clock in ("wall", "cpu"):
        pairs = [(r["task"][clock], r["bare"][clock]) for r in rounds]
        told[clock] = {
            "ratio": round(statistics.median(task / bare for task, bare in pairs), 3),
            "task": [round(task, 2) for task, _ in pairs],
            "bare": [round(bare, 2) for _, bare in pairs],
        }
    return told


def run_side(side: str, args: argparse.Namespace) -> dict:
    words = [sys.executable, __file__, "--side", side, "--work", args.work]
    for name in ("shards", "questions", "tokens"):
        words += [f"--{name}", str(getattr(args, name))]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in (("shards", 8), ("questions", 64), ("tokens", 128), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--side", choices=("bare", "task"))
    parser.add_argument("--work", type=Path)
    args = parser.parse_args()
    quiet = {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "TORCH_COMPILE_DISABLE": "1"}
    os.environ.update(quiet, VLLM_CPU_OMP_THREADS_BIND="nobind", VLLM_NO_USAGE_STATS="1", HF_HUB_OFFLINE="1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if args.side:
        print(json.dumps({"bare": run_bare, "task": run_task}[args.side](args)))
        return
    with tempfile.TemporaryDirectory() as work:
        args.work = Path(work)
        print(json.dumps(measure(args)))


if __name__ == "__main__":
    main()
