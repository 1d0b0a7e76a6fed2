"""A judge that breaks in the middle of a run, in every way we know: no reward ever comes of it, status says so, and the
run goes on when it is back."""

import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from until_empty import UntilEmpty
from verify_rows import Host, make_run, rollout, yes

from grhpc.engine.host import STALLED
from grhpc.errors import EngineError, Unavailable
from grhpc.judge.engine_judge import EngineJudge
from grhpc.judge.generative import GenerativeDecider
from grhpc.lifetime import Lifetime
from grhpc.records import DECISIONS
from grhpc.report.status import lines, status
from grhpc.store import serving
from grhpc.store.atomic import list_names
from grhpc.store.serving import serve
from grhpc.verify.worker import VerifyWorker

HERE = Path(__file__).parent
NUM_SHARDS, SIZE = 4, 8


def dies(prompt: str, attempt: int) -> str:
    raise EngineError("vLLM failed while generating: EngineDeadError")


def crashes(prompt: str, attempt: int) -> str:
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


def is_away(prompt: str, attempt: int) -> str:
    raise Unavailable("the endpoint cannot be reached")


FAULTS = {
    "dies": (dies, "EngineDeadError"),
    "crashes": (crashes, "illegal memory access"),
    "is away": (is_away, "cannot be reached"),
    "says nothing": (lambda prompt, attempt: "", "decided none of 8"),
    "writes rubbish": (lambda prompt, attempt: "the the the \ufffd Final", "decided none of 8"),
    "decides too early": (lambda prompt, attempt: "Final Decision: Yes. But then", "decided none of 8"),
    "never ends": (lambda prompt, attempt: "Final Decision: Yes~", "decided none of 8"),
}


class Breaking:
    """Answers well, then as told from question `begins` on until it has been asked `broken` times, then well again."""

    def __init__(self, fault, begins: int, broken: int) -> None:
        self.fault, self.begins, self.ends = fault, begins, begins + broken
        self.count = 0

    def __call__(self, prompt: str, attempt: int) -> str:
        self.count += 1
        return self.fault(prompt, attempt) if self.begins < self.count <= self.ends else yes(prompt, attempt)


def put_rollouts(run) -> None:
    """Shards of one group each, every answer another one, so that nothing is reused."""
    for group in range(NUM_SHARDS):
        rows = [rollout(group, k, response=f"\\boxed{{{100 * group + k}}}") for k in range(SIZE)]
        run.queue("rollouts").put(f"g{group:08d}-0001", rows)


def serve_with(run, tokenizer, answer) -> None:
    config, events, life = run.config(), run.events("verify", "7_1"), Lifetime(job="7_1")
    decider = GenerativeDecider(
        EngineJudge(Host(tokenizer, answer), tokenizer, config.verifier, 0, "m"), config.verifier
    )
    worker = VerifyWorker(run, config, life, events, decider)
    run.clear_stop()
    serve(run, "rollouts", UntilEmpty(run, "rollouts", worker), life, events)


def delivered(run) -> dict[int, list]:
    """The verdicts of every shard that was delivered, by group."""
    found = {}
    while lease := run.queue("verdicts").claim("reader"):
        found[lease.rows[0].group] = lease.rows
    return found


def failures_told(run) -> str:
    return "\n".join(line for line in lines(status(run)) if line.startswith("failed:"))


@pytest.mark.parametrize("fault", FAULTS)
def test_the_run_goes_on_when_the_judge_is_back(tmp_path, tokenizer, tokenizer_dir, fault):
    """The second shard meets the fault once or twice, which may cost attempts, but no verdict."""
    breaks, problem = FAULTS[fault]
    run = make_run(tmp_path, tokenizer_dir, room=SIZE, max_attempts=5, idle_s=60.0)
    put_rollouts(run)
    broken = 1 if fault in ("dies", "crashes", "is away") else 2 * SIZE
    serve_with(run, tokenizer, Breaking(breaks, SIZE, broken))
    rows = delivered(run)
    assert sorted(rows) == list(range(NUM_SHARDS))
    assert all(row.decision == "yes" and row.reward >= 0.5 for group in rows.values() for row in group)
    assert all("The same." in row.reason for group in rows.values() for row in group)
    assert problem in failures_told(run)


