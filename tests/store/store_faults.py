"""Faults at a chosen system call: compiles the shim, runs the fork server, goes through every call of an operation."""

import atexit
import errno
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

COUNT, KILL_BEFORE, KILL_AFTER, REFUSE, LOSE_REPLY, SHORT_WRITES = range(6)
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Fault:
    """How one call goes wrong: the shim's mode, the errno it reports, and which calls (all: empty) it befalls."""

    mode: int
    failure: int = 0
    calls: frozenset[str] = frozenset()


_CHANGING = frozenset({"create", "write", "fsync", "utime", "rename", "link", "unlink", "rmdir", "mkdir"})
# To die after a call is to die before the next one, except in the middle of a write.
DEATHS = {"killed": Fault(KILL_BEFORE), "killed in a write": Fault(KILL_AFTER, 0, frozenset({"write"}))}
DISK_FULL = {"disk full": Fault(REFUSE, errno.ENOSPC, _CHANGING - {"unlink", "rmdir", "utime"} | {"close"})}
REFUSALS = DISK_FULL | {"input/output error": Fault(REFUSE, errno.EIO)}
LOST_REPLIES = {"reply lost": Fault(LOSE_REPLY, errno.EIO, _CHANGING)}
FAULTS = DEATHS | REFUSALS | LOST_REPLIES


@dataclass(frozen=True)
class Outcome:
    """How the child ended. `calls` are (name, path, second path) in order."""

    killed: bool
    result: Any
    error: list[str]
    problem: str
    remedy: str
    calls: list[tuple[str, str, str]] = field(repr=False)

    @property
    def last_call(self) -> tuple[str, str, str]:
        return self.calls[-1]


class FaultServer:
    def __init__(self, shim: Path) -> None:
        environment = {**os.environ, "LD_PRELOAD": str(shim), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "store_fork_server.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**environment, "PYTHONPATH": f"{HERE.parent.parent}:{HERE}"},
        )

    def run(self, operation: str, root: Path, mode: int = COUNT, target: int = 0, failure: int = 0) -> Outcome:
        """Run the operation in a child whose call number `target` under `root` goes wrong."""
        job = {"operation": operation, "root": str(root), "mode": mode, "target": target, "failure": failure}
        assert self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps(job), file=self._process.stdin, flush=True)
        told = json.loads(self._process.stdout.readline())
        calls = [tuple(line.split("\t")) for line in told["trace"].splitlines()]
        return Outcome(
            told["killed"],
            told.get("result"),
            told.get("error", []),
            told.get("problem", ""),
            told.get("remedy", ""),
            calls,  # type: ignore[arg-type]
        )

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)


@functools.cache
def server() -> FaultServer:
    """The one server of this test session. Skips where no C compiler is, but never in CI."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None and not os.environ.get("CI"):
        pytest.skip("no C compiler: the fault-injecting shim cannot be built")
    assert compiler is not None, "CI needs a C compiler for the fault-injecting shim"
    folder = Path(tempfile.mkdtemp(prefix="grhpc-shim-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    shim = folder / "shim.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", shim, HERE / "shim.c", "-ldl"], check=True)
    started = FaultServer(shim)
    atexit.register(started.stop)
    return started


def at_every_call(
    operation: str, prepare: Callable[[Path], None], folder: Path, fault: Fault
) -> Iterator[tuple[str, Path, Outcome]]:
    """Run `operation` once for each of its system calls, that one going wrong, each time on a fresh prepared folder.

    Yields (a description of the call, the folder, the outcome). Which call is the n-th may differ a little from run to
    run (threads), so the end is the run in which no call was left to spoil.
    """
    template = folder / "template"
    template.mkdir(parents=True)
    prepare(template)
    _copy(template, folder / "trial")
    names = [name for name, _, _ in server().run(operation, folder / "trial").calls]
    assert len(names) > 2, "the operation made no system calls: the shim is not loaded"
    for target, name in enumerate(names, 1):
        if fault.calls and name not in fault.calls:
            continue
        root = folder / f"call{target}"
        _copy(template, root)
        outcome = server().run(operation, root, fault.mode, target, fault.failure)
        what = " ".join(outcome.calls[target - 1]) if len(outcome.calls) >= target else "none"
        yield f"call {target}: {what.replace(str(root), '')}", root, outcome
        shutil.rmtree(root)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: thousands of fsyncs would otherwise wait for a disk."""
    memory = Path("/dev/shm")
    if not (memory.is_dir() and os.access(memory, os.W_OK)):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="grhpc-store-", dir=memory) as made:
        yield Path(made)


def _copy(source: Path, target: Path) -> None:
    """Copy a small tree with its times: a lease's age is part of the state."""
    shutil.copytree(source, target, copy_function=shutil.copy2, symlinks=True)
