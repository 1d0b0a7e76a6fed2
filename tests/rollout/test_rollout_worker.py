"""The rollout task on real queue directories with a real engine."""

import dataclasses
import itertools
import time
from types import SimpleNamespace

import pytest
from prompts import prompt
from random_models import reference_greedy, reference_logprobs
from rollout_bench import Broken, make_run

from grhpc.errors import ConfigError, EngineError
from grhpc.lifetime import Lifetime
from grhpc.records import HELDOUT
from grhpc.rollout import worker as worker_module
from grhpc.rollout.worker import main, sample_seed
from grhpc.store.lease import Lease
from grhpc.store.local_copy import FOLDER_PREFIX

SHARD = "g00000000-0002"


def test_a_shard_of_prompts_becomes_a_shard_of_rollouts(bench):
    bench.publish(0, model=1)
    rows = [prompt(0), prompt(1)]
    bench.put(SHARD, *rows)
    bench.serve()
    lease = bench.run.queue("rollouts").claim("reader")
    assert lease.name == SHARD
    assert [(r.group, r.sample) for r in lease.rows] == [(g, k) for g in (0, 1) for k in range(3)]
    for rollout in lease.rows:
        row = rows[rollout.group]
        assert {f.name: getattr(rollout, f.name) for f in dataclasses.fields(row)} == vars(row)
        assert rollout.weight_version == 0
        assert 1 <= len(rollout.response_ids) <= 12
        wanted = reference_logprobs(bench.models[1], row.token_ids, rollout.response_ids, 0.9)
        assert rollout.sampler_logprobs == pytest.approx(wanted, abs=1e-4), "not from the published weights"
    assert len({tuple(r.response_ids) for r in lease.rows}) == 6
    assert bench.run.queue("prompts").counts() == {"ready": 0, "leased": 0, "failed": 0}
    [event] = bench.told("shard")
    assert (event["groups"], event["rollouts"], event["weight_version"], event["kind"]) == (2, 6, 0, "train")
    assert event["tokens"] == sum(len(r.response_ids) for r in lease.rows)
    assert event["seconds"] > 0 and event["load_s"] > 0 and event["wait_s"] >= 0


def test_a_repeated_shard_is_sampled_again_to_the_same_tokens(bench):
    bench.publish(0, model=0)
    taken = []
    for _ in range(2):
        bench.put(SHARD, prompt(0), prompt(1))
        bench.serve()
        taken.append(bench.taken())
    assert taken[0] == taken[1]


def test_newer_weights_are_loaded_between_shards_and_equal_ones_are_not(bench, monkeypatch):
    loads = []
    load = bench.worker._host.load_weights
    monkeypatch.setattr(bench.worker._host, "load_weights", lambda folder: loads.append(folder) or load(folder))
    for version, model in ((0, 0), (1, 1), (2, 1)):
        bench.publish(version, model)
        bench.put(SHARD, prompt(0))
        bench.serve()
        [first, *_] = bench.taken()
        assert first.weight_version == version
        wanted = reference_logprobs(bench.models[model], first.token_ids, first.response_ids, 0.9)
        assert first.sampler_logprobs == pytest.approx(wanted, abs=1e-4)
    assert len(loads) == 2, "version 2 has the weights of version 1"


def test_a_task_that_ends_leaves_no_weights_on_its_node(bench, monkeypatch):
    bench.publish(0, model=0)
    bench.put(SHARD, prompt(0))
    bench.serve()
    copies = bench.worker._local_dir / f"{FOLDER_PREFIX}{bench.run.run_id}"
    assert list(copies.glob("g*"))
    monkeypatch.setattr(bench.worker._host, "close", lambda: None)  # the module's other tests go on with it
    bench.worker.close()
    assert not list(copies.glob("g*"))


def test_a_trainer_that_went_back_is_followed(bench):
    """After a resume, generation 2 publishes version 1 where generation 1 had reached version 5."""
    bench.publish(5, model=0)
    bench.put(SHARD, prompt(0))
    bench.serve()
    assert bench.taken()[0].weight_version == 5
    bench.publish(1, model=1, generation=2)
    bench.put(SHARD, prompt(0))
    bench.serve()
    assert bench.taken()[0].weight_version == 1


def test_a_heldout_prompt_is_answered_once_and_greedily(bench):
    bench.publish(3, model=0)
    heldout = prompt(0, kind=HELDOUT, admitted_version=3)
    bench.put("h000003-00000000-0001", heldout)
    bench.serve()
    [rollout] = bench.taken()
    assert rollout.kind == HELDOUT and rollout.weight_version == 3
    tokens = rollout.response_ids
    assert tokens == reference_greedy(bench.models[0], heldout.token_ids, len(tokens))


