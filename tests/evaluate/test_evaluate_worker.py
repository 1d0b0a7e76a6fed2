"""An evaluation's tasks on real queue directories: the same bytes whoever does what, however often, in any order."""

import hashlib
import json
import math
import os
import random
import shutil
from dataclasses import replace

import pyarrow.parquet as pq
import pytest
from eval_bench import POLICY, Scripted, Task, configured, make_evaluation, result, with_engine
from random_models import reference_greedy

from grhpc.config import VerifierConfig, VerifyConfig
from grhpc.data import tiny
from grhpc.errors import ConfigError, CorruptFile, GaveUp, StoreError
from grhpc.evaluate import worker
from grhpc.evaluate.create import put_back
from grhpc.evaluate.prepare import load_questions
from grhpc.evaluate.sampling import first_seed
from grhpc.evaluate.statistics import TOO_LONG
from grhpc.judge.decide import Decided, Decision
from grhpc.records import NO_VERDICT, YES, Sample, Score
from grhpc.store.model_digest import model_digest
from grhpc.store.questions import Extent
from grhpc.store.shard import write_shard


def right(question, k):
    """A model that is right about every second question."""
    return f"It is \\boxed{{{question.gold}}}." if (question.index + k) % 2 else "It is \\boxed{nothing}."


def rows(run) -> list[Score]:
    return [Score(**row) for row in pq.read_table(run.samples_path).to_pylist()]


def test_every_question_is_asked_and_scored_once_and_written_down(tmp_path, engine):
    config = configured(tmp_path, "tiny", "gsm8k", "mmlu-pro", "aime24")
    run = make_evaluation(tmp_path, config)
    task = with_engine(run, engine)
    assert task.serve() == "the run is finished"
    scores, summary = rows(run), json.loads(run.summary_path.read_text())
    order = [(config.benchmarks.index(s.benchmark), s.index, s.sample) for s in scores]
    assert order == sorted(set(order))
    assert {s.benchmark: s.num_samples for s in scores} == {"tiny": 1, "gsm8k": 1, "mmlu-pro": 1, "aime24": 4}
    assert sum(part["samples"] for part in summary["benchmarks"].values()) == len(scores)
    assert {s.weight_digest for s in scores} == {model_digest(str(POLICY))} == {summary["weight_digest"]}
    assert summary["samples_sha256"] == hashlib.sha256(run.samples_path.read_bytes()).hexdigest()
    for s in (s for s in scores if s.benchmark == "tiny"):
        assert s.score == float(s.extracted is not None and tiny.oracle(s.question, s.extracted))
    # The weights are the model's: what transformers' own greedy decoding of it says, through its chat template.
    tokenizer = engine[0]._host.engine.tokenizer
    first = scores[0]
    turn = [{"role": "user", "content": first.prompt}]
    text = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    said = reference_greedy(POLICY, ids, first.num_tokens)
    assert tokenizer.decode(said, skip_special_tokens=True) == first.response
    # Samples of one question differ, by seeds that follow each other.
    several = [s for s in scores if s.benchmark == "aime24"]
    assert [s.seed - several[0].seed for s in several] == [0, 1, 2, 3]
    assert len({s.response for s in several}) > 1
    assert run.finished()["samples_sha256"] == summary["samples_sha256"]
    [finish] = task.told("finish")
    assert finish["samples"] == len(scores)


def test_the_same_bytes_from_three_tasks_of_which_one_dies_and_one_is_late(tmp_path, engine):
    config = configured(tmp_path, "tiny", "aime24")
    alone, crowd = make_evaluation(tmp_path, config, "alone"), make_evaluation(tmp_path, config, "crowd")
    with_engine(alone, engine).serve()
    tasks = [with_engine(crowd, engine, f"local-{i}") for i in range(3)]
    # One dies between delivering its samples and saying so; another with a shard in its hands.
    lease = crowd.queue("questions").claim("dead-1")
    [(_, samples)] = engine[0].stream(lease.rows, lambda: None, lambda: False)
    crowd.queue("samples").put(lease.name, samples)
    lost = crowd.queue("questions").claim("dead-2")
    for held in (lease, lost):
        held._folders.give_back(held._file, "gave no sign of life", next_attempt=True)
    order, late = random.Random(1), tasks[0].step()
    while not crowd.finished():
        order.choice(tasks).step()
    # The dead one lived on, and delivers again what was scored long ago.
    crowd.queue("samples").put(lease.name, samples)
    assert late and result(alone)[0] == result(crowd)[0]
    assert json.loads(result(alone)[1]) == json.loads(result(crowd)[1])
    assert len(rows(crowd)) == len({(s.benchmark, s.index, s.sample) for s in rows(crowd)}) == 24 + 4
    before = result(crowd)
    tasks[1].step()
    assert result(crowd) == before, "writing it again changes nothing"


