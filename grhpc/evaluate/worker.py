"""An evaluation's task: questions -> samples -> scores, and at the end the results.

Consumes shards of questions, each with one call of the model that is measured, and then shards of samples, each with
one call of the judge; produces a shard of the same name in the next queue. When all have their scores, whoever holds
the one shard of the last queue writes the results. Waits for shards that others hold, which come back if those die. Two
engines never run in one process: a task samples while there are questions, then it grades, and turns back to what a
dead task gave back when nothing is left to grade.

Does not know: benchmarks' rules, SLURM. Invariant: what a shard becomes depends on its rows and the configuration
alone, so whichever task does it, and however often, the same bytes come out; the results are written only when every
shard has its scores.
"""

import contextlib
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from grhpc.engine.tokenizer import load_tokenizer
from grhpc.errors import GaveUp
from grhpc.eval_config import EvalConfig
from grhpc.evaluate.benchmarks import load_benchmarks
from grhpc.evaluate.grading import grade_samples
from grhpc.evaluate.measured import Measured
from grhpc.evaluate.results import write_results
from grhpc.evaluate.sampling import EndpointSampler, EngineSampler, Sampler
from grhpc.judge.decide import Decided, Decider
from grhpc.judge.generative import Memory, NoMemory
from grhpc.judge.make import make_decider
from grhpc.lifetime import Lifetime
from grhpc.records import NO_VERDICT, Sample, Score
from grhpc.store.decisions import DecisionLog
from grhpc.store.events import EventLog
from grhpc.store.hand import More, nothing
from grhpc.store.questions import Extent, QuestionShard
from grhpc.store.queue import Lease
from grhpc.store.rundir import QUEUES, RunDir
from grhpc.store.serving import CutShort, serve

QUESTIONS, SAMPLES, SCORES, RESULTS = QUEUES["eval"]


def main(run_dir: Path, life: Lifetime) -> None:
    """Work for the evaluation at `run_dir` until it is finished, or this process's life ends."""
    run = RunDir.open(run_dir)
    config = run.evaluation()
    events = run.events("evaluate", life.job)
    events.emit("start", mode=config.verify.mode, restart=life.restart)
    with contextlib.closing(EvaluateWorker(run, config, life, events)) as worker:
        serve(run, lambda: worker.stage, worker, life, events)


