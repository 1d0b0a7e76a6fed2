"""A verify task: rollouts -> verdicts.

Consumes shards of rollouts; produces a shard of verdicts of the same name; waits for rollouts, which the rollout tasks
unblock. Everything about a verdict stands in its row: the extracted answer, who decided, in which words, the lengths.

Does not know: weights, steps. Invariant: a failed engine fails the shard, which is judged again elsewhere; no rollout
ever gets a reward from a judge that did not decide.
"""

import contextlib
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from grhpc.answer.extract import extract_answer
from grhpc.config import Config
from grhpc.engine.tokenizer import load_tokenizer, num_tokens
from grhpc.judge.decide import Decided, Decider, Decision, Pair
from grhpc.judge.generative import LAYER as GENERATIVE
from grhpc.judge.make import judge_room, make_decider
from grhpc.lifetime import Lifetime
from grhpc.records import DECISIONS, NO_ANSWER, NO_VERDICT, Rollout, Verdict
from grhpc.store.decisions import DecisionLog
from grhpc.store.events import EventLog
from grhpc.store.hand import More, nothing
from grhpc.store.queue import Lease
from grhpc.store.rundir import RunDir
from grhpc.store.serving import CutShort, serve
from grhpc.verify.reward import reward


def main(run_dir: Path, life: Lifetime) -> None:
    """Judge the shards of the run at `run_dir` until it ends, or this process's life does."""
    run = RunDir.open(run_dir)
    config = run.config()
    events = run.events("verify", life.job)
    events.emit("start", mode=config.verify.mode, restart=life.restart)
    with contextlib.closing(VerifyWorker(run, config, life, events)) as worker:
        serve(run, "rollouts", worker, life, events)


