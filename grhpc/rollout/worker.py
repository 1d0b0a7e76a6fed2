"""A rollout task: prompts -> rollouts.

Consumes shards of admitted prompts; produces a shard of rollouts of the same name; waits for prompts and for weights,
both of which the trainer unblocks. Shards follow one another through the engine without a gap: the last, long responses
of one are sampled beside the next. Where newer weights were published, what is in hand is finished, and they are
loaded in place.

Does not know: answers, rewards, losses. Invariant: all rollouts of a shard come from one weight version, which is not
older than the version that any of its prompts was admitted at.
"""

import contextlib
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from grhpc.config import Config
from grhpc.engine.host import EngineHost, engine_starter
from grhpc.engine.vllm import Completion, Request, VllmEngine, context_tokens
from grhpc.errors import ConfigError, Pruned, WaitTimeout
from grhpc.lifetime import Lifetime
from grhpc.records import HELDOUT, GroupPrompt, Rollout
from grhpc.store.events import EventLog
from grhpc.store.hand import More, nothing
from grhpc.store.local_copy import node_dir
from grhpc.store.polling import Backoff
from grhpc.store.queue import Lease
from grhpc.store.rundir import RunDir
from grhpc.store.serving import CutShort, serve
from grhpc.store.weights import WeightRef

WEIGHTS_WAIT_S = 600.0  # they were published before the prompts were admitted: only the filesystem may still hide them


def main(run_dir: Path, life: Lifetime) -> None:
    """Sample for the run at `run_dir` until it ends, or this process's life does."""
    run = RunDir.open(run_dir)
    config = run.config()
    events = run.events("rollout", life.job)
    events.emit("start", restart=life.restart)
    with contextlib.closing(RolloutWorker(run, config, life, events)) as worker:
        serve(run, "prompts", worker, life, events)


class _Shard:
    """A shard in the engine."""

    def __init__(self, lease: Lease[GroupPrompt]) -> None:
        self.lease, self.begun_s = lease, 0.0
        self.requests: list[Request] = []


@dataclass(frozen=True)
class _Since:
    """The last delivery or, before the first, the begin of sampling, with what went before it."""

    last_s: float
    load_s: float = 0.0
    wait_s: float = 0.0


