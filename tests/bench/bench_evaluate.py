"""An evaluation task's samples a second over bare vLLM's: the same model, prompts, sampling, seeds. Prints JSON.

    python tests/bench/bench_evaluate.py [--shards 12] [--questions 64] [--tokens 900] [--rounds 5] [SIDE ...]

The peer is one call of `LLM.generate` on all the prompts at once, tokenised before, which is as fast as vLLM can be;
`continuous` and `alone` are the role's own loop over an evaluation with that `batching`, from claiming the first shard
to delivering the last one's samples: claims, chat template, tokens, engine, texts, shards. Start-up and a warm-up are
left out. Responses are drawn at temperature 1 and end by themselves, so that lengths spread and a few are many times as
long as the mean.

Each of them, or the SIDEs named, runs beside the peer on one core, round after round (`beside_vllm.py` says why), and
so does, as `bare`, the peer itself, which shows how exact this is. `wall` is samples a second, less what a process
waited for the core; `cpu` is samples a second of its CPU time; `steps` is how many steps the engine took for the same
tokens, which no other work on the machine can change, and which is most of the time on a GPU. `grading` is how many
samples a second the task then scores.
"""

import argparse
import json
import os
import shutil
import statistics
import tempfile
from pathlib import Path

from beside_vllm import ENGINE, add_sides, bare_vllm, count_steps, meet, now, over, quiet, rates, side_by_side

CONTEXT = 2048
PROMPT_TOKENS = 256
TASKS = ("continuous", "alone")


def questions(args: argparse.Namespace) -> list[dict[str, str]]:
    """Of different lengths, as benchmarks' are, and none the beginning of another."""
    rows = []
    for number in range(args.shards * args.questions):
        words = " ".join(str((7 * number + 3 * i) % 97) for i in range(20 + number % 40))
        rows.append({"question": f"{number}: what follows {words}?", "answer": str(number)})
    return rows


def run_bare(args: argparse.Namespace) -> dict:
    from transformers import AutoTokenizer
    from vllm import SamplingParams

    from grhpc.evaluate.engine_sampler import end_of_turn
    from grhpc.evaluate.prepare import load_questions
    from grhpc.evaluate.sampling import first_seed

    make_evaluation(args, "alone")
    asked = load_questions(args.work / "prepared", "bench")
    llm = bare_vllm(args.work / "model", PROMPT_TOKENS + args.tokens, enable_prefix_caching=False)
    steps = count_steps(llm.llm_engine)
    tokenizer = AutoTokenizer.from_pretrained(args.work / "model")
    turns = [[{"role": "user", "content": question.prompt}] for question in asked]
    texts = [tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True) for turn in turns]
    prompts = [{"prompt_token_ids": ids} for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    ends = list(end_of_turn(tokenizer))
    settings = {"temperature": 1.0, "max_tokens": args.tokens, "stop_token_ids": ends}
    params = [SamplingParams(seed=first_seed(0, question), **settings) for question in asked]
    llm.generate(prompts[:32], params[:32], use_tqdm=False)  # warm
    steps.clear()
    meet(args, "ready")
    begun = now()
    lengths = [len(done.outputs[0].token_ids) for done in llm.generate(prompts, params, use_tqdm=False)]
    told = rates(len(lengths), begun, now())
    meet(args, "done")
    spread = max(lengths) / statistics.mean(lengths)
    return told | {"steps": len(steps), "tokens": sum(lengths), "longest_over_mean": spread}


def run_task(args: argparse.Namespace) -> dict:
    from grhpc.evaluate.worker import EvaluateWorker
    from grhpc.lifetime import Lifetime
    from grhpc.store.events import EventLog
    from grhpc.store.serving import serve

    delivered: dict[str, list] = {"sample": [], "grade": []}
    emit = EventLog.emit

    def emit_and_note(self: EventLog, event: str, **fields: object) -> None:
        emit(self, event, **fields)
        if event == "shard":
            delivered[str(fields["stage"])].append((fields, now()))
            if sum(len(shards) for shards in delivered.values()) == args.shards:
                meet(args, "done")

    EventLog.emit = emit_and_note  # type: ignore[method-assign]
    run, life = make_evaluation(args, args.side), Lifetime(job="bench")
    events = run.events("evaluate", life.job)
    worker = EvaluateWorker(run, run.evaluation(), life, events)
    worker.prepare()
    steps = count_steps(worker.sampler._host.engine._engine)
    queue = run.queue("questions")
    lease = queue.claim("warm")
    list(worker.sampler.stream(lease.rows[:32], lambda: None, lambda: False))
    lease.release("warm")
    steps.clear()
    meet(args, "ready")
    begun = now()
    serve(run, lambda: worker.stage, worker, life, events)
    samples, graded = delivered["sample"], delivered["grade"]
    told = rates(sum(fields["samples"] for fields, _ in samples), begun, samples[-1][1])
    grading_s = graded[-1][1][0] - graded[0][1][0]
    return told | {
        "steps": len(steps),
        "tokens": sum(fields["tokens"] for fields, _ in samples),
        "grading": sum(fields["samples"] for fields, _ in graded[1:]) / grading_s,
    }


def make_evaluation(args: argparse.Namespace, batching: str):
    from grhpc.eval_config import EvalConfig
    from grhpc.evaluate.create import create, model_of, settled
    from grhpc.evaluate.prepare import prepare
    from grhpc.strict import build

    work = args.work
    shutil.rmtree(work / "runs", ignore_errors=True)
    (work / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in questions(args)))
    entry = {"source": str(work / "questions.jsonl"), "scorer": "math", "prompt": "{question}", "temperature": 1.0}
    settings = {
        "run": {"name": "bench", "dir": str(work / "runs")},
        "benchmarks": ["bench"],
        "batching": batching,
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
    names = ("shards", "questions", "tokens")
    rounds = {side: side_by_side(__file__, "bare", side, args, names) for side in args.sides}
    bare = [peer for pairs in rounds.values() for peer, _ in pairs]
    told: dict = {
        "load": round(os.getloadavg()[0], 1),
        "samples": args.shards * args.questions,
        "tokens": round(bare[0]["tokens"]),
        "longest_over_mean": round(bare[0]["longest_over_mean"], 1),
        "bare, wall": round(statistics.median(peer["wall"] for peer in bare), 1),
    }
    for side, pairs in rounds.items():
        assert all(peer["tokens"] == beside["tokens"] for peer, beside in pairs), "the samples differ"
        told[f"{side} over bare"] = {clock: over(pairs, clock) for clock in ("wall", "cpu", "steps")}
    grading = {side: [round(task["grading"]) for _, task in pairs] for side, pairs in rounds.items() if side in TASKS}
    return told | {"grading": grading}


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in (("shards", 12), ("questions", 64), ("tokens", 900), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("sides", nargs="*", metavar="SIDE", default=("bare", *TASKS))
    add_sides(parser, "bare", *TASKS)
    args = parser.parse_args()
    quiet()
    if args.side:
        print(json.dumps(run_bare(args) if args.side == "bare" else run_task(args)))
        return
    with tempfile.TemporaryDirectory() as work:
        args.work = Path(work)
        print(json.dumps(measure(args)))


if __name__ == "__main__":
    main()
