"""A real `vllm serve` for the session: the small verifier, under the name `tiny`."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from ports import free_port

SERVED = Path(__file__).parents[1] / "grhpc" / "data" / "tiny_models" / "verifier"
NAME = "tiny"
START_S = 600.0


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Its address, once it answers; `folder` is for its log."""
    port = free_port()
    words = f"-m vllm.entrypoints.openai.api_server --model {SERVED} --served-model-name {NAME} --port {port}"
    limits = "--dtype float32 --max-model-len 240 --enforce-eager --kv-cache-memory-bytes 67108864 --host 127.0.0.1"
    environment = {**os.environ, "TORCH_COMPILE_DISABLE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    with open(folder / "server.log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, *words.split(), *limits.split()],
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )
    try:
        deadline_s = time.monotonic() + START_S
        while not _answers(f"http://127.0.0.1:{port}/health"):
            dead = process.poll() is not None or time.monotonic() > deadline_s
            assert not dead, (folder / "server.log").read_text()[-2000:]
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(process.pid, 9)
        process.wait()


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=5) as reply:
            return bool(reply.status == 200)
    except (URLError, OSError):
        return False