class Clock:
    """Stands for the module `time` where tasks are served: `late_s` later than it is."""

    def __init__(self) -> None:
        self.late_s, self.sleep, self.monotonic = 0.0, time.sleep, time.monotonic

    def time(self) -> float:
        return time.time() + self.late_s


@pytest.mark.parametrize("fault", ["dies", "crashes", "is away", "says nothing"])
def test_a_task_that_failed_for_longer_than_it_may_be_idle_tries_again(
    tmp_path, tokenizer, tokenizer_dir, monkeypatch, fault
):
    clock, broken = Clock(), 2 * SIZE if fault == "says nothing" else 1
    monkeypatch.setattr(serving, "time", clock)

    def after_an_hour(prompt: str, attempt: int) -> str:
        clock.late_s += 3600
        return FAULTS[fault][0](prompt, attempt)

    run = make_run(tmp_path, tokenizer_dir, room=SIZE, max_attempts=5, idle_s=1000.0)
    put_rollouts(run)
    serve_with(run, tokenizer, Breaking(after_an_hour, SIZE, broken))
    assert sorted(delivered(run)) == list(range(NUM_SHARDS))


@pytest.mark.parametrize("fault", [name for name in FAULTS if name != "is away"])
def test_no_reward_comes_of_a_judge_that_does_not_come_back(tmp_path, tokenizer, tokenizer_dir, fault):
    breaks, problem = FAULTS[fault]
    run = make_run(tmp_path, tokenizer_dir, room=SIZE, max_attempts=2, idle_s=60.0)
    put_rollouts(run)
    with pytest.raises((EngineError, RuntimeError)):
        serve_with(run, tokenizer, Breaking(breaks, SIZE, 10**9))
    rows = delivered(run)
    assert len(rows) == 1  # of the time before it broke
    counts = run.queue("rollouts").counts()
    assert counts["ready"] + counts["failed"] == NUM_SHARDS - 1 and counts["leased"] == 0
    assert problem in failures_told(run)


@pytest.mark.parametrize("fault", ["says nothing", "writes rubbish", "decides too early", "never ends"])
def test_rubbish_for_a_few_answers_is_no_number_for_them(tmp_path, tokenizer, tokenizer_dir, fault):
    """Too few to call the judge broken: those groups are dropped, and status counts them."""
    run = make_run(tmp_path, tokenizer_dir, room=SIZE, idle_s=60.0)
    put_rollouts(run)
    breaks = FAULTS[fault][0]
    serve_with(run, tokenizer, lambda p, attempt: breaks(p, attempt) if "Student: 103" in p else yes(p, attempt))
    rows = [row for group in delivered(run).values() for row in group]
    assert len(rows) == NUM_SHARDS * SIZE
    undecided = [row for row in rows if row.extracted == "103"]
    assert all(row.decision == "no_verdict" and math.isnan(row.reward) for row in undecided) and undecided
    assert all(row.decision == "yes" for row in rows if row not in undecided)
    assert {row.decision for row in rows} <= set(DECISIONS)


def test_a_judge_that_hangs_ends_its_process_and_the_next_one_goes_on(tmp_path, tokenizer, tokenizer_dir):
    run = make_run(tmp_path, tokenizer_dir, room=SIZE, max_attempts=5, idle_s=60.0)
    put_rollouts(run)
    words = [sys.executable, str(HERE / "hanging_judge.py"), str(run.path), str(2 * SIZE)]
    paths = os.pathsep.join([str(HERE.parents[1]), str(HERE.parent), str(HERE)])
    done = subprocess.run(words, env=os.environ | {"PYTHONPATH": paths}, timeout=300)
    assert done.returncode == STALLED
    assert run.queue("rollouts").counts() == {"ready": 2, "leased": 0, "failed": 0}
    assert list_names(run.decisions_dir) == os.listdir(run.decisions_dir), "what it was asking is free for others"
    assert "the judge made no progress for 3 s" in failures_told(run)
    serve_with(run, tokenizer, yes)
    rows = delivered(run)
    assert sorted(rows) == list(range(NUM_SHARDS))
    assert all(row.reward >= 0.5 for group in rows.values() for row in group)
