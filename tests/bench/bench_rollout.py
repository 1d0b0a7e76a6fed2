"""The rollout task's tokens a second over bare vLLM's, with the same model, prompts and sampling. Prints JSON.

    python tests/bench/bench_rollout.py [--shards 8] [--groups 8] [--size 8] [--tokens 900] [--rounds 5]

`bare` is one call of `LLM.generate` on all the prompts at once, which is as fast as vLLM can be; `task` is the role's
own loop over a run directory, from claiming the first shard to delivering the last, weights loaded on the way. They run
beside one another on one core, round after round (`beside_vllm.py` says why). Responses end by themselves, so that
lengths spread and a few are many times as long as the mean. Start-up and a warm-up are left out on both sides. `wall`
is tokens a second, less what a process waited for the core; `cpu` is tokens a second of its CPU time; `steps` is how
many steps the engine took, which no other work on the machine can change, and which is most of the time on a GPU.
"""

import argparse
import json
import os
import shutil
import tempfile
from pathlib import Path
from statistics import mean

from beside_vllm import ENGINE, Clock, add_sides, bare_vllm, count_steps, meet, now, over, quiet, rates, side_by_side

CONTEXT = 1024
PROMPT_TOKENS = 32


def prompts(args: argparse.Namespace) -> list[list[int]]:
    """One list of token ids a group."""
    return [
        [2, *(4 + (7 * g + 3 * i) % 250 for i in range(PROMPT_TOKENS - 2)), 3] for g in range(args.shards * args.groups)
    ]


def run_bare(args: argparse.Namespace) -> dict:
    from vllm import SamplingParams

    llm = bare_vllm(args.work / "model", PROMPT_TOKENS + args.tokens, logprobs_mode="processed_logprobs")
    steps = count_steps(llm.llm_engine)

    def generate(groups: list[list[int]]) -> list[int]:
        params = [
            SamplingParams(n=args.size, max_tokens=args.tokens, logprobs=0, seed=1000 * i) for i in range(len(groups))
        ]
        done = llm.generate([{"prompt_token_ids": ids} for ids in groups], params, use_tqdm=False)
        return [len(c.token_ids) for request in done for c in request.outputs]

    generate(prompts(args)[:4])  # warm
    steps.clear()
    meet(args, "ready")
    begun = now()
    lengths = generate(prompts(args))
    told = rates(sum(lengths), begun, now())
    meet(args, "done")
    return told | {"steps": len(steps), "tokens": sum(lengths), "longest_over_mean": max(lengths) / mean(lengths)}


def run_task(args: argparse.Namespace) -> dict:
    from grhpc.engine.vllm import Request
    from grhpc.lifetime import Lifetime
    from grhpc.rollout.worker import RolloutWorker
    from grhpc.store.events import EventLog
    from grhpc.store.serving import serve

    delivered: list[tuple[int, Clock]] = []
    emit = EventLog.emit

    def emit_and_note(self: EventLog, event: str, **fields: object) -> None:
        emit(self, event, **fields)
        if event == "shard":
            delivered.append((int(str(fields["tokens"])), now()))
            if len(delivered) == args.shards:
                meet(args, "done")

    EventLog.emit = emit_and_note  # type: ignore[method-assign]
    run, life = make_run(args), Lifetime(job="bench")
    events = run.events("rollout", life.job)
    worker = RolloutWorker(run, run.config(), life, events)
    worker.prepare()
    steps = count_steps(worker._host.engine._engine)
    warm = [Request(ids, n=args.size, max_tokens=args.tokens, seed=i) for i, ids in enumerate(prompts(args)[:4])]
    worker._host.engine.generate(warm)
    steps.clear()
    meet(args, "ready")
    begun = now()  # claims, polls, the weights and the delivery are all in it
    serve(run, "prompts", worker, life, events)
    tokens = sum(tokens for tokens, _ in delivered)
    return rates(tokens, begun, delivered[-1][1]) | {"steps": len(steps), "tokens": tokens}


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
    for shard, first in enumerate(range(0, len(rows), args.groups)):
        run.queue("prompts").put(f"g{shard:08d}-{args.groups:04d}", rows[first : first + args.groups])
    return run


def measure(args: argparse.Namespace) -> dict:
    from random_models import random_model

    random_model(args.work / "model", 0, context=CONTEXT)
    rounds = side_by_side(__file__, "bare", "task", args, ("shards", "groups", "size", "tokens"))
    told: dict = {"load": os.getloadavg()[0], "longest_over_mean": round(rounds[0][0]["longest_over_mean"], 1)}
    for clock in ("wall", "cpu", "steps", "tokens"):
        bare, task = ([round(side[clock]) for side in sides] for sides in zip(*rounds, strict=True))
        told[clock] = {"bare": bare, "task": task, "task over bare": over(rounds, clock)}
    return told


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in (("shards", 8), ("groups", 8), ("size", 8), ("tokens", 900), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    add_sides(parser, "bare", "task")
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