class VerifyWorker:
    """Turns one shard after the other into verdicts. `decider` is made from the config unless one is given."""

    def __init__(
        self, run: RunDir, config: Config, life: Lifetime, events: EventLog, decider: Decider | None = None
    ) -> None:
        self._verdicts = run.queue("verdicts")
        self._life, self._events = life, events
        self._tokenizer = load_tokenizer(config.counted_by)
        self._leases: list[Lease[Rollout]] = []
        self._room = judge_room(config)
        memory = DecisionLog.of_run(run, life.job, events)
        self._decider = decider or make_decider(config, self._tokenizer, self._stalled, memory, confidence=False)
        self._so_far = Counter[str]()
        self._ready = False
        self._idle_since_s = time.monotonic()

    def prepare(self) -> None:
        """Start the judge if there is to be one and it does not run: not only when the first shard is here."""
        if self._ready and self._decider.running:
            return
        begun_s = time.monotonic()
        self._decider.start()
        self._ready = True
        self._events.emit("ready", seconds=time.monotonic() - begun_s)
        self._idle_since_s = time.monotonic()

    def work(self, lease: Lease[Rollout], more: More = nothing) -> None:
        """Judge the shard, and beside it further ones that are ready while the judge has room; deliver the verdicts of
        each, end its lease. Raises CutShort on a drain, EngineError and others."""
        begun_s = time.monotonic()
        wait_s = begun_s - self._idle_since_s
        self._leases = [lease]
        pairs = [_pairs(lease)]
        while len(distinct := _distinct(pairs)) < self._room and (further := more()) is not None:
            self._leases.append(further)
            pairs.append(_pairs(further))
        decided = self._decider.decide(distinct, self._should_stop, "+".join(lease.name for lease in self._leases))
        if decided is None:
            raise CutShort(self._life.drain_reason or "the lease was lost")
        seen = dict.fromkeys(decided.reused, f"{self._life.job} {lease.name}")
        judged = []
        for held, of_it in zip(self._leases, pairs, strict=True):
            verdicts = self._verdicts_of(held.name, held.rows, of_it, decided, seen)
            self._verdicts.put(held.name, verdicts)
            held.done()
            judged.append((held.name, verdicts))
        self._leases, self._idle_since_s = [], time.monotonic()
        for problem in decided.problems:
            self._events.emit("error", problem=problem)
        self._tell(judged, decided, wait_s, self._idle_since_s - begun_s)

    def close(self) -> None:
        self._decider.close()

    def _should_stop(self) -> bool:
        """Shards that were taken from us are judged on beside the others: to stop would cost theirs."""
        return self._life.draining or (bool(self._leases) and all(lease.lost for lease in self._leases))

    def _verdicts_of(
        self, shard: str, rows: list[Rollout], pairs: list[Pair | None], decided: Decided, seen: dict[Pair, str]
    ) -> list[Verdict]:
        """`seen` has the pairs before these, each with whose verdict it was where that is not in the decision."""
        texts = list({text for pair in pairs if pair is not None for text in (pair.answer, pair.reference)})
        tokens = dict(zip(texts, num_tokens(self._tokenizer, texts), strict=True))
        verdicts = []
        for row, pair in zip(rows, pairs, strict=True):
            if pair is None:
                verdicts.append(_verdict(row, None, Decision(NO_ANSWER, "extract", "no answer found")))
                continue
            lengths = tokens[pair.answer], tokens[pair.reference]
            reused, decision = pair in seen, decided.decisions[pair]
            by = (decision.by or seen[pair]) if reused else ""
            verdicts.append(_verdict(row, pair.answer, replace(decision, by=by), *lengths, reused))
            seen.setdefault(pair, f"{self._life.job} {shard}")
        return verdicts

    def _tell(self, shards: list[tuple[str, list[Verdict]]], decided: Decided, wait_s: float, seconds: float) -> None:
        """One event a shard. What was counted for all of them together stands in the first."""
        told = [decision for decision in decided.decisions.values() if decision.audit]
        audits = [decision for decision in told if decision.audit != NO_VERDICT]
        together: dict[str, Any] = {
            "asked": decided.asked,
            "asked_to_audit": decided.asked_to_audit,
            "audited": len(audits),
            "audit_differs": sum(decision.audit != decision.decision for decision in audits),
            "audit_no_verdict": len(told) - len(audits),
        }
        for shard, verdicts in shards:
            counts = Counter(verdict.decision for verdict in verdicts)
            judging = {
                "rollouts": len(verdicts),
                "judged": sum(v.layer == GENERATIVE and _pair(v, v.extracted) not in decided.refused for v in verdicts),
                **together,
            }
            self._so_far.update(judging)
            self._events.emit(
                "shard",
                shard=shard,
                groups=len({verdict.group for verdict in verdicts}),
                **judging,
                reused=sum(verdict.reused for verdict in verdicts),
                decisions={decision: counts[decision] for decision in DECISIONS},
                layers=dict(Counter(verdict.layer for verdict in verdicts)),
                seconds=seconds / len(shards),
                held_s=seconds,
                wait_s=wait_s,
                kind=verdicts[0].kind if verdicts else "",
                so_far={**self._so_far, "asked_twice": decided.asked_twice, **decided.usage},
            )
            together, wait_s = dict.fromkeys(together, 0), 0.0

    def _stalled(self, seconds: float) -> None:
        problem = f"the judge made no progress for {seconds:.0f} s"
        for lease in self._leases:
            if not lease.ended:
                lease.fail(problem)
        self._events.emit("error", problem=problem)


def _pairs(lease: Lease[Rollout]) -> list[Pair | None]:
    return [_pair(row, extract_answer(row.response)) for row in lease.rows]


def _distinct(shards: list[list[Pair | None]]) -> list[Pair]:
    return list(dict.fromkeys(pair for pairs in shards for pair in pairs if pair is not None))


def _pair(row: Rollout, extracted: str | None) -> Pair | None:
    return None if extracted is None else Pair(row.question, row.answer, extracted)


def _verdict(
    row: Rollout,
    extracted: str | None,
    decision: Decision,
    answer_tokens: int = 0,
    reference_tokens: int = 0,
    reused: bool = False,
) -> Verdict:
    fields: dict[str, Any] = dict(vars(row))
    return Verdict(
        **fields,
        extracted=extracted,
        decision=decision.decision,
        layer=decision.layer,
        reason=decision.reason,
        answer_tokens=answer_tokens,
        reference_tokens=reference_tokens,
        reward=reward(decision.decision, answer_tokens, reference_tokens),
        reused=reused,
        judged_by=decision.by,
        audit=decision.audit,
    )
