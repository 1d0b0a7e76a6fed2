"""A program for test_parallel.py: a tensor-parallel engine in child processes, warned by SLURM's signal while it works.

python parallel_engine.py MODEL_A MODEL_B      writes one JSON object
"""

import json
import os
import signal
import sys
import tempfile
from pathlib import Path

from grhpc.config import EngineConfig
from grhpc.engine.vllm import Request, VllmEngine

REQUESTS = [Request([2, 40 + i, 41, 42, 43, 3], n=2, temperature=0.7, max_tokens=12, seed=10 * i) for i in range(3)]
ENDLESS = [Request([2, 40, 3], n=8, max_tokens=300, seed=1)]


def main() -> None:
    warned: list[int] = []
    signal.signal(signal.SIGUSR2, lambda number, frame: warned.append(number))
    settings = EngineConfig(tensor_parallel=2, kv_cache_mb=64, max_num_seqs=32, enforce_eager=True)
    engine = VllmEngine(sys.argv[1], dtype="float32", settings=settings, max_model_tokens=384)
    told = {"first": generate(engine)}
    told["sockets"] = [str(path) for path in Path(tempfile.gettempdir()).rglob("*") if path.is_socket()]
    engine.load_weights(Path(sys.argv[2]))
    told["second"] = generate(engine)
    asked: list[int] = []

    def warn_after_three() -> bool:
        asked.append(1)
        if len(asked) == 3:
            os.killpg(0, signal.SIGUSR2)
        return bool(warned)

    told["stopped"] = engine.generate(ENDLESS, warn_after_three) is None
    told["third"] = generate(engine)
    engine.close()
    print(json.dumps(told))


def generate(engine: VllmEngine) -> list:
    groups = engine.generate(REQUESTS)
    assert groups is not None
    return [[[c.token_ids, c.logprobs] for c in group] for group in groups]


if __name__ == "__main__":
    main()
