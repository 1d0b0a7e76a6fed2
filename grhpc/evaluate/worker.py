"""An evaluation's task: questions -> samples -> scores, and at the end the results.

Consumes shards of questions, which the model that is measured answers, and then shards of samples, which the judge
judges; produces a shard of the same name in the next queue. When all have their scores, whoever holds the one shard of
the last queue writes the results. Waits for shards that others hold, which come back if those die. Two engines never
run in one process: a task samples while there are questions, then it grades, and turns back to what a dead task gave
back when nothing is left to grade.

Does not know: benchmarks' rules, SLURM. Invariant: what a shard becomes depends on its rows and the configuration
alone, so whichever task does it, and however often, the same bytes come out (by continuous batching only where the
engine's sums do not depend on the batch); the results are written only when every shard has its scores.
"""

import contextlib
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from grhpc.engine.tokenizer import load_tokenizer
from grhpc.engine.vllm_start import refuse_batch_invariance, require_batch_invariance, schedule_here
from grhpc.errors import GaveUp
from grhpc.eval_config import ALONE, INVARIANT, EvalConfig
from grhpc.evaluate.benchmarks import load_benchmarks
from grhpc.evaluate.endpoint_sampler import EndpointSampler
from grhpc.evaluate.engine_sampler import EngineSampler
from grhpc.evaluate.grading import Looked, left_open, look, scores
from grhpc.evaluate.in_hand import InHand
from grhpc.evaluate.measured import Measured
from grhpc.evaluate.results import write_results
from grhpc.evaluate.sampling import Sampler
from grhpc.judge.decide import Decided, Decider, Decision, Pair
from grhpc.judge.generative import Memory, NoMemory
from grhpc.judge.make import judge_room, make_decider
from grhpc.lifetime import Lifetime
from grhpc.records import NO_VERDICT, Sample
from grhpc.store.decisions import DecisionLog
from grhpc.store.events import EventLog
from grhpc.store.hand import More, nothing
from grhpc.store.questions import Extent, QuestionShard
from grhpc.store.queue import Lease
from grhpc.store.rundir import QUEUES, RunDir
from grhpc.store.serving import CutShort, serve

QUESTIONS, SAMPLES, SCORES, RESULTS = QUEUES["eval"]
_TOGETHER = 4  # shards that the judge is asked about at once: what a killed task repeats, and what stands in memory


def main(run_dir: Path, life: Lifetime) -> None:
    """Work for the evaluation at `run_dir` until it is finished, or this process's life ends."""
    run = RunDir.open(run_dir)
    config = run.evaluation()
    events = run.events("evaluate", life.job)
    events.emit("start", mode=config.verify.mode, restart=life.restart)
    keep_batches(config.batching)
    with contextlib.closing(EvaluateWorker(run, config, life, events)) as worker:
        serve(run, lambda: worker.stage, worker, life, events)


def keep_batches(batching: str) -> None:
    """What this process's engines need for what `batching` promises. Raises ConfigError."""
    if batching == INVARIANT:
        require_batch_invariance()
        return
    refuse_batch_invariance(f"batching is {batching}")
    if batching == ALONE:
        schedule_here()


