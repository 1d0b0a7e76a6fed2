"""The verify task's verdicts a second over bare vLLM's, and over one transformers call a pair. Prints JSON.

    python tests/bench/bench_verify.py [--shards 6] [--groups 16] [--size 8] [--calls 64] [--rounds 3] [--tokens 128]
    python tests/bench/bench_verify.py --asked [RUN]     questions to the judge a sample: as stated, and in a run

The first form judges answers that all differ, so that nothing is reused: with the shipped verifier, whose reasons have
some 14 tokens, or with a random model that writes up to `--tokens` of them, as a real verifier does; its text then
counts as a yes. `task` is the role's own loop over a run directory, from claiming the first shard to delivering the
last; `bare` gives all prompts to one call of `LLM.generate`, which is as fast as vLLM can be; `transformers` calls
`generate` for one pair after the other. The task runs beside each of the two on one core, round after round, start-up
left out (`beside_vllm.py` says why). No question is asked a second time, on any side. `wall` is verdicts a second, less
what a process waited for the core; `cpu` is verdicts a second of its CPU time, and `steps` how many steps the engine
took, which no other work on the machine can change.

The second form simulates groups whose answers are distributed as `STATED` says, with a judge that costs nothing.
"""

import argparse
import itertools
import json
import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from beside_vllm import ENGINE, Clock, add_sides, bare_vllm, count_steps, meet, now, over, quiet, rates, side_by_side

VERIFIER = Path(__file__).parents[2] / "grhpc" / "data" / "tiny_models" / "verifier"
INPUT = 256
STATED = {"prompts": 512, "epochs": 2, "group_size": 8, "right": 0.5, "no_answer": 0.05, "wrong_kinds": 20, "zipf": 1.0}


def model(args: argparse.Namespace) -> Path:
    return args.work / "model" if args.tokens else VERIFIER


def most(args: argparse.Namespace) -> int:
    return args.tokens or 40


def shards(args: argparse.Namespace, extra: int = 0) -> list[list[Any]]:
    """Rollouts of every shard; no two answers to a question are alike."""
    from verify_rows import rollout

    from grhpc.data import tiny

    rows = tiny.rows("train", (args.shards + extra) * args.groups)
    groups = [
        [
            rollout(g, k, question=row["question"], answer=row["answer"], response=f"so \\boxed{{{k * 7 + g}}}")
            for k in range(args.size)
        ]
        for g, row in enumerate(rows)
    ]
    return [list(itertools.chain(*groups[i : i + args.groups])) for i in range(0, len(groups), args.groups)]


def prompts(rows: list[Any]) -> list[str]:
    from grhpc.answer.extract import extract_answer
    from grhpc.answer.judge import load_template, render

    template = load_template(str(VERIFIER / "template.txt"))
    return [render(template, row.question, row.answer, extract_answer(row.response) or "") for row in rows]


def bare_generate(args: argparse.Namespace) -> tuple[Callable[[list[str]], int], list[int]]:
    """A function, prompts -> how many were answered by `LLM.generate`; and the engine's steps."""
    from vllm import SamplingParams

    llm = bare_vllm(model(args), INPUT + most(args))
    settings = SamplingParams(temperature=0.0, max_tokens=most(args))
    return lambda asked: len(llm.generate(asked, settings, use_tqdm=False)), count_steps(llm.llm_engine)


def run_bare(args: argparse.Namespace) -> dict[str, float]:
    generate, steps = bare_generate(args)
    *asked, warm = [prompts(rows) for rows in shards(args, extra=1)]
    generate(warm)
    steps.clear()
    meet(args, "ready")
    begun = now()
    count = generate(list(itertools.chain(*asked)))
    told = rates(count, begun, now())
    meet(args, "done")
    return told | {"steps": len(steps)}


