"""Lives of a trainer, each in a process of its own, which a test may kill at any moment."""

import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any

from grhpc.store.rundir import RunDir

LIFE_LIMIT_S = 400.0
TEST_LIMIT_S = 20 * LIFE_LIMIT_S  # above the sum of any test's waits, so that its own words appear


def forking(module: str) -> BaseContext:
    """Where lives come from: a server that has imported the trainer."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([module])
    warm = context.Process(target=time.sleep, args=(0,))  # the server starts, and imports, at the first process
    warm.start()
    warm.join(LIFE_LIMIT_S)
    return context


def begin(lives: BaseContext, life: Callable[..., None], run: RunDir, *args: Any) -> BaseProcess:
    process: BaseProcess = lives.Process(target=life, args=(str(run.root), *args))  # type: ignore[attr-defined]
    process.start()
    return process


def wait_until(come: Callable[[], bool], process: BaseProcess) -> None:
    deadline_s = time.monotonic() + LIFE_LIMIT_S
    while True:
        is_alive = process.is_alive()  # first: its last act may be what is waited for
        if come():
            return
        assert time.monotonic() < deadline_s and is_alive
        time.sleep(0.02)
