"""The rollout task's tokens a second over bare vLLM's, with the same model, prompts and sampling. Prints JSON.

    python tests/bench/bench_rollout.py [--shards 8] [--groups 16] [--size 8] [--tokens 128] [--rounds 3]

Both sides run in processes of their own, one at a time, round after round: `bare` calls `LLM.generate` on each shard's
prompts; `task` is the role's own main, over a run directory, from claiming the first shard to delivering the last,
weights loaded in between. Start-up is left out on both sides. `wall` is tokens a second, which means something on a
quiet machine only; `cpu` is tokens a second of the process's CPU time. `generating` is the share of the task's wall
time that passes inside the engine, which a busy machine distorts less. Ratios and shares are medians over the rounds.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from beside_vllm import ENGINE, Clock, bare_vllm, note_engine_time, now, quiet, rates

CONTEXT = 1024
PROMPT_TOKENS = 32


def prompts(args: argparse.Namespace) -> list[list[int]]:
    """One list of token ids a group."""
    return [
        [2, *(4 + (7 * g + 3 * i) % 250 for i in range(PROMPT_TOKENS - 2)), 3] for g in range(args.shards * args.groups)
    ]


def run_bare(args: argparse.Namespace) -> dict:
    from vllm import SamplingParams

    most = PROMPT_TOKENS + args.tokens
    llm = bare_vllm(args.work / "model", most, logprobs_mode="processed_logprobs")
    groups = prompts(args)
    shards = [groups[i : i + args.groups] for i in range(0, len(groups), args.groups)]

    def generate(shard: list[list[int]], first: int) -> int:
        params = [
            SamplingParams(n=args.size, max_tokens=args.tokens, logprobs=0, seed=1000 * (first + i))
            for i in range(len(shard))
        ]
        done = llm.generate([{"prompt_token_ids": ids} for ids in shard], params, use_tqdm=False)
        return sum(len(c.token_ids) for request in done for c in request.outputs)

    generate(shards[0], 0)  # warm
    begun = now()
    tokens = sum(generate(shard, i * args.groups) for i, shard in enumerate(shards))
    return rates(tokens, begun, now())


def run_task(args: argparse.Namespace) -> dict:
    from grhpc.lifetime import Lifetime
    from grhpc.rollout.worker import main
    from grhpc.store.events import EventLog

    delivered: list[tuple[int, Clock]] = []
    emit, inside_s = EventLog.emit, note_engine_time()

    def emit_and_note(self: EventLog, event: str, **fields: object) -> None:
        emit(self, event, **fields)
        if event == "shard":
            delivered.append((int(str(fields["tokens"])), now()))

    EventLog.emit = emit_and_note
    main(make_run(args).path, Lifetime(job="bench"))
    # From the first shard's delivery to the last one's: claims, polls, weights and delivery are all in it.
    begun, ended = delivered[0][1], delivered[-1][1]
    told = rates(sum(tokens for tokens, _ in delivered[1:]), begun, ended)
    return told | {"generating": sum(inside_s[1:]) / (ended[0] - begun[0])}


def make_run(args: argparse.Namespace):
    from prompts import prompt

    from grhpc.config import Config
    from grhpc.store.rundir import RunDir
    from grhpc.strict import build

    work = args.work
    settings = {
        "run": {"name": "bench", "dir": str(work / "runs")},
        "policy": {"model": str(work / "model"), "dtype": "float32"},
        "verifier": {"model": str(work / "model")},
        "data": {"prepared": "none", "max_prompt_tokens": PROMPT_TOKENS},
        "rollout": {"group_size": args.size, "max_response_tokens": args.tokens, "engine": ENGINE},
        "train": {"steps": 1},
        "store": {"idle_s": 2.0, "local_dir": str(work / "node")},
    }
    shutil.rmtree(work / "runs", ignore_errors=True)
    run = RunDir.create(work / "runs" / "bench", build(Config, settings, ""))
    staging = run.weights.begin(1, 0)
    for file in ("model.safetensors", "config.json"):
        shutil.copy(work / "model" / file, staging / file)
    run.weights.commit(1, 0, base="policy", extra={})
    rows = [prompt(g, token_ids=ids) for g, ids in enumerate(prompts(args))]
    rows = rows[: args.groups] + rows  # the first shard warms up, and is sampled once more
    for shard, first in enumerate(range(0, len(rows), args.groups)):
        run.queue("prompts").put(f"g{shard:08d}-{args.groups:04d}", rows[first : first + args.groups])
    return run


def measure(args: argparse.Namespace) -> dict:
    from random_models import random_model

    random_model(args.work / "model", 0, context=CONTEXT)
    rounds = []
    for number in range(args.rounds):
        sides = ("bare", "task") if number % 2 == 0 else ("task", "bare")
        rounds.append({side: run_side(side, args) for side in sides})
    told: dict = {"load": os.getloadavg()[0]}
    told["generating"] = round(statistics.median(r["task"]["generating"] for r in rounds), 4)
    for clock in ("wall", "cpu"):
        pairs = [(r["task"][clock], r["bare"][clock]) for r in rounds]
        told[clock] = {
            "ratio": round(statistics.median(task / bare for task, bare in pairs), 3),
            "task": [round(task) for task, _ in pairs],
            "bare": [round(bare) for _, bare in pairs],
        }
    return told


def run_side(side: str, args: argparse.Namespace) -> dict:
    words = [sys.executable, __file__, "--side", side, "--work", args.work]
    for name in ("shards", "groups", "size", "tokens"):
        words += [f"--{name}", str(getattr(args, name))]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in (("shards", 8), ("groups", 16), ("size", 8), ("tokens", 128), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--side", choices=("bare", "task"))
    parser.add_argument("--work", type=Path)
    args = parser.parse_args()
    quiet()
    if args.side:
        print(json.dumps({"bare": run_bare, "task": run_task}[args.side](args)))
        return
    with tempfile.TemporaryDirectory() as work:
        args.work = Path(work)
        print(json.dumps(measure(args)))


if __name__ == "__main__":
    main()
