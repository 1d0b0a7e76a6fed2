"""One engine kept running, with engines that fail on command."""

import subprocess
import sys
import threading
import time

import psutil
import pytest

from grhpc.engine import watchdog
from grhpc.engine.host import STALLED, EngineHost
from grhpc.engine.watchdog import Watchdog
from grhpc.errors import EngineError

LIMIT_S = 300.0  # for a process that imports an engine on a busy machine


class Engine:
    """Generates nothing; fails where told to, as VllmEngine does: it closes itself, unless it only refuses."""

    def __init__(self, fails: bool) -> None:
        self.fails, self.closed = fails, False

    def generate(self, requests, should_stop):
        if requests:
            raise EngineError("request 0 is too long")
        self._work()
        return None if should_stop() else []

    def load_weights(self, folder):
        self._work()

    def _work(self):
        if self.fails:
            self.close()
            raise EngineError("it broke")

    def close(self):
        self.closed = True


def host_of(*engines: Engine) -> EngineHost:
    waiting = list(engines)
    return EngineHost(lambda: waiting.pop(0), 60.0, lambda seconds: None)


def test_an_engine_is_started_once_and_asked_whether_to_stop():
    only = Engine(fails=False)
    host = host_of(only)
    assert host.generate([], lambda: False) == []
    assert host.generate([], lambda: True) is None
    assert host.engine is only


def test_an_engine_that_refused_a_request_is_kept():
    only = Engine(fails=False)
    host = host_of(only)
    with pytest.raises(EngineError, match="too long"):
        host.generate(["a long one"], lambda: False)
    assert host.engine is only and not only.closed


@pytest.mark.parametrize("fail", [lambda h: h.generate([], lambda: False), lambda h: h.load_weights(None)])
def test_a_failed_engine_is_closed_and_replaced(fail):
    first, second = Engine(fails=True), Engine(fails=False)
    host = host_of(first, second)
    with pytest.raises(EngineError):
        fail(host)
    assert first.closed
    assert host.engine is second


def test_a_host_that_is_closed_starts_again_when_needed():
    first, second = Engine(fails=False), Engine(fails=False)
    host = host_of(first, second)
    assert host.engine is first
    host.close()
    assert first.closed
    assert host.engine is second


class Clock:
    """Stands for the module `time`: its time passes when the test says so."""

    def __init__(self) -> None:
        self.now_s, self.moved = 0.0, threading.Condition()

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        with self.moved:
            until_s = self.now_s + seconds
            self.moved.wait_for(lambda: self.now_s >= until_s)

    def advance(self, seconds: float) -> None:
        with self.moved:
            self.now_s += seconds
            self.moved.notify_all()
        time.sleep(0.001)  # the watching thread may look now, and must not need to


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(watchdog, "time", clock)
    return clock


def test_the_watchdog_acts_only_when_progress_stops(clock):
    stalled = threading.Event()
    dog = Watchdog(10.0, stalled.set)
    with dog.watching():
        for _ in range(50):
            clock.advance(9.0)
            assert not stalled.is_set()
            dog.beat()
        while not stalled.is_set():
            clock.advance(1.0)


def test_the_watchdog_is_quiet_outside_of_watching(clock):
    stalled = threading.Event()
    dog = Watchdog(10.0, stalled.set)
    with dog.watching():
        pass
    while dog._is_here:
        clock.advance(5.0)
    with dog.watching():
        clock.advance(9.0)
        assert not stalled.is_set()


def test_a_hung_engine_ends_the_process_after_it_was_told():
    script = """
import sys, time
from grhpc.engine.host import EngineHost

class Hung:
    def generate(self, requests, should_stop):
        time.sleep(600)

EngineHost(Hung, 0.2, lambda seconds: print("stalled", seconds, flush=True)).generate([], lambda: False)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == STALLED, done.stderr
    assert done.stdout == "stalled 0.2\n"


def test_a_hung_engine_leaves_no_process_behind():
    """Neither its own nor, where it is over several GPUs, those of its workers."""
    script = """
import multiprocessing, subprocess, time
from grhpc.engine.host import EngineHost

fork = multiprocessing.get_context("fork")
begun = fork.Event()

def engine():
    print(subprocess.Popen(["sleep", "600"]).pid, flush=True)
    begun.set()
    time.sleep(600)

class Hung:
    def __init__(self):
        child = fork.Process(target=engine)
        child.start()
        begun.wait()
        print(child.pid, flush=True)

    def generate(self, requests, should_stop):
        time.sleep(600)

EngineHost(Hung, 0.2, lambda seconds: None).generate([], lambda: False)
"""
    # They hold the pipe: without their end the output has none either.
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == STALLED, done.stderr
    give_up_s = time.monotonic() + LIMIT_S
    while any(is_alive(int(line)) for line in done.stdout.split()):  # the pipes are closed before they have ended
        assert time.monotonic() < give_up_s
        time.sleep(0.01)


def is_alive(process_id: int) -> bool:
    try:
        return psutil.Process(process_id).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