def test_a_drain_gives_the_shard_back_as_it_was(tmp_path, engine, monkeypatch):
    run = make_evaluation(tmp_path, configured(tmp_path, "tiny"))
    task, looks = with_engine(run, engine), []

    def drain_after_three() -> bool:
        looks.append(True)
        if len(looks) == 3:
            task.life.drain("signal SIGUSR2")
        return task.life.draining

    monkeypatch.setattr(task.worker, "_should_stop", drain_after_three)
    assert task.serve() == "signal SIGUSR2"
    assert run.queue("questions").counts() == {"ready": 3, "leased": 0, "failed": 0}
    assert run.queue("questions").claim("next").attempt == 1
    assert run.queue("samples").counts()["ready"] == 0


def test_what_is_too_long_is_not_asked_and_is_counted(tmp_path, engine):
    config = configured(tmp_path, "tiny", "math500")
    short = replace(config, data=replace(config.data, max_prompt_tokens=30))
    run = make_evaluation(tmp_path, short)
    task = with_engine(run, engine)
    task.worker.sampler._config, before = run.evaluation(), engine[0]._config
    try:
        task.serve()
    finally:
        engine[0]._config = before
    long = [s for s in rows(run) if s.finish_reason == TOO_LONG]
    assert {s.benchmark for s in long} == {"math500"}
    assert all((s.response, s.num_tokens, s.score, s.extracted) == ("", 0, 0.0, None) for s in long)
    part = json.loads(run.summary_path.read_text())["benchmarks"]["math500"]
    assert part["too_long"]["num"] == len(long) and part["tokens_mean"]["value"] is None


def scripted(run, job="local-1", **changes):
    return Task(run, job, Scripted(run.evaluation().run.seed, right, **changes))


def test_a_shard_that_fails_for_good_keeps_it_unfinished_and_is_tried_again_when_a_person_says_so(tmp_path):
    config = configured(tmp_path, "tiny")
    calm, run = make_evaluation(tmp_path, config, "calm"), make_evaluation(tmp_path, config, "broken")
    scripted(calm).serve()
    task = scripted(run, broken=True)
    for _ in range(2 * 3):
        lease = run.queue("questions").claim("local-1")
        lease.fail("it broke")
    with pytest.raises(
        GaveUp, match=r"3 shards cannot be done, 3 failed, the last because it broke \(attempt 2 of 2\)"
    ):
        task.serve()
    assert not run.finished() and not run.samples_path.exists()
    assert put_back(run) == 3 and put_back(run) == 0
    assert scripted(run).serve() == "the run is finished"
    assert result(run) == result(calm)


