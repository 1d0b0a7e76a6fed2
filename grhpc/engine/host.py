"""Keep one engine running for a role: started when it is first needed, and again after it broke.

Does not know: shards, roles. Invariant: nothing that is asked here reaches an engine that has failed before.
"""

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import psutil

from grhpc.config import EngineConfig
from grhpc.engine.snapshot import loadable
from grhpc.engine.vllm import Completion, Request, VllmEngine
from grhpc.engine.vllm_start import as_engine_error
from grhpc.engine.watchdog import Watchdog

STALLED = 76  # the exit code of a process that ends itself because its engine hangs


class EngineHost:
    """`start` makes an engine. `on_stall(seconds)` is told before this process ends because no token came for so long:
    a hung engine cannot be stopped from inside, and the task's next incarnation starts with a new one."""

    def __init__(self, start: Callable[[], VllmEngine], stall_s: float, on_stall: Callable[[float], None]) -> None:
        self._start, self._on_stall = start, on_stall
        self._engine: VllmEngine | None = None
        self._watchdog = Watchdog(stall_s, self._give_up)

    @property
    def running(self) -> bool:
        return self._engine is not None

    @property
    def engine(self) -> VllmEngine:
        """A working engine, started now if there is none. Raises EngineError."""
        if self._engine is None:
            self._engine = self._start()
        return self._engine

    def generate(self, requests: Sequence[Request], should_stop: Callable[[], bool]) -> list[list[Completion]] | None:
        """As VllmEngine.generate; an engine that failed is dropped, one that only refused its requests is kept."""

        def progressed() -> bool:
            self._watchdog.beat()
            return should_stop()

        engine = self.engine
        try:
            with self._watchdog.watching():
                return engine.generate(requests, progressed)
        finally:
            self._drop_if_failed()

    def add(self, requests: Sequence[Request]) -> int:
        """As VllmEngine.add."""
        try:
            return self.engine.add(requests)
        finally:
            self._drop_if_failed()

    def step(self) -> dict[int, list[list[Completion]]]:
        """As VllmEngine.step."""
        try:
            with self._watchdog.watching():
                return self.engine.step()
        finally:
            self._drop_if_failed()

    def abort(self) -> None:
        """As VllmEngine.abort; without an engine nothing is in hand."""
        if self._engine is not None:
            try:
                self._engine.abort()
            finally:
                self._drop_if_failed()

    @property
    def has_room(self) -> bool:
        """As VllmEngine.has_room."""
        return self.engine.has_room

    def load_weights(self, folder: Path) -> float:
        """As VllmEngine.load_weights; returns the seconds it took."""
        engine, begun_s = self.engine, time.monotonic()
        try:
            with self._watchdog.watching():
                engine.load_weights(folder)
        finally:
            self._drop_if_failed()
        return time.monotonic() - begun_s

    def close(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()

    def _drop_if_failed(self) -> None:
        if self._engine is not None and self._engine.closed:
            self._engine = None

    def _give_up(self) -> None:
        try:
            self._on_stall(self._watchdog.limit_s)
        finally:
            with contextlib.suppress(Exception):  # whatever comes, this process ends
                _kill_descendants()
            os._exit(STALLED)


def _kill_descendants() -> None:
    """Where no SLURM clears up they would keep their GPUs: of an engine over several, the workers are its children, and
    one that hangs in a collective does not hear that it is gone."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def without_prefix_cache(settings: EngineConfig) -> EngineConfig:
    """For answers that must not depend on what was asked before them: which prefixes are cached does."""
    return replace(settings, extra={"enable_prefix_caching": False} | settings.extra)


def engine_starter(
    model: str, dtype: str, settings: EngineConfig, max_model_tokens: int, seed: int
) -> Callable[[], VllmEngine]:
    """What EngineHost needs to start a vLLM engine with these settings."""

    def start() -> VllmEngine:
        with as_engine_error(f"vLLM did not start with {model}"):
            path = loadable(model)
        return VllmEngine(path, dtype=dtype, settings=settings, max_model_tokens=max_model_tokens, seed=seed)

    return start