class EvaluateWorker:
    """Turns shards of either queue into shards of the next. `stage` is the queue to claim from."""

    def __init__(self, run: RunDir, config: EvalConfig, life: Lifetime, events: EventLog) -> None:
        self._run, self._config, self._life, self._events = run, config, life, events
        self._queues = {name: run.queue(name) for name in QUEUES["eval"]}
        self._entries, self._extent = load_benchmarks(config), Extent.of(run.about)
        self._measured = Measured(run, config)
        self.sampler = self._make_sampler()
        self.decider = self._make_decider()
        self.stage = QUESTIONS
        self._scorers = {name: entry.scorer for name, entry in self._entries.items()}
        self._idle_since_s = time.monotonic()
        self._hand = InHand(nothing, self._is_new, self._idle_since_s)
        self._nothing_since_s: float | None = None
        self._so_far = Counter[str]()

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
        """Take the shard a stage further, alone, or as `batching` says with others beside it.

        Raises CutShort on a drain, EngineError and others."""
        if isinstance(lease.rows[0], QuestionShard):
            self._finish(lease)
            return
        more = nothing if self._config.batching == ALONE else more
        self._hand = InHand(more, self._is_new, self._idle_since_s)
        if not self._hand.take(lease):
            return
        if isinstance(lease.rows[0], Sample):
            self._grade()
        else:
            self._sample()
        self._idle_since_s = self._hand.last_s
        if self._hand.open:
            raise CutShort(self._life.drain_reason or "the lease was lost")

    def close(self) -> None:
        self.sampler.close()
        self.decider.close()
        self._measured.leave()

    @property
    def _judge_has_an_engine(self) -> bool:
        return self._config.verify.asks_a_model and not self._config.verifier.endpoint.url

    def _is_new(self, lease: Lease[Any]) -> bool:
        """Whether the shard is still to be done; a task that was taken for dead may have delivered it."""
        later = (SCORES,) if isinstance(lease.rows[0], Sample) else (SAMPLES, SCORES)
        return not any(lease.name in names for queue in later for names in self._queues[queue].names().values())

    def _sample(self) -> None:
        hand = self._hand

        def further() -> Sequence[Any] | None:
            number = hand.further()
            return None if number is None else hand.shards[number].rows

        with contextlib.closing(self.sampler.stream(hand.shards[0].rows, further, self._should_stop)) as answers:
            for number, samples in answers:
                self._queues[SAMPLES].put(hand.shards[number].name, samples)
                tokens = sum(sample.num_tokens or 0 for sample in samples)
                told = {"stage": "sample", "samples": len(samples), "tokens": tokens, "usage": self.sampler.usage()}
                self._events.emit("shard", **hand.end(number), **told)

    def _grade(self) -> None:
        hand, room, to_judge = self._hand, judge_room(self._config), dict[int, Looked]()
        number: int | None = 0
        while number is not None:
            if (looked := look(hand.shards[number].rows, self._scorers, self._should_stop)) is None:
                return
            if any(looked.pairs):
                to_judge[number] = looked
            else:
                self._score(number, looked, {})
            has_room = len(to_judge) < _TOGETHER and len(left_open(to_judge.values())) < room
            number = hand.further() if has_room else None
        if to_judge:
            self._judge(to_judge)

    def _judge(self, shards: dict[int, Looked]) -> None:
        names = "+".join(self._hand.shards[number].name for number in shards)
        decided = self.decider.decide(left_open(shards.values()), self._should_stop, names)
        if decided is None:
            return
        judging = self._judging(decided) if self._config.verify.asks_a_model else {}
        for number, looked in shards.items():
            self._score(number, looked, decided.decisions, **judging)
            judging = {}  # of all of them, so it is told once
        for problem in decided.problems:
            self._events.emit("error", problem=problem)

    def _score(self, number: int, looked: Looked, decisions: Mapping[Pair, Decision], **judging: Any) -> None:
        graded = scores(looked, decisions)
        self._queues[SCORES].put(self._hand.shards[number].name, graded)
        told = {"stage": "grade", "samples": len(graded), "layers": dict(Counter(score.layer for score in graded))}
        self._events.emit("shard", **self._hand.end(number), **told, **judging)

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
        """Shards that were taken from us are done beside the others: to stop would cost theirs."""
        held = self._hand.open
        return self._life.draining or (bool(held) and all(lease.lost for lease in held))

    def _stalled(self, seconds: float) -> None:
        problem = f"the engine made no progress for {seconds:.0f} s"
        for lease in self._hand.open:
            lease.fail(problem)
        self._events.emit("error", problem=problem)


def _lengths(config: EvalConfig) -> Any:
    """The judge's tokenizer, which counts the length of a question to it. Where it is not known, a server of which
    nothing else is named judges by its own limit."""
    if config.verifier.model:
        return load_tokenizer(config.verifier.model)
    return lambda texts: {"input_ids": [[] for _ in texts]}
