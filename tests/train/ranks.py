"""A pool of processes that lend themselves as the ranks of a world, layout after layout.

Starting a process costs seconds of imports; so the pool starts once and every test borrows from it. A failed task takes
the pool down (its siblings may hang in a collective), and the next task starts it again.
"""

import multiprocessing
import os
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from ports import free_port

TASK_TIMEOUT_S = 300.0  # well below a test's own limit


def _serve(rank: int, pipe: Connection) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    torch.set_num_threads(1)
    while True:
        task = pipe.recv()
        if task is None:
            return
        function, world_size, port, args = task
        os.environ.update(
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE=str(world_size),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
        )
        try:
            pipe.send((True, function(*args)))
        except BaseException:
            pipe.send((False, traceback.format_exc()))


class RankPool:
    def __init__(self, size: int) -> None:
        self.size = size
        self.processes: list[Any] = []
        self.pipes: list[Connection] = []

    def run(self, world_size: int, function: Callable[..., Any], *args: Any) -> list[Any]:
        """function(*args) in `world_size` ranks at once; their results in rank order."""
        self.submit(world_size, function, *args)
        results = []
        for rank in range(world_size):
            fine, value = self.answer(rank)
            if not fine:
                self.stop()
                raise AssertionError(f"rank {rank} of {world_size} failed:\n{value}")
            results.append(value)
        return results

    def submit(self, world_size: int, function: Callable[..., Any], *args: Any) -> None:
        """Start function(*args) in `world_size` ranks."""
        if not self.processes:
            self._start()
        port = free_port()
        for pipe in self.pipes[:world_size]:
            pipe.send((function, world_size, port, args))

    def answer(self, rank: int) -> tuple[bool, Any]:
        """Whether the rank's task ended well, and its result or traceback."""
        if not self.pipes[rank].poll(TASK_TIMEOUT_S):
            return False, f"rank {rank} gave no answer in {TASK_TIMEOUT_S} s"
        try:
            return self.pipes[rank].recv()
        except EOFError:
            return False, f"rank {rank} died"

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        for rank in range(self.size):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(rank, theirs), daemon=True)
            process.start()
            theirs.close()
            self.processes.append(process)
            self.pipes.append(ours)

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()
        self.processes, self.pipes = [], []