class EvaluateWorker:
    """Turns one shard after the other of either queue into a shard of the next. `stage` is the queue to claim from."""

    def __init__(self, run: RunDir, config: EvalConfig, life: Lifetime, events: EventLog) -> None:
        self._run, self._config, self._life, self._events = run, config, life, events
        self._queues = {name: run.queue(name) for name in QUEUES["eval"]}
        self._entries, self._extent = load_benchmarks(config), Extent.of(run.about)
        self._measured = Measured(run, config)
        self.sampler = self._make_sampler()
        self.decider = self._make_decider()
        self.stage = QUESTIONS
        self._lease: Lease[Any] | None = None
        self._nothing_since_s: float | None = None
        self._so_far = Counter[str]()
        self._idle_since_s = time.monotonic()

    def prepare(self) -> None:
        """Choose the stage, and start what it needs. Raises EngineError, GaveUp where only failed shards are left."""
        ready = {name: self._queues[name].counts()["ready"] for name in (QUESTIONS, SAMPLES)}
        if not any(ready.values()):
            self._look_for_the_end()
            return
        self._nothing_since_s = None
        if not ready.get(self.stage):
            self.stage = QUESTIONS if ready[QUESTIONS] else SAMPLES
        engine: Sampler | Decider = self.sampler if self.stage == QUESTIONS else self.decider
        if engine.running:
            return
        if self._judge_has_an_engine:
            (self.decider if self.stage == QUESTIONS else self.sampler).close()
        begun_s = time.monotonic()
        engine.start()
        self._events.emit("ready", stage=self.stage, seconds=time.monotonic() - begun_s)
        self._idle_since_s = time.monotonic()

    def work(self, lease: Lease[Any], more: More = nothing) -> None:
        """Take one shard a stage further, alone: its bytes must not depend on what else is in the engine.

        Raises CutShort on a drain, EngineError and others."""
        if isinstance(lease.rows[0], QuestionShard):
            self._finish(lease)
            return
        self._lease, begun_s = lease, time.monotonic()
        wait_s, is_sampled = begun_s - self._idle_since_s, isinstance(lease.rows[0], Sample)
        later = (SCORES,) if is_sampled else (SAMPLES, SCORES)
        if any(lease.name in present for queue in later for present in self._queues[queue].names().values()):
            lease.done()  # a task that was taken for dead had delivered it
            return
        told = self._grade(lease) if is_sampled else self._sample(lease)
        lease.done()
        self._lease, self._idle_since_s = None, time.monotonic()
        seconds = self._idle_since_s - begun_s
        self._events.emit("shard", shard=lease.name, seconds=seconds, wait_s=wait_s, **told)

    def close(self) -> None:
        self.sampler.close()
        self.decider.close()
        self._measured.leave()

    @property
    def _judge_has_an_engine(self) -> bool:
        return self._config.verify.asks_a_model and not self._config.verifier.endpoint.url

    def _sample(self, lease: Lease[Any]) -> dict[str, Any]:
        samples = self.sampler.sample(lease.rows, self._should_stop)
        if samples is None:
            raise CutShort(self._life.drain_reason or "the lease was lost")
        self._queues[SAMPLES].put(lease.name, samples)
        tokens = sum(sample.num_tokens or 0 for sample in samples)
        return {"stage": "sample", "samples": len(samples), "tokens": tokens, "usage": self.sampler.usage()}

    def _grade(self, lease: Lease[Any]) -> dict[str, Any]:
        scorers = {name: entry.scorer for name, entry in self._entries.items()}
        graded = grade_samples(lease.rows, scorers, self.decider, self._should_stop, lease.name)
        if graded is None:
            raise CutShort(self._life.drain_reason or "the lease was lost")
        scores, decided = graded
        self._queues[SCORES].put(lease.name, scores)
        for problem in decided.problems:
            self._events.emit("error", problem=problem)
        return self._told(scores, decided)

    def _told(self, scores: list[Score], decided: Decided) -> dict[str, Any]:
        layers = dict(Counter(score.layer for score in scores))
        found: dict[str, Any] = {"stage": "grade", "samples": len(scores), "layers": layers}
        return found | self._judging(decided) if self._config.verify.asks_a_model else found

    def _judging(self, decided: Decided) -> dict[str, Any]:
        told = [decision for decision in decided.decisions.values() if decision.audit]
        audits = [decision for decision in told if decision.audit != NO_VERDICT]
        judging = {
            "judged": decided.asked + len(decided.reused),
            "asked": decided.asked,
            "asked_to_audit": decided.asked_to_audit,
            "audited": len(audits),
            "audit_differs": sum(decision.audit != decision.decision for decision in audits),
            "audit_no_verdict": len(told) - len(audits),
        }
        self._so_far.update(judging)
        so_far = {**self._so_far, "asked_twice": decided.asked_twice, **decided.usage}
        return {**judging, "so_far": so_far}

    def _look_for_the_end(self) -> None:
        """Nothing is ready: all is scored, or others hold shards, or what is left has failed."""
        counts = {name: self._queues[name].counts() for name in (QUESTIONS, SAMPLES)}
        done = self._queues[SCORES].names()["ready"]
        missing = [shard.name for shard in self._extent.shards() if shard.name not in done]
        if not missing:
            self._queues[RESULTS].put(RESULTS, list(self._extent.shards()))
            self.stage, counts = RESULTS, {RESULTS: self._queues[RESULTS].counts()}
        elif self.stage == RESULTS:
            self.stage = SAMPLES
        for name in counts:
            self._queues[name].reap()
        if any(count["leased"] + count["ready"] for count in counts.values()):
            self._nothing_since_s = None
            return
        now_s = time.monotonic()  # one look alone may have missed a shard on its way
        self._nothing_since_s = self._nothing_since_s or now_s
        if now_s - self._nothing_since_s > self._config.store.poll_max_s:
            self._give_up(
                f"{len(missing)} shards cannot be done" if missing else "the results cannot be written", counts
            )

    def _give_up(self, what: str, queues: Iterable[str]) -> None:
        failed = [shard for name in queues for shard in self._queues[name].failed()]
        why = f", the last because {failed[-1].reason}" if failed else ": they are nowhere"
        raise GaveUp(f"{what}, {len(failed)} failed{why}", "mend that; resume tries them again")

    def _finish(self, lease: Lease[Any]) -> None:
        """Write the results: one task does, and another where that dies."""
        begun_s = time.monotonic()
        try:
            summary = write_results(self._run, self._config)
        except FileNotFoundError as error:  # another took over, or the listing is behind: `serve` looks again
            time.sleep(self._config.store.poll_max_s)
            raise CutShort(str(error)) from None
        self._measured.remove()  # first: nobody comes back to a finished evaluation
        self._run.finish({"samples_sha256": summary["samples_sha256"], "average": summary["average"]["value"]})
        lease.done()
        self._events.emit("finish", samples=self._extent.num_samples, seconds=time.monotonic() - begun_s)

    def _make_sampler(self) -> Sampler:
        if self._config.sample.endpoint.url:
            return EndpointSampler(self._config, self._entries)
        digest = str(self._run.about["weight_digest"])
        return EngineSampler(self._config, self._entries, self._measured.fetch, digest, self._stalled)

    def _make_decider(self) -> Decider:
        config, tokenizer = self._config, None
        memory: Memory = NoMemory()
        if self._judge_has_an_engine:
            config = replace(config, verifier=replace(config.verifier, model=self._measured.judge()))
        elif config.verify.asks_a_model:  # a server promises no same answer, and wants no question twice
            memory = DecisionLog.of_run(self._run, self._life.job, self._events)
        if config.verify.asks_a_model:
            tokenizer = _lengths(config)
        return make_decider(config, tokenizer, self._stalled, memory, confidence=False)

    def _should_stop(self) -> bool:
        return self._life.draining or (self._lease is not None and self._lease.lost)

    def _stalled(self, seconds: float) -> None:
        problem = f"the engine made no progress for {seconds:.0f} s"
        if self._lease is not None:
            self._lease.fail(problem)
        self._events.emit("error", problem=problem)


def _lengths(config: EvalConfig) -> Any:
    """The judge's tokenizer, which counts the length of a question to it. Where it is not known, a server of which
    nothing else is named judges by its own limit."""
    if config.verifier.model:
        return load_tokenizer(config.verifier.model)
    return lambda texts: {"input_ids": [[] for _ in texts]}