@pytest.mark.parametrize("stage", ["samples", "scores"])
def test_damaged_shards_are_set_aside_and_made_again(tmp_path, stage):
    config = configured(tmp_path, "tiny")
    calm, run = make_evaluation(tmp_path, config, "calm"), make_evaluation(tmp_path, config, "hurt")
    scripted(calm).serve()
    task = scripted(run)
    for _ in range(3 if stage == "samples" else 5):
        task.step()
    path = sorted((run.root / "queue" / stage / "ready").iterdir())[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises((GaveUp, CorruptFile)):
        task.serve()
    assert not run.finished()
    assert put_back(run) == 1 and len(list(run.quarantine_dir.glob("*.json"))) == 1
    assert scripted(run).serve() == "the run is finished"
    assert result(run) == result(calm)


def test_scores_that_do_not_add_up_are_refused(tmp_path):
    run = make_evaluation(tmp_path, configured(tmp_path, "tiny"))
    task = scripted(run)
    for _ in range(6):
        task.step()
    queue = run.queue("scores")
    name, path = sorted(queue.ready_paths().items())[0]
    once = queue.read(path)
    write_shard(path, [*once[:-1], once[0]], run_id=run.run_id)
    with pytest.raises(CorruptFile, match=r"holds 8 scores of 7 samples, and 8 are wanted; moved to"):
        task.step()
    assert not run.samples_path.exists() and not run.finished()
    assert put_back(run) == 1 and run.queue("questions").names()["ready"] == {name}


def test_questions_that_are_lost_come_from_the_prepared_data_and_from_no_other(tmp_path):
    run = make_evaluation(tmp_path, configured(tmp_path, "tiny"))
    run.queue("questions").claim("x").done()
    assert put_back(run) == 1
    run.queue("questions").claim("x").done()
    shutil.rmtree(tmp_path / "prepared")
    with pytest.raises(Exception, match="questions of tiny are lost"):
        put_back(run)


def test_a_limit_asks_the_first_of_questions_that_are_prepared_whole(tmp_path):
    config = configured(tmp_path, "tiny", "aime24")
    first, whole = (replace(config, data=replace(config.data, limit=limit)) for limit in (20, None))
    more = make_evaluation(tmp_path, replace(whole, benchmarks=["tiny"]), "more")
    run = make_evaluation(tmp_path, first, "first")
    assert run.about["questions"]["tiny"] == more.about["questions"]["tiny"]
    assert Extent.of(more.about).questions["tiny"] > Extent.of(run.about).questions["tiny"] == 20
    lost = run.queue("questions").claim("x")
    lost.done()
    assert put_back(run) == 1
    scripted(run).serve()
    asked = [row.item for row in rows(run) if row.benchmark == "tiny"]
    assert asked == [question.item for question in load_questions(tmp_path / "prepared", "tiny")][:20]
    summary = json.loads(run.summary_path.read_text())
    assert (summary["benchmarks"]["tiny"]["samples"], summary["config"]["limit"]) == (20, 20)


class Judge:
    """A decider with an engine of its own: yes to what is right, no verdict on the rest."""

    def __init__(self, log):
        self.running, self.log = False, log

    def start(self):
        self.running = True
        self.log.append("judge starts")

    def decide(self, pairs, should_stop, shard=""):
        self.log.append(f"judges {shard}")
        yes, no = Decision(YES, "generative", "because"), Decision(NO_VERDICT, "generative", "hm")
        return Decided({pair: yes if pair.answer.endswith(pair.reference) else no for pair in pairs}, len(pairs))

    def close(self):
        if self.running:
            self.log.append("judge ends")
        self.running = False


def test_one_engine_at_a_time_and_back_to_what_a_dead_task_gave_back(tmp_path):
    judged = replace(
        configured(tmp_path, "gsm8k", "aime24"),
        verify=VerifyConfig(mode="generative"),
        verifier=VerifierConfig(str(POLICY), "float32", max_new_tokens=64, max_input_tokens=400),
        sample=replace(configured(tmp_path, "gsm8k").sample, questions_per_shard=1),
    )
    run, log = make_evaluation(tmp_path, judged), []
    say = Scripted(3, lambda q, k: f"\\boxed{{so {q.gold}}}" if k % 2 == 0 else "\\boxed{what}", log=log)
    task = Task(run, "local-1", say, Judge(log))
    held = run.queue("questions").claim("other")
    while run.queue("questions").counts()["ready"] or not run.queue("scores").counts()["ready"]:
        task.step()
    held.release("its node died")
    task.serve()
    started = [line for line in log if "judges" not in line]
    assert started == ["policy starts", "policy ends", "judge starts", "judge ends", "policy starts", "policy ends"] + [
        "judge starts"
    ]
    scores = rows(run)
    assert {s.score for s in scores if s.sample % 2 == 0} == {1.0}
    unknown = [s for s in scores if s.sample % 2]
    assert unknown and all(math.isnan(s.score) and s.layer == "generative" for s in unknown)
    summary = json.loads(run.summary_path.read_text())
    part = summary["benchmarks"]["aime24"]
    assert part["undecided"]["value"] == 0.5 and part["value"] == 0.5
    assert summary["config"]["judge"]["digest"] == model_digest(str(POLICY)), "what judged is named"


def test_a_judge_that_was_exchanged_judges_nothing(tmp_path):
    folder = tmp_path / "judge"
    shutil.copytree(POLICY, folder)
    judge = VerifierConfig(str(folder), "float32", max_new_tokens=64, max_input_tokens=400)
    config = replace(configured(tmp_path, "gsm8k"), verify=VerifyConfig(mode="generative"), verifier=judge)
    run = make_evaluation(tmp_path, config)
    Task(run).worker.close()
    (folder / "generation_config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"the files in .*judge are not those with which e was made"):
        Task(run)


def test_answers_of_two_models_make_no_table(tmp_path):
    run = make_evaluation(tmp_path, configured(tmp_path, "tiny"))
    for digest in ("first", "second"):
        scripted(run, digest=digest).step()
    with pytest.raises(CorruptFile, match="the samples are of 2 models: first, second"):
        scripted(run, digest="second").serve()


def test_a_hanging_engine_fails_its_shard(tmp_path):
    run = make_evaluation(tmp_path, configured(tmp_path, "tiny"))
    task = scripted(run)
    leases = [run.queue("questions").claim("local-1") for _ in range(2)]
    assert all(task.worker._hand.take(lease) for lease in leases)
    task.worker._stalled(900.0)
    assert all(lease.ended.startswith("failed: the engine made no progress for 900 s") for lease in leases)
    assert [e["problem"] for e in task.told("error")] == ["the engine made no progress for 900 s"]


def test_a_seed_depends_on_the_question_alone():
    def question(**changes):
        fields = {"benchmark": "b", "item": "1", "index": 0, "question": "", "prompt": "", "options": [], "gold": ""}
        return Sample(
            **fields
            | {"gold_type": "", "groups": "{}", "num_samples": 1, "sample": 0, "response": ""}
            | {"num_tokens": 0, "finish_reason": "stop", "seed": 0, "weight_digest": ""}
            | changes
        )

    same = {first_seed(0, question()), first_seed(0, question(prompt="other", num_samples=3, index=7))}
    assert len(same) == 1
    other = {first_seed(1, question()), first_seed(0, question(item="2")), first_seed(0, question(benchmark="c"))}
    assert len(other | same) == 4


def test_one_task_writes_the_results_and_another_where_it_dies(tmp_path, monkeypatch):
    config = configured(tmp_path, "tiny")
    calm, run = make_evaluation(tmp_path, config, "calm"), make_evaluation(tmp_path, config, "hurt")
    scripted(calm).serve()
    first, second, real, begun = scripted(run, "local-1"), scripted(run, "local-2"), worker.write_results, []
    for _ in range(6):
        first.step()

    def killed(of, config):
        """In the middle of the samples; meanwhile the other looks for work, and has none."""
        (of.root / f".{of.samples_path.name}.0123456789ab.tmp").write_bytes(b"half of it")
        assert second.step() == "" and second.worker.stage == "results"
        begun.append(second.told("finish"))
        raise KeyboardInterrupt

    monkeypatch.setattr(worker, "write_results", killed)
    with pytest.raises(KeyboardInterrupt):
        first.step()
    assert begun == [[]] and not run.finished() and run.queue("results").counts()["leased"] == 1
    monkeypatch.setattr(worker, "write_results", real)
    [lease] = (run.root / "queue" / "results" / "leased").iterdir()
    os.utime(lease, (0, 0))  # no sign of life for long
    assert run.queue("results").reap(at_once=True) == ["results"]
    assert second.serve() == "the run is finished"
    assert result(run) == result(calm)
    assert not list(run.root.glob(".*.tmp")) and run.queue("results").counts()["leased"] == 0


def test_results_that_no_task_can_write_are_given_up_and_tried_again_when_a_person_says_so(tmp_path, monkeypatch):
    run, real = make_evaluation(tmp_path, configured(tmp_path, "tiny")), worker.write_results

    def full(of, config):
        raise StoreError("no space left")

    monkeypatch.setattr(worker, "write_results", full)
    with pytest.raises(GaveUp, match=r"the results cannot be written, 1 failed, the last because no space left"):
        scripted(run).serve()
    monkeypatch.setattr(worker, "write_results", real)
    put_back(run)
    assert scripted(run).serve() == "the run is finished"


def test_a_listing_that_is_behind_is_looked_at_again_and_no_crash(tmp_path, monkeypatch):
    """On NFS the scores may be listed by one call and not yet by the next."""
    run = make_evaluation(tmp_path, configured(tmp_path, "tiny"))
    task, real, missed = Task(run, sampler=Scripted(0, right)), worker.write_results, []

    def late(*args):
        if not missed:
            missed.append(1)
            raise FileNotFoundError("no scores of tiny-000000-0008")
        return real(*args)

    monkeypatch.setattr(worker, "write_results", late)
    assert task.serve() == "the run is finished" and missed and run.samples_path.exists()


def test_the_linked_weights_are_gone_before_the_evaluation_says_that_it_is_finished(tmp_path, monkeypatch):
    """Nobody comes back to a finished one to remove them."""
    run = make_evaluation(tmp_path, configured(tmp_path, "tiny"))
    task, order = Task(run, sampler=Scripted(0, right)), []
    finish = type(run).finish
    monkeypatch.setattr(task.worker._measured, "remove", lambda: order.append("removed"))
    monkeypatch.setattr(type(run), "finish", lambda self, info: (order.append("finished"), finish(self, info)))
    task.serve()
    assert order == ["removed", "finished"]
