"""What the benches share that set a role's task beside bare vLLM: one engine's settings for both sides, the clocks, the
count of the engine's steps, and the rounds in which the sides take turns.

Does not know: roles, what is asked. Invariant: nothing here is measured, and both sides get the same.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]  # the checkout, and its tests' helpers

ENGINE = {"kv_cache_mb": 256, "max_num_seqs": 256, "enforce_eager": True}
Clock = tuple[float, float]  # seconds of the wall and of this process's CPU time


def now() -> Clock:
    return time.perf_counter(), time.process_time()


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


def in_turns(script: str, sides: Sequence[str], args: argparse.Namespace, names: Sequence[str]) -> list[dict[str, Any]]:
    """Every side's figures, round after round: `script --side SIDE` in a process of its own, one at a time, in an order
    that turns round. Each is given `args.work` and the numbers of these names."""
    numbers = [word for name in names for word in (f"--{name}", str(getattr(args, name)))]

    def figures(side: str) -> Any:
        words = [sys.executable, script, "--side", side, "--work", str(args.work), *numbers]
        return json.loads(subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1])

    return [
        {side: figures(side) for side in (sides if number % 2 == 0 else sides[::-1])} for number in range(args.rounds)
    ]