def test_waits_for_the_weights_that_the_prompts_were_admitted_at(bench, monkeypatch):
    bench.publish(0, model=0)
    bench.put(SHARD, prompt(0, admitted_version=0), prompt(1, admitted_version=1))
    pauses = []

    def pause(self, limit_s=0.0):
        pauses.append(True)
        if len(pauses) == 3:
            bench.publish(1, model=1)

    monkeypatch.setattr(worker_module.Backoff, "wait", pause)
    bench.serve()
    assert len(pauses) >= 3
    assert {r.weight_version for r in bench.taken()} == {1}


def test_the_wait_for_weights_has_an_end(bench, monkeypatch):
    bench.publish(0, model=0)
    bench.put(SHARD, prompt(0, admitted_version=9))
    monkeypatch.setattr(worker_module, "WEIGHTS_WAIT_S", 0.05)
    lease = bench.run.queue("prompts").claim("local-1")
    bench.worker.prepare()
    with pytest.raises(worker_module.WaitTimeout, match="weights v9 did not come in 0 s; the newest are v0"):
        bench.worker.work(lease)


def test_a_drain_in_the_middle_gives_the_shard_back_as_it_was(bench, monkeypatch):
    bench.publish(0, model=0)
    bench.put(SHARD, prompt(0))
    asked = []

    def drain_after_three() -> bool:
        asked.append(True)
        if len(asked) == 3:
            bench.life.drain("signal SIGUSR2")
        return bench.life.draining

    monkeypatch.setattr(bench.worker, "_should_stop", drain_after_three)
    assert bench.serve() == "signal SIGUSR2"
    lease = bench.run.queue("prompts").claim("next")
    assert (lease.name, lease.attempt) == (SHARD, 1)
    assert bench.run.queue("rollouts").counts()["ready"] == 0


def watch_engine(bench, monkeypatch) -> list[int]:
    """How many shards were in the engine at each of its steps."""
    host, in_hand, added, finished = bench.worker._host, [], [], []
    add, step = host.add, host.step

    def counted_step():
        in_hand.append(len(added) - len(finished))
        done = step()
        finished.extend(done)
        return done

    monkeypatch.setattr(host, "add", lambda requests: added.append(1) or add(requests))
    monkeypatch.setattr(host, "step", counted_step)
    return in_hand


def test_the_next_shard_does_not_wait_for_the_last_response_of_this_one(bench, monkeypatch):
    bench.publish(0, model=0)
    names = [f"g{group:08d}-0001" for group in range(4)]
    for group, name in enumerate(names):
        bench.put(name, prompt(group))
    alone = {}
    for name in names:  # what each gives by itself
        bench.worker.prepare()
        bench.worker.work(bench.run.queue("prompts").claim("local-1"))
        alone[name] = bench.taken()
    for group, name in enumerate(names):
        bench.put(name, prompt(group))
    in_hand, looks = watch_engine(bench, monkeypatch), itertools.count()
    clock = SimpleNamespace(time=time.time, monotonic=lambda: len(in_hand) + 1e-6 * next(looks))  # a second a step
    monkeypatch.setattr(worker_module, "time", clock)
    bench.serve()
    assert max(in_hand) == 4
    beside = {f"g{rows[0].group:08d}-0001": rows for rows in (bench.taken() for _ in names)}
    assert beside.keys() == alone.keys()
    for ours, theirs in zip(itertools.chain(*beside.values()), itertools.chain(*map(alone.get, beside)), strict=True):
        # Sums may depend on the batch, in their last bits and on some processors.
        assert ours.sampler_logprobs == pytest.approx(theirs.sampler_logprobs, abs=1e-5)
        same = dataclasses.replace(theirs, sampler_logprobs=ours.sampler_logprobs)
        assert ours == same, "company changes no sample"
    events = bench.told("shard")[-4:]
    assert all(event["seconds"] > 0 for event in events)
    assert sum(event["seconds"] for event in events) <= max(event["held_s"] for event in events) + len(names)


def test_no_more_than_the_engine_has_room_for_is_taken(bench, monkeypatch):
    bench.publish(0, model=0)
    for group in range(4):
        bench.put(f"g{group:08d}-0001", prompt(group))
    in_hand = watch_engine(bench, monkeypatch)
    monkeypatch.setattr(bench.worker._host.engine, "_max_num_seqs", 4)  # three are a shard: room for a second, not more
    bench.serve()
    assert max(in_hand) == 2


def test_newer_weights_end_the_company(bench, monkeypatch):
    """What comes after their publication waits until the engine is empty and has them."""
    bench.publish(0, model=0)
    bench.put("g00000000-0001", prompt(0))
    worker = bench.worker

    def publish_and_go_on(lease):
        bench.publish(1, model=1)
        bench.put("g00000002-0001", prompt(2, admitted_version=1))
        monkeypatch.setattr(worker, "_begin", begin)
        return begin(lease)

    begin = worker._begin
    monkeypatch.setattr(worker, "_begin", publish_and_go_on)
    bench.put("g00000001-0001", prompt(1))
    bench.serve()
    versions = {rows[0].group: rows[0].weight_version for rows in (bench.taken() for _ in range(3))}
    assert versions == {0: 0, 1: 1, 2: 1}