class RolloutWorker:
    """Turns shards of prompts into rollouts, as many side by side as the engine has room for."""

    def __init__(self, run: RunDir, config: Config, life: Lifetime, events: EventLog) -> None:
        self._run, self._config, self._life, self._events = run, config, life, events
        self._rollouts = run.queue("rollouts")
        self._host = EngineHost(_starter(config), config.rollout.engine.stall_s, self._stalled)
        self._loaded: tuple[VllmEngine, WeightRef] | None = None
        self._shards: list[_Shard] = []
        self._since = _Since(0.0)
        self._local_dir = node_dir(config.store.local_dir)
        self._idle_since_s = time.monotonic()

    def prepare(self) -> None:
        """Start the engine if it does not run: the first time while the trainer may not even have begun."""
        if self._host.running:
            return
        begun_s = time.monotonic()
        _ = self._host.engine
        self._events.emit("ready", seconds=time.monotonic() - begun_s)
        self._idle_since_s = time.monotonic()

    def work(self, lease: Lease[GroupPrompt], more: More = nothing) -> None:
        """Sample the shard, and further ones beside it while the engine has room and its weights are theirs too;
        deliver the rollouts of each as soon as its last one is done, and end its lease.

        Raises CutShort on a drain, WaitTimeout where the weights do not come, EngineError and others.
        """
        self._shards = [_Shard(lease)]
        self._wait_for_weights(max(row.admitted_version for row in lease.rows))
        load_s = self._load(lease.rows[0])
        self._since = _Since(time.monotonic(), load_s, time.monotonic() - load_s - self._idle_since_s)
        try:
            in_hand = {self._begin(self._shards[0]): self._shards[0]}
            while in_hand:
                if self._should_stop():
                    raise CutShort(self._life.drain_reason or "a lease was lost")
                if self._host.has_room and (further := more(self._fits)) is not None:
                    self._shards.append(_Shard(further))
                    in_hand[self._begin(self._shards[-1])] = self._shards[-1]
                for number, groups in self._host.step().items():
                    self._deliver(in_hand.pop(number), groups)
        finally:
            self._host.abort()

    def close(self) -> None:
        self._host.close()
        self._run.weights.leave()

    def _begin(self, shard: "_Shard") -> int:
        shard.begun_s = time.monotonic()
        shard.requests = [_request(row, self._config) for row in shard.lease.rows]
        return self._host.add(shard.requests)

    def _deliver(self, shard: "_Shard", groups: list[list[Completion]]) -> None:
        assert self._loaded is not None
        lease, version = shard.lease, self._loaded[1].version
        rollouts = [
            _rollout(row, k, completion, version, request)
            for row, request, group in zip(lease.rows, shard.requests, groups, strict=True)
            for k, completion in enumerate(group)
        ]
        self._rollouts.put(lease.name, rollouts)
        lease.done()
        self._shards.remove(shard)
        ended_s, since = time.monotonic(), self._since
        self._events.emit(
            "shard",
            shard=lease.name,
            groups=len(groups),
            rollouts=len(rollouts),
            tokens=sum(len(rollout.response_ids) for rollout in rollouts),
            seconds=ended_s - since.last_s,  # of shards that overlap each second counts once
            held_s=ended_s - shard.begun_s,
            weight_version=version,
            load_s=since.load_s,
            wait_s=since.wait_s,
            kind=lease.rows[0].kind,
        )
        self._since, self._idle_since_s = _Since(ended_s), ended_s

    def _fits(self, lease: Lease[GroupPrompt]) -> bool:
        """Whether the shard would be sampled with the weights in use if it came alone."""
        assert self._loaded is not None
        loaded, newest = self._loaded[1], self._run.weights.newest()
        # A listing may be behind: what it calls the newest may be older than the prompts.
        return all(
            row.admitted_version <= loaded.version and (self._measured(row) or newest) == loaded for row in lease.rows
        )

    def _should_stop(self) -> bool:
        """A shard that was taken from us is sampled on beside the others: to stop would cost theirs."""
        return self._life.draining or (bool(self._shards) and all(shard.lease.lost for shard in self._shards))

    def _wait_for_weights(self, version: int) -> None:
        """Until weights of at least `version` are visible. Raises WaitTimeout, CutShort."""
        store, since_s, told = self._config.store, time.time(), False
        backoff = Backoff(store.poll_min_s, store.poll_max_s)
        while (newest := self._run.weights.newest()) is None or newest.version < version:
            if self._should_stop():
                raise CutShort(self._life.drain_reason or "the lease was lost")
            if stop := self._run.stop_reason():
                raise CutShort(stop)
            waited_s = time.time() - since_s
            if waited_s > WEIGHTS_WAIT_S:
                raise WaitTimeout(
                    f"weights v{version} did not come in {WEIGHTS_WAIT_S:.0f} s; the newest are "
                    f"{'none' if newest is None else f'v{newest.version}'}",
                    "see whether the trainer runs",
                )
            if waited_s > 1 and not told:
                self._events.emit("waiting", **{"for": f"weights v{version}", "since_s": since_s})
                told = True
            backoff.wait()

    def _load(self, row: GroupPrompt) -> float:
        """Bring the engine to the weights that `row` asks for, if it does not have them; the seconds that took."""
        begun_s = time.monotonic()
        ref, folder = self._fetch(row)
        engine = self._host.engine
        if self._loaded is None or self._loaded[0] is not engine or self._loaded[1].digest != ref.digest:
            self._host.load_weights(folder)
        self._loaded = engine, ref
        return time.monotonic() - begun_s

    def _fetch(self, row: GroupPrompt) -> tuple[WeightRef, Path]:
        """The newest weights; for a held-out prompt those that it is to measure, while they are still kept."""
        weights = self._run.weights
        wanted = self._measured(row)
        if wanted is not None:
            with contextlib.suppress(Pruned):
                return wanted, weights.fetch(wanted, self._local_dir)
        fetched = weights.fetch_newest(self._local_dir)
        if fetched is None:
            raise WaitTimeout("the weights were there and are gone", "see whether something deletes them")
        return fetched

    def _measured(self, row: GroupPrompt) -> WeightRef | None:
        """The very weights that a held-out prompt is to measure; None for others, and where they are gone."""
        return self._run.weights.find(row.admitted_version) if row.kind == HELDOUT else None

    def _stalled(self, seconds: float) -> None:
        problem = f"the engine made no progress for {seconds:.0f} s"
        for shard in self._shards:
            shard.lease.fail(problem)
        self._events.emit("error", problem=problem)


def sample_seed(run_seed: int, row: GroupPrompt) -> int:
    """The seed of a group's first rollout; the others' follow it. The same for every attempt at the shard."""
    text = f"{run_seed} {row.kind} {row.group}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest())


def _request(row: GroupPrompt, config: Config) -> Request:
    rollout, seed = config.rollout, sample_seed(config.run.seed, row)
    if row.kind == HELDOUT:
        return Request(row.token_ids, n=1, temperature=0.0, max_tokens=rollout.max_response_tokens, seed=seed)
    return Request(
        row.token_ids,
        n=rollout.group_size,
        temperature=rollout.temperature,
        top_p=rollout.top_p,
        top_k=rollout.top_k,
        max_tokens=rollout.max_response_tokens,
        seed=seed,
    )


def _rollout(row: GroupPrompt, sample: int, completion: Completion, version: int, request: Request) -> Rollout:
    return Rollout(
        **vars(row),
        sample=sample,
        response_ids=completion.token_ids,
        sampler_logprobs=completion.logprobs,
        response=completion.text,
        finish_reason=completion.finish_reason,
        weight_version=version,
        seed=(request.seed or 0) + sample,
    )


def _starter(config: Config) -> Callable[[], VllmEngine]:
    policy, engine = config.policy, config.rollout.engine
    need = config.data.max_prompt_tokens + config.rollout.max_response_tokens
    context = context_tokens(policy.model)
    if need > context:
        raise ConfigError(
            f"prompt and response may have {need} tokens, but {policy.model} holds {context}",
            "lower data.max_prompt_tokens or rollout.max_response_tokens",
        )
    return engine_starter(policy.model, policy.dtype, engine, engine.max_model_tokens or need, config.run.seed)
