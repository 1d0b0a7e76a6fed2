"""Shards beside one another in an engine: when they are, what that saves, and that it changes no byte where sums do not
depend on the batch."""

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from eval_bench import Scripted, Task, configured, make_evaluation, result, with_engine
from random_models import random_model

from grhpc.config import RoleConfig
from grhpc.config_file import check
from grhpc.engine.vllm import Completion
from grhpc.engine.vllm_start import require_batch_invariance
from grhpc.errors import ConfigError, EngineError, StoreError
from grhpc.evaluate import in_hand
from grhpc.evaluate import worker as evaluate_worker
from grhpc.evaluate.benchmarks import load_benchmarks
from grhpc.evaluate.engine_sampler import EngineSampler
from grhpc.evaluate.results import _depends_on
from grhpc.lifetime import Lifetime
from grhpc.records import Question
from grhpc.store.queue import Lease

SHARDS = 6


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Its responses end by themselves, so their lengths spread."""
    return random_model(tmp_path_factory.mktemp("model"), 0)


def evaluation_of(folder, model, batching, name):
    """Several samples a question at temperature 1, shards of two questions."""
    config = configured(folder, "tiny", "aime24")
    config = replace(
        config,
        batching=batching,
        entries={"aime24": {"samples": 4, "pass_at": [1]}, "tiny": {"samples": 4, "temperature": 1.0}},
        sample=replace(config.sample, max_response_tokens=200, questions_per_shard=8),
        data=replace(config.data, limit=10),
    )
    return make_evaluation(folder, config, name, model)


def task_of(run, engine, job="local-1"):
    """A task with the module's engine, which runs."""
    task = with_engine(run, engine, job)
    task.worker.prepare()
    return task


def counted(sampler, monkeypatch) -> list[int]:
    steps, step = [], sampler._host.engine.step

    def count():
        steps.append(1)
        return step()

    monkeypatch.setattr(sampler._host.engine, "step", count)
    return steps


def only_difference(alone, together) -> bool:
    """Two summaries that differ in how the batches were made, and in nothing else."""
    return result(together)[1] == result(alone)[1].replace(b'"batching": "alone"', b'"batching": "continuous"')


def test_shards_that_follow_one_another_give_the_same_bytes_in_far_fewer_steps(tmp_path, model, engine, monkeypatch):
    alone = evaluation_of(tmp_path, model, "alone", "calm")
    task = task_of(alone, engine)
    steps = counted(engine[0], monkeypatch)
    task.serve()
    num_alone = len(steps)
    steps.clear()
    together = evaluation_of(tmp_path, model, "continuous", "crowd")
    task = task_of(together, engine)
    monkeypatch.setattr(in_hand, "time", SimpleNamespace(monotonic=lambda: float(len(steps))))
    task.serve()
    assert len(steps) < 0.75 * num_alone
    assert result(together)[0] == result(alone)[0]
    assert only_difference(alone, together)
    shards = [event for event in task.told("shard") if event["stage"] == "sample"]
    assert len(shards) == len({event["shard"] for event in shards}) >= SHARDS
    held_s, seconds = (sum(event[name] for event in shards) for name in ("held_s", "seconds"))
    assert held_s > 1.2 * seconds, "of shards that overlap each second (here: step) counts once"


def test_of_several_in_hand_each_goes_back_and_is_asked_once_when_its_task_dies(tmp_path, model, engine, monkeypatch):
    calm, run = (evaluation_of(tmp_path, model, kind, name) for kind, name in (("alone", "a"), ("continuous", "b")))
    task_of(calm, engine).serve()
    first = task_of(run, engine)
    put, delivered = type(run.queue("samples")).put, []

    def then_the_node_dies(self, name, rows):
        done = put(self, name, rows)
        delivered.append(name)
        if len(delivered) == 2:
            raise KeyboardInterrupt
        return done

    monkeypatch.setattr(type(run.queue("samples")), "put", then_the_node_dies)
    monkeypatch.setattr(Lease, "release", lambda self, reason: None)  # a dead task gives nothing back
    with pytest.raises(KeyboardInterrupt):
        first.serve()
    monkeypatch.undo()
    held = run.queue("questions").counts()["leased"]
    assert held >= 2, "the one that was delivered and not ended, and one beside it"
    assert len(run.queue("questions").reclaim("local-1")) == held
    assert task_of(run, engine, "local-2").serve() == "the run is finished"
    assert result(run)[0] == result(calm)[0] and only_difference(calm, run)


