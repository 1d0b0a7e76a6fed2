"""One engine kept running, with engines that fail on command."""

import subprocess
import sys
import threading

import psutil
import pytest

from grhpc.engine.host import STALLED, EngineHost
from grhpc.engine.watchdog import Watchdog
from grhpc.errors import EngineError


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


def test_the_watchdog_acts_only_when_progress_stops():
    stalled = threading.Event()
    dog = Watchdog(0.4, stalled.set)
    with dog.watching():
        for _ in range(20):
            assert not stalled.wait(0.05)
            dog.beat()
        assert stalled.wait(20)


def test_the_watchdog_is_quiet_outside_of_watching():
    stalled = threading.Event()
    dog = Watchdog(0.05, stalled.set)
    with dog.watching():
        pass
    assert not stalled.wait(0.3)


def test_a_hung_engine_ends_the_process_after_it_was_told():
    script = """
import sys, time
from grhpc.engine.host import EngineHost

class Hung:
    def generate(self, requests, should_stop):
        time.sleep(600)

EngineHost(Hung, 0.2, lambda seconds: print("stalled", seconds, flush=True)).generate([], lambda: False)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == STALLED, done.stderr
    assert done.stdout == "stalled 0.2\n"


def test_a_hung_engine_leaves_no_child_behind():
    script = """
import multiprocessing, time
from grhpc.engine.host import EngineHost

class Hung:
    def __init__(self):
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
        child.start()
        print(child.pid, flush=True)

    def generate(self, requests, should_stop):
        time.sleep(600)

EngineHost(Hung, 0.2, lambda seconds: None).generate([], lambda: False)
"""
    # The child holds the pipe: without its end the output has none either.
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == STALLED, done.stderr
    assert not psutil.pid_exists(int(done.stdout)) or psutil.Process(int(done.stdout)).status() == "zombie"
