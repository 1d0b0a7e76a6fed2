"""What the benches share that set a role's task beside bare vLLM: one engine's settings for both sides, the clocks, the
count of the engine's steps, and the rounds in which two sides share one core.

A machine of which others have a part, as every virtual one, changes its speed by half within seconds: two equal runs
one after the other differed by a third, and the same two on one core at the same moment by a fiftieth. So each side
runs beside its peer, both bound to one core, and what either waited for that core is not counted.

Does not know: roles, what is asked. Invariant: nothing here is measured, and both sides get the same.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]  # the checkout, and its tests' helpers

ENGINE = {"kv_cache_mb": 256, "max_num_seqs": 256, "enforce_eager": True}
Clock = tuple[float, float]  # seconds of the wall without waiting for the core, and of this process's CPU time
MEETING_S = 1200.0  # for a side to be ready, or to end after the other


def now() -> Clock:
    waited_ns = int(Path("/proc/self/schedstat").read_text().split()[1])  # for a core that another process had
    return time.perf_counter() - waited_ns / 1e9, time.process_time()


def since(begun: Clock, ended: Clock) -> Clock:
    return ended[0] - begun[0], ended[1] - begun[1]


def rates(count: int, begun: Clock, ended: Clock) -> dict[str, float]:
    """So many things a second, by either clock."""
    return {key: count / seconds for key, seconds in zip(("wall", "cpu"), since(begun, ended), strict=True)}


def quiet() -> None:
    """For this process and those it starts, before vLLM is imported: one process an engine, one thread, no words."""
    settings = {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "TORCH_COMPILE_DISABLE": "1"}
    os.environ.update(settings, VLLM_CPU_OMP_THREADS_BIND="nobind", VLLM_NO_USAGE_STATS="1", HF_HUB_OFFLINE="1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def bare_vllm(model: Path, max_tokens: int, **more: Any) -> Any:
    """vLLM's own LLM, with what ENGINE says; `max_tokens` of prompt and response."""
    from vllm import LLM

    return LLM(
        model=str(model),
        dtype="float32",
        max_model_len=max_tokens,
        max_num_seqs=ENGINE["max_num_seqs"],
        kv_cache_memory_bytes=ENGINE["kv_cache_mb"] << 20,
        enforce_eager=True,
        enable_chunked_prefill=False,
        **more,
    )


def count_steps(engine: Any) -> list[int]:
    """From now on every step of vLLM's engine adds an entry to this list."""
    steps: list[int] = []
    step = engine.step

    def counted() -> Any:
        steps.append(1)
        return step()

    engine.step = counted
    return steps


def add_sides(parser: argparse.ArgumentParser, *sides: str) -> None:
    """What `side_by_side` tells the processes that it starts."""
    parser.add_argument("--side", choices=sides)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--meet", type=Path)


def meet(args: argparse.Namespace, where: str) -> None:
    """Wait until the other side is as far. It is busy meanwhile, so that the other's half of the core stays a half."""
    (args.meet / f"{where}-{os.getpid()}").touch()
    give_up_s = time.monotonic() + MEETING_S
    while len(list(args.meet.glob(f"{where}-*"))) < 2:
        if time.monotonic() > give_up_s:
            raise TimeoutError(f"the other side was not {where} within {MEETING_S:.0f} s")


def side_by_side(
    script: str, peer: str, side: str, args: argparse.Namespace, names: Sequence[str]
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The figures of `peer` and of `side`, which ran at the same time on one core, for each of `args.rounds`.

    Each is `script --side SIDE` in a process and a folder of its own with the models of `args.work`, and is given the
    numbers of these names."""
    numbers = [word for name in names for word in (f"--{name}", str(getattr(args, name)))]
    cores = sorted(os.sched_getaffinity(0))

    def figures(core: int) -> tuple[dict[str, Any], dict[str, Any]]:
        with tempfile.TemporaryDirectory(dir=args.work) as folder:
            started = []
            for number, name in enumerate((peer, side)):
                (work := Path(folder) / str(number)).mkdir()
                (work / "model").symlink_to(args.work / "model")
                words = ["taskset", "--cpu-list", str(core), sys.executable, script, "--side", name, *numbers]
                words += ["--work", str(work), "--meet", folder]
                started.append(subprocess.Popen(words, stdout=subprocess.PIPE, text=True))
            try:
                while any(process.poll() is None for process in started) and not any(p.poll() for p in started):
                    time.sleep(0.1)
            finally:
                for process in started:
                    process.kill()
            told, beside = (json.loads(process.communicate()[0].splitlines()[-1]) for process in started)
            return told, beside

    return [figures(cores[number % len(cores)]) for number in range(args.rounds)]


def over(rounds: Sequence[tuple[dict[str, Any], dict[str, Any]]], clock: str) -> dict[str, Any]:
    """The side's figure over its peer's: the mean over the rounds with its standard error, and the rounds' own."""
    ratios = [side[clock] / peer[clock] for peer, side in rounds]
    spread = statistics.stdev(ratios) / math.sqrt(len(ratios)) if len(ratios) > 1 else float("nan")
    told = {"mean": round(statistics.mean(ratios), 3), "standard_error": round(spread, 3)}
    return told | {"rounds": [round(ratio, 3) for ratio in ratios]}