def test_a_drain_gives_all_that_are_in_hand_back_as_they_were(tmp_path, model, engine, monkeypatch):
    run = evaluation_of(tmp_path, model, "continuous", "run")
    task = task_of(run, engine)
    look = task.worker._should_stop

    def drain_with_two_in_hand() -> bool:
        if len(task.worker._hand.open) == 2:
            task.life.drain("signal SIGUSR2")
        return look()

    monkeypatch.setattr(task.worker, "_should_stop", drain_with_two_in_hand)
    total = run.queue("questions").counts()["ready"]
    assert task.serve() == "signal SIGUSR2"
    done = run.queue("samples").counts()["ready"]
    assert run.queue("questions").counts() == {"ready": total - done, "leased": 0, "failed": 0}
    assert run.queue("questions").claim("next").attempt == 1
    assert engine[0]._host.engine._slots == {}, "nothing of it is left in the engine"


def scripted(folder, batching, name="e", **changes):
    run = make_evaluation(folder, replace(configured(folder, "tiny"), batching=batching), name)
    return run, Task(run, "local-1", Scripted(3, lambda question, k: f"\\boxed{{{question.gold}}}", **changes))


@pytest.mark.parametrize(("batching", "asked"), [("alone", 0), ("continuous", 3)])
def test_further_shards_are_asked_for_by_continuous_batching_alone(tmp_path, batching, asked):
    run, task = scripted(tmp_path, batching)
    lease, further = run.queue("questions").claim("local-1"), []

    def more(fits):
        further.append(fits)
        return run.queue("questions").claim("local-1") if len(further) < 3 else None

    task.worker.prepare()
    task.worker.work(lease, more)
    assert len(further) == asked


def test_an_engine_without_room_is_given_no_further_shard(tokenizer):
    """Else one task would take the whole evaluation."""
    config = configured(Path("nowhere"), "tiny")
    sampler = EngineSampler(config, load_benchmarks(config), lambda: "", "d", print)
    added, asked = [], []

    class Host:
        """Room for two; each is answered when the third step after it is over."""

        engine = SimpleNamespace(tokenizer=tokenizer)
        has_room = property(lambda self: len(added) < 2)

        def add(self, requests):
            added.append([3, len(requests)])
            return len(added) - 1

        def step(self):
            for shard in added:
                shard[0] -= 1
            return {i: [[Completion([5], [], "a", "stop")]] * num for i, (left, num) in enumerate(added) if left == 0}

        def abort(self): ...

    def further():
        asked.append(len(added))
        return [question_of("tiny", len(added))]

    sampler._host = Host()
    answered = list(sampler.stream([question_of("tiny", 0)], further, lambda: False))
    assert [number for number, _ in answered] == [0, 1] and asked == [1]
    assert [samples[0].index for _, samples in answered] == [0, 1]


def question_of(benchmark, index):
    about = {"question": "q", "prompt": "q", "options": [], "gold": "a", "gold_type": "", "groups": "{}"}
    return Question(benchmark=benchmark, item=str(index), index=index, num_samples=1, **about)


def test_a_hiccup_of_the_filesystem_costs_nothing_that_is_in_hand(tmp_path, monkeypatch):
    _, task = scripted(tmp_path, "continuous")
    real, looks = task.worker._is_new, []

    def listing(lease):
        looks.append(lease.name)
        if len(looks) == 2:
            raise StoreError("stale file handle")
        return real(lease)

    monkeypatch.setattr(task.worker, "_is_new", listing)
    assert task.serve() == "the run is finished"
    assert not task.told("error") and len(looks) > 3
    assert {event["attempt"] for event in task.told("cut")} == set()


def test_shards_that_were_taken_from_us_are_done_beside_the_others(tmp_path):
    """To stop would cost theirs; where all were taken there is nothing to go on for."""
    run, task = scripted(tmp_path, "continuous")
    leases = [run.queue("questions").claim("local-1") for _ in range(2)]
    assert all(task.worker._hand.take(lease) for lease in leases)
    lost = []
    for lease in leases:
        lease._heartbeat = SimpleNamespace(lost=lost.__contains__, forget=print)
    lost.append(leases[0]._path)
    assert not task.worker._should_stop()
    lost.append(leases[1]._path)
    assert task.worker._should_stop()