def run_transformers(args: argparse.Namespace) -> dict[str, float]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    judge_model = AutoModelForCausalLM.from_pretrained(model(args), dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(model(args))
    asked = [prompt for rows in shards(args) for prompt in prompts(rows)][: args.calls + 4]

    def judge(prompt: str) -> None:
        with torch.no_grad():
            judge_model.generate(**tokenizer(prompt, return_tensors="pt"), max_new_tokens=most(args), do_sample=False)

    for prompt in asked[:4]:
        judge(prompt)
    meet(args, "ready")
    begun = now()
    for prompt in asked[4:]:
        judge(prompt)
    told = rates(len(asked) - 4, begun, now())
    meet(args, "done")
    return told


def run_task(args: argparse.Namespace) -> dict[str, float]:
    from grhpc.engine.host import EngineHost
    from grhpc.lifetime import Lifetime
    from grhpc.store.events import EventLog
    from grhpc.store.serving import serve
    from grhpc.verify.worker import VerifyWorker

    delivered: list[tuple[int, Clock]] = []
    emit, generate = EventLog.emit, EngineHost.generate

    def generate_and_decide(self: EngineHost, *words: Any) -> Any:
        done = generate(self, *words)
        if not args.tokens:
            return done
        return [[replace(c, text=f"{c.text} Final Decision: Yes", finish_reason="stop")] for [c] in done]

    def emit_and_note(self: EventLog, event: str, **fields: Any) -> None:
        emit(self, event, **fields)
        if event == "shard":
            assert fields["reused"] == 0, "something was reused"
            delivered.append((fields["rollouts"], now()))
            if len(delivered) == args.shards:
                meet(args, "done")

    EventLog.emit, EngineHost.generate = emit_and_note, generate_and_decide  # type: ignore[method-assign]
    run, life = make_run(args), Lifetime(job="bench")
    events, queue = run.events("verify", life.job), run.queue("rollouts")
    worker = VerifyWorker(run, run.config(), life, events)
    worker.prepare()
    steps = count_steps(worker._decider._judge._host.engine._engine)  # type: ignore[attr-defined]
    *asked, warm = shards(args, extra=1)
    queue.put("g99999999-0001", warm)
    worker.work(queue.claim(life.job))  # type: ignore[arg-type]
    for number, rows in enumerate(asked):
        queue.put(f"g{number * args.groups:08d}-{args.groups:04d}", rows)
    delivered.clear()
    steps.clear()
    meet(args, "ready")
    begun = now()  # claims, polls, extraction and delivery are all in it
    serve(run, "rollouts", worker, life, events)
    return rates(sum(count for count, _ in delivered), begun, delivered[-1][1]) | {"steps": len(steps)}


def make_run(args: argparse.Namespace) -> Any:
    from grhpc.config import Config
    from grhpc.store.rundir import RunDir
    from grhpc.strict import build

    template = str(VERIFIER / "template.txt")
    verifier = {"model": str(model(args)), "dtype": "float32", "template": template}
    settings = {
        "run": {"name": "bench", "dir": str(args.work / "runs")},
        "policy": {"model": str(model(args)), "dtype": "float32"},
        "verifier": verifier | {"max_new_tokens": most(args), "max_input_tokens": INPUT, "max_attempts": 1},
        "data": {"prepared": "none"},
        "verify": {"engine": ENGINE},
        "train": {"steps": 1},
        "store": {"idle_s": 2.0, "local_dir": str(args.work / "node")},
    }
    shutil.rmtree(args.work / "runs", ignore_errors=True)
    return RunDir.create(args.work / "runs" / "bench", build(Config, settings, ""))


def measure(args: argparse.Namespace) -> dict[str, Any]:
    from random_models import random_model

    random_model(args.work / "model", 0, context=1024)
    told: dict[str, Any] = {"load": os.getloadavg()[0], "pairs": args.shards * args.groups * args.size}
    for other, clocks in (("bare", ("wall", "cpu", "steps")), ("transformers", ("wall", "cpu"))):
        rounds = side_by_side(__file__, other, "task", args, ("shards", "groups", "size", "calls", "tokens"))
        told[f"{other}, wall"] = [round(peer["wall"], 1) for peer, _ in rounds]
        told[f"task over {other}"] = {clock: over(rounds, clock) for clock in clocks}
    return told


def stated_groups() -> Iterator[list[str | None]]:
    """The answers of one group after the other, epoch after epoch: "right", "wrong 3", or None."""
    rng = random.Random(0)
    kinds = [f"wrong {k}" for k in range(int(STATED["wrong_kinds"]))]
    weights = [1 / (k + 1) ** STATED["zipf"] for k in range(len(kinds))]
    for _ in range(int(STATED["prompts"] * STATED["epochs"])):
        yield [
            None if rng.random() < STATED["no_answer"] else "right" if rng.random() < STATED["right"] else wrong
            for wrong in rng.choices(kinds, weights, k=int(STATED["group_size"]))
        ]


def questions_as_stated() -> dict[str, Any]:
    from grhpc.config import VerifierConfig
    from grhpc.judge.decide import Pair
    from grhpc.judge.generative import GenerativeDecider
    from grhpc.judge.judge import Heard, Reply

    class Free:
        identity, running = "free", True

        def start(self) -> None: ...

        def ask(self, prompts: list[str], attempt: int, should_stop: object, heard: Heard) -> list[Reply]:
            replies = [Reply("Final Decision: No", True) for _ in prompts]
            heard(dict(zip(prompts, replies, strict=True)))
            return replies

        def usage(self) -> dict[str, float]:
            return {}

        def close(self) -> None: ...

    decider = GenerativeDecider(Free(), VerifierConfig("free"))
    samples, asked, by_epoch = 0, 0, []
    for number, group in enumerate(stated_groups()):
        question = f"question {number % STATED['prompts']}"
        pairs = dict.fromkeys(Pair(question, "right", answer) for answer in group if answer is not None)
        decided = decider.decide(list(pairs), lambda: False)
        assert decided is not None
        samples, asked = samples + len(group), asked + decided.asked
        if (number + 1) % STATED["prompts"] == 0:
            by_epoch.append(round(asked / samples, 4))
            samples = asked = 0
    return {"stated": STATED, "questions a sample by epoch": by_epoch}


def questions_in(run_dir: Path) -> dict[str, Any]:
    """What a run's verify tasks told, and whether any question stands twice in what they recorded."""
    from grhpc.report.judging import judging
    from grhpc.store.atomic import list_names
    from grhpc.store.events import read_events
    from grhpc.store.journal import parse_journal
    from grhpc.store.rundir import RunDir

    run = RunDir.open(run_dir)
    told = judging(read_events(run.events_dir))
    keys: Counter[str] = Counter()
    for name in list_names(run.decisions_dir):
        path = run.decisions_dir / name
        keys.update(line.entry["key"] for line in parse_journal(path.read_bytes(), path) if "key" in line.entry)
    twice = sum(count - 1 for count in keys.values())
    return {"questions a sample": round(told["asked"] / told["rollouts"], 4), "recorded twice": twice, **told}


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in (("shards", 6), ("groups", 16), ("size", 8), ("calls", 64), ("rounds", 3), ("tokens", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--asked", nargs="?", const="", metavar="RUN")
    add_sides(parser, "bare", "task", "transformers")
    args = parser.parse_args()
    quiet()
    if args.asked is not None:
        print(json.dumps(questions_as_stated() | ({"run": questions_in(Path(args.asked))} if args.asked else {})))
        return
    if args.side:
        sides = {"bare": run_bare, "task": run_task, "transformers": run_transformers}
        print(json.dumps(sides[args.side](args)))
        return
    with tempfile.TemporaryDirectory() as work:
        args.work = Path(work)
        print(json.dumps(measure(args)))


if __name__ == "__main__":
    main()