def test_prompts_of_weights_that_are_not_seen_yet_wait_for_them(bench, monkeypatch):
    """This machine's listing of the weights may be behind its listing of the prompts."""
    bench.publish(0, model=0)
    bench.put("g00000000-0001", prompt(0))
    weights, worker = bench.run.weights, bench.worker
    begin, newest = worker._begin, worker._run.weights.newest
    old = newest()

    def publish_unseen(shard):
        bench.publish(1, model=1)
        bench.put("g00000001-0001", prompt(1, admitted_version=1))
        bench.put("h000001-00000000-0001", prompt(0, kind=HELDOUT, admitted_version=1))
        monkeypatch.setattr(worker, "_begin", begin)
        monkeypatch.setattr(worker._run.weights, "newest", lambda: old)
        monkeypatch.setattr(worker._run.weights, "find", lambda version: None)
        return begin(shard)

    def deliver(shard, groups):
        monkeypatch.setattr(worker._run.weights, "newest", newest)
        monkeypatch.setattr(worker._run.weights, "find", type(weights).find.__get__(worker._run.weights))
        monkeypatch.setattr(worker, "_deliver", delivered)
        return delivered(shard, groups)

    delivered = worker._deliver
    monkeypatch.setattr(worker, "_begin", publish_unseen)
    monkeypatch.setattr(worker, "_deliver", deliver)
    bench.serve()
    rows = [row for _ in range(3) for row in bench.taken()]
    assert all(row.weight_version == row.admitted_version for row in rows)


def test_a_shard_that_was_taken_away_does_not_cost_the_others(bench, monkeypatch):
    bench.publish(0, model=0)
    names = ["g00000000-0001", "g00000001-0001"]
    for group, name in enumerate(names):
        bench.put(name, prompt(group))
    worker = bench.worker
    monkeypatch.setattr(Lease, "lost", property(lambda self: self.name == names[0] and len(worker._shards) == 2))
    in_hand = watch_engine(bench, monkeypatch)
    bench.serve()
    assert max(in_hand) == 2
    assert sorted(bench.taken()[0].group for _ in names) == [0, 1], "the first one is late, and the ledger takes one"


def test_heldout_shards_go_together_only_with_those_of_their_version(bench, monkeypatch):
    bench.publish(0, model=0)
    bench.publish(1, model=1)
    for version in (0, 1):
        for group in (0, 1):
            bench.put(f"h{version:06d}-{group:08d}-0001", prompt(group, kind=HELDOUT, admitted_version=version))
    in_hand = watch_engine(bench, monkeypatch)
    bench.serve()
    taken = [bench.taken() for _ in range(4)]
    assert all(row.weight_version == row.admitted_version for rows in taken for row in rows)
    assert max(in_hand) == 2


def test_a_failing_engine_delivers_nothing_and_is_replaced(bench, monkeypatch):
    bench.publish(0, model=0)
    bench.put(SHARD, prompt(0))
    bench.worker.prepare()
    host = bench.worker._host
    host.close()
    start = host._start
    engines = iter([Broken(), None])
    monkeypatch.setattr(host, "_start", lambda: next(engines, None) or start())
    bench.serve()
    assert [r.sample for r in bench.taken()] == [0, 1, 2]
    assert [event["problem"] for event in bench.told("error")] == ["it broke"]
    assert bench.run.queue("rollouts").counts() == {"ready": 0, "leased": 0, "failed": 0}


def test_an_engine_that_never_starts_ends_the_task_and_costs_no_attempt(bench, monkeypatch):
    bench.publish(0, model=0)
    bench.put(SHARD, prompt(0))

    def fail():
        raise EngineError("no GPU")

    host = bench.worker._host
    host.close()
    monkeypatch.setattr(host, "_start", fail)
    with pytest.raises(EngineError, match="no GPU"):
        bench.serve()
    assert bench.run.queue("prompts").claim("next").attempt == 1


def test_a_policy_with_too_short_a_context_is_refused(tmp_path, policies):
    run = make_run(tmp_path, policies[0])
    config = run.config()
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, max_prompt_tokens=600))
    with pytest.raises(ConfigError, match="612 tokens"):
        worker_module.RolloutWorker(run, config, Lifetime(), run.events("rollout", "x"))


def test_seeds_differ_between_groups_kinds_and_runs():
    seeds = {sample_seed(run, prompt(g, kind=kind)) for run in (0, 1) for g in range(50) for kind in ("train", HELDOUT)}
    assert len(seeds) == 200
    assert sample_seed(0, prompt(3)) == sample_seed(0, prompt(3, admitted_version=5, epoch=0))


def test_the_whole_task_ends_when_the_run_is_finished(bench, engines):
    engines[0].close()
    bench.publish(0, model=0)
    bench.run.finish({"step": 1})
    main(bench.run.path, Lifetime(job="local-2"))
    assert [e["event"] for e in bench.told("stop")] == ["stop"]
    assert bench.told("stop")[0]["reason"] == "the run is finished"