def test_after_a_failure_among_several_each_is_asked_alone(tmp_path):
    """Nobody can say whose it was."""
    calm, undisturbed = scripted(tmp_path, "continuous", "calm")
    undisturbed.serve()
    run, task = scripted(tmp_path, "continuous")
    real, together = task.worker.sampler.stream, []

    def breaks_in_company(first, further, should_stop):
        for number, samples in real(first, further, should_stop):
            together.append(len(task.worker._hand._begun_s))
            if together[-1] == 3:
                raise EngineError("it broke")
            yield number, samples

    task.worker.sampler.stream = breaks_in_company
    assert task.serve() == "the run is finished"
    assert [event["attempt"] for event in task.told("error")] == [1] and together == [1, 2, 3, 1]
    assert result(run) == result(calm)


def test_a_shard_that_was_delivered_by_a_task_taken_for_dead_is_not_asked_again_beside_others(tmp_path):
    run, task = scripted(tmp_path, "continuous")
    other, asked = scripted(tmp_path, "continuous", "other")[1], []
    lease = run.queue("questions").claim("dead")
    [(_, samples)] = other.worker.sampler.stream(lease.rows, lambda: None, lambda: False)
    run.queue("samples").put(lease.name, samples)
    lease.release("it was taken for dead")
    task.worker.sampler.answers = lambda question, k: asked.append(question.index) or "\\boxed{}"
    task.serve()
    assert len(asked) == len(set(asked)) == 16
    assert set(asked).isdisjoint(sample.index for sample in samples)


@pytest.mark.parametrize("task", [RoleConfig(), RoleConfig(gpus_per_node=1), RoleConfig(gres="gpu:h100:1")])
def test_batch_invariance_without_a_gpu_is_refused_before_anything_is_made(tmp_path, task):
    config = configured(tmp_path, "tiny")
    config = replace(config, batching="invariant", cluster=replace(config.cluster, evaluate=task))
    if task == RoleConfig():
        with pytest.raises(ConfigError, match=r"cluster\.evaluate asks for no GPU"):
            check(config)
    else:
        check(config)


def test_batch_invariance_is_refused_where_there_is_none(tmp_path, monkeypatch):
    config = configured(tmp_path, "tiny")
    cluster = replace(config.cluster, evaluate=RoleConfig(gpus_per_node=1))  # which it did not get
    run = make_evaluation(tmp_path, replace(config, batching="invariant", cluster=cluster))
    with pytest.raises(ConfigError, match="here is no GPU, and vLLM on CPUs is not batch-invariant"):
        evaluate_worker.main(run.root, Lifetime(job="local-1"))
    assert "VLLM_BATCH_INVARIANT" not in os.environ


def test_batch_invariance_holds_for_every_engine_of_the_process_or_is_refused(monkeypatch):
    monkeypatch.setattr("grhpc.engine.vllm_start._has_gpu", lambda: True)
    monkeypatch.setattr("grhpc.engine.vllm_start._is_new_enough", lambda: False)
    with pytest.raises(ConfigError, match=r"compute capability is below 8\.0"):
        require_batch_invariance()
    monkeypatch.setattr("grhpc.engine.vllm_start._is_new_enough", lambda: True)
    monkeypatch.setenv("VLLM_BATCH_INVARIANT", "0")
    with pytest.raises(ConfigError, match="batching is invariant, but VLLM_BATCH_INVARIANT is 0"):
        require_batch_invariance()
    monkeypatch.delenv("VLLM_BATCH_INVARIANT")
    monkeypatch.delenv("VLLM_USE_BREAKABLE_CUDAGRAPH", raising=False)
    require_batch_invariance()
    assert [os.environ.pop(name) for name in ("VLLM_BATCH_INVARIANT", "VLLM_USE_BREAKABLE_CUDAGRAPH")] == ["1", "1"]


@pytest.mark.parametrize("batching", ["alone", "continuous"])
def test_kernels_that_the_summary_would_not_name_are_refused(monkeypatch, batching):
    monkeypatch.setenv("VLLM_BATCH_INVARIANT", "1")
    with pytest.raises(ConfigError, match=f"batching is {batching}, but VLLM_BATCH_INVARIANT is 1"):
        evaluate_worker.keep_batches(batching)


@pytest.mark.parametrize(("batching", "set_to"), [("alone", "0"), ("continuous", None)])
def test_what_is_in_a_batch_depends_on_no_other_process_where_bytes_are_promised(monkeypatch, batching, set_to):
    monkeypatch.delenv("VLLM_ENABLE_V1_MULTIPROCESSING", raising=False)
    evaluate_worker.keep_batches(batching)
    assert os.environ.pop("VLLM_ENABLE_V1_MULTIPROCESSING", None) == set_to


def test_the_summary_says_how_batches_were_made(tmp_path):
    run, _ = scripted(tmp_path, "continuous")
    assert _depends_on(run.evaluation(), run)["batching"] == "continuous"
