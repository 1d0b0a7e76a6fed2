"""The verify task on real queue directories: with judges that fail, and with the real small verifier."""

import contextlib
import dataclasses
import math
from pathlib import Path

import pytest
from until_empty import UntilEmpty
from verify_rows import Host, make_run, rollout, yes

from grhpc.answer.rules import MathVerify
from grhpc.config import VerifierConfig
from grhpc.errors import EngineError
from grhpc.judge.engine_judge import EngineJudge
from grhpc.judge.generative import GenerativeDecider
from grhpc.judge.layers import HybridDecider
from grhpc.lifetime import Lifetime
from grhpc.records import NO, NO_ANSWER, NO_VERDICT, YES
from grhpc.report.judging import judging
from grhpc.store.decisions import DecisionLog
from grhpc.store.events import read_events
from grhpc.store.serving import serve
from grhpc.verify.worker import VerifyWorker, main

SHARD = "g00000000-0002"
SHIPPED = Path(__file__).parents[2] / "grhpc" / "data" / "tiny_models" / "verifier"


class Bench:
    """A run, and a verify worker over it whose engine is a fake."""

    def __init__(self, run, tokenizer, answer, job: str = "local-1") -> None:
        self.run, self.life = run, Lifetime(job=job)
        self.judge = Host(tokenizer, answer)
        self.config = run.config()
        verifier = self.config.verifier
        memory = DecisionLog(run.decisions_dir, run_id=run.run_id, task=job)
        self.decider = GenerativeDecider(EngineJudge(self.judge, tokenizer, verifier, 0, "m"), verifier, memory)
        self.events = run.events("verify", job)
        self.worker = VerifyWorker(run, self.config, self.life, self.events, self.decider)

    def serve(self) -> str:
        """Until nothing is left in the queue."""
        self.run.clear_stop()
        return serve(self.run, "rollouts", UntilEmpty(self.run, "rollouts", self.worker), self.life, self.events)

    def told(self, event: str) -> list[dict]:
        return [e for e in read_events(self.run.events_dir) if e["event"] == event]


@pytest.fixture
def bench_of(tmp_path, tokenizer, tokenizer_dir):
    def make(answer=yes, **settings) -> Bench:
        return Bench(make_run(tmp_path, tokenizer_dir, **({"idle_s": 60.0} | settings)), tokenizer, answer)

    return make


def shard(*responses: str, group: int = 0) -> list:
    return [rollout(group, k, response=response) for k, response in enumerate(responses)]


def test_rules_count_lengths_by_the_policy_where_no_verifier_is_named(tmp_path, tokenizer_dir):
    """A token a byte there: two more are a tenth less."""
    run = make_run(tmp_path, tokenizer_dir, mode="rule")
    run.amend(dataclasses.replace(run.config(), verifier=VerifierConfig()))
    run.queue("rollouts").put(SHARD, shard("\\boxed{5.0}", "\\boxed{6}"))
    main(run.path, Lifetime(job="local-1"))
    rows = run.queue("verdicts").claim("reader").rows
    assert [(v.decision, v.answer_tokens, v.reward) for v in rows] == [(YES, 3, pytest.approx(0.9)), (NO, 1, 0.0)]


def test_every_part_of_a_verdict_stands_in_its_row(bench_of):
    def answer(prompt, attempt):
        return f" Final Decision: {'Yes' if 'Student: 5' in prompt else 'No'}"

    bench = bench_of(answer)
    rows = shard("so \\boxed{5}", "\\boxed{5 apples}", "\\boxed{6}", "I do not know", "\\boxed{5}", "\\boxed{?}")
    bench.run.queue("rollouts").put(SHARD, rows)
    bench.serve()
    lease = bench.run.queue("verdicts").claim("reader")
    assert lease.name == SHARD
    for row, verdict in zip(rows, lease.rows, strict=True):
        assert {f.name: getattr(verdict, f.name) for f in dataclasses.fields(row)} == vars(row)
    columns = ["extracted", "decision", "layer", "answer_tokens", "reference_tokens", "judged_by"]
    assert [[getattr(v, c) for c in columns] for v in lease.rows] == [
        ["5", YES, "generative", 1, 1, ""],
        ["5 apples", YES, "generative", 8, 1, ""],
        ["6", NO, "generative", 1, 1, ""],
        [None, NO_ANSWER, "extract", 0, 0, ""],
        ["5", YES, "generative", 1, 1, f"local-1 {SHARD}"],
        ["?", NO, "guard", 1, 1, ""],
    ]
    assert [v.reused for v in lease.rows] == [bool(v.judged_by) for v in lease.rows]
    assert [v.reward for v in lease.rows] == pytest.approx([1.0, 0.65, 0.0, -0.5, 1.0, 0.0])
    assert lease.rows[0].reason == " Final Decision: Yes"
    assert bench.run.queue("rollouts").counts() == {"ready": 0, "leased": 0, "failed": 0}
    [event] = bench.told("shard")
    assert event["decisions"] == {"yes": 3, "no": 2, "no_answer": 1, "no_verdict": 0}
    assert (event["groups"], event["rollouts"], event["judged"], event["asked"], event["reused"]) == (1, 6, 4, 3, 1)
    assert event["layers"] == {"generative": 4, "extract": 1, "guard": 1}


def test_judgements_are_reused_across_shards_and_kinds(bench_of):
    bench = bench_of()
    for name, group in (("g00000000-0001", 0), ("g00000001-0001", 1), ("h000002-00000000-0001", 0)):
        bench.run.queue("rollouts").put(name, [rollout(group, k, question="the same") for k in range(4)])
    bench.serve()
    assert len(bench.judge.asked) == 1
    told = bench.told("shard")
    assert [event["reused"] for event in told] == [3, 4, 4]
    assert [event["asked"] for event in told] == [1, 0, 0]
    assert told[-1]["so_far"].items() >= {"rollouts": 12, "judged": 12, "asked": 1, "asked_twice": 0}.items()
    assert told[-1]["so_far"]["requests"] == 1 and told[-1]["so_far"]["new_tokens"] == 1


def test_audits_are_counted_apart_from_the_questions_that_verdicts_need(bench_of):
    """Answers: equal ones that the judge calls equal, different, nothing; one that it decides; one too long for it."""
    says = {"four": "Yes", "five": "No", "nine": "Maybe", "6": "No"}
    bench = bench_of(lambda prompt, _: f" Final Decision: {next(v for k, v in says.items() if k in prompt)}")
    hybrid = HybridDecider(bench.decider, audit_share=1.0)
    worker = VerifyWorker(bench.run, bench.config, bench.life, bench.events, hybrid)
    rows = [
        rollout(0, k, answer=word, response=f"\\boxed{{{word}}}") for k, word in enumerate(("four", "five", "nine"))
    ]
    rows += [rollout(1, 0, response="\\boxed{6}"), rollout(2, 0, question="why " * 60, response="\\boxed{7}")]
    queue = bench.run.queue("rollouts")
    for group in (0, 3):
        queue.put(f"g{group:08d}-0003", [dataclasses.replace(row, group=row.group + group) for row in rows])
        worker.work(queue.claim("local-1"))
    first, second = bench.told("shard")
    counted = {"judged": 1, "audited": 2, "audit_differs": 1, "audit_no_verdict": 1}
    assert first.items() >= (counted | {"asked": 1, "asked_to_audit": 3}).items()
    assert second.items() >= (counted | {"asked": 0, "asked_to_audit": 1}).items(), "recalled, but for the undecided"
    told = judging(read_events(bench.run.events_dir))
    assert (told["saved"], told["audited"], told["audit_differs"], told["audit_no_verdict"]) == (0.5, 4, 2, 2)
    hybrid.close()


def test_another_task_and_the_next_incarnation_reuse_what_was_judged(tmp_path, tokenizer, tokenizer_dir):
    run = make_run(tmp_path, tokenizer_dir, idle_s=60.0)
    verdicts = []
    for number, job in enumerate(("7_1", "7_2", "7_1")):
        bench = Bench(run, tokenizer, yes, job)
        run.queue("rollouts").put(f"g{number:08d}-0001", [rollout(number, k, question="the same") for k in range(2)])
        bench.serve()
        assert len(bench.judge.asked) == (number == 0)
        verdicts += run.queue("verdicts").claim("reader").rows
    assert [v.judged_by for v in verdicts] == ["", *5 * ["7_1 g00000000-0001"]]
    assert [v.reused for v in verdicts] == [False, *5 * [True]]
    assert {(v.decision, v.reason, v.reward) for v in verdicts} == {(YES, " The same. Final Decision: Yes", 1.0)}


def test_a_task_that_dies_between_asking_and_delivering_loses_nothing(tmp_path, tokenizer, tokenizer_dir, monkeypatch):
    """Killed before its decisions were on disk: asked again. Killed after: reused, and delivered by the next one."""
    run = make_run(tmp_path, tokenizer_dir, idle_s=60.0)
    run.queue("rollouts").put(SHARD, shard("\\boxed{5}", "\\boxed{6}"))
    asked = []
    for where in ("store.decisions.DecisionLog.record", "store.queue.Queue.put", ""):
        bench = Bench(run, tokenizer, yes, f"7_{len(asked)}")
        with monkeypatch.context() as patch:
            if where:
                patch.setattr(f"grhpc.{where}", dies)
            with contextlib.suppress(Killed):
                bench.serve()
        asked.append(len(bench.judge.asked))
        run.queue("rollouts").reclaim(bench.life.job)
    assert asked == [2, 2, 0]
    verdicts = run.queue("verdicts").claim("reader").rows
    assert [v.reward for v in verdicts] == [1.0, 1.0]
    assert [v.judged_by for v in verdicts] == [f"7_1 {SHARD}"] * 2


class Killed(BaseException):
    """As sudden as a kill: no handler of errors sees it."""


def dies(*_: object) -> None:
    raise Killed


def test_a_damaged_memory_costs_a_question_and_is_told(bench_of):
    bench = bench_of()
    damaged = bench.run.decisions_dir / "7_9-beef.jsonl"
    damaged.write_bytes(b"rubbish\n")
    bench.run.queue("rollouts").put(SHARD, shard("\\boxed{5}"))
    bench.serve()
    assert bench.run.queue("verdicts").counts()["ready"] == 1
    assert [damaged.name in event["problem"] for event in bench.told("error")] == [True]


def broken(prompt, attempt):
    raise EngineError("it broke")


def crashing(prompt, attempt):
    raise RuntimeError("CUDA error: an illegal memory access")


@pytest.mark.parametrize("answer", [broken, crashing, lambda prompt, attempt: ""], ids=["broken", "crash", "empty"])
def test_a_broken_judge_gives_no_verdicts_at_all(bench_of, answer):
    """Attempt after attempt, until the shard stands in failed/ with the reason: never a reward."""
    bench = bench_of(answer)
    bench.run.queue("rollouts").put(SHARD, shard(*(f"\\boxed{{{n}}}" for n in range(8))))
    bench.serve()
    assert bench.run.queue("verdicts").counts() == {"ready": 0, "leased": 0, "failed": 0}
    [failed] = bench.run.queue("rollouts").failed()
    assert failed.attempts == 2
    problems = [event["problem"] for event in bench.told("error")]
    assert len(problems) == 2 and problems[1] in failed.reason


def test_rubbish_for_some_answers_leaves_those_without_a_number(bench_of):
    bench = bench_of(lambda prompt, attempt: "zzz" if "Student: 6" in prompt else yes(prompt, attempt))
    bench.run.queue("rollouts").put(SHARD, shard("\\boxed{5}", "\\boxed{6}"))
    bench.serve()
    first, second = bench.run.queue("verdicts").claim("reader").rows
    assert first.decision == YES and first.reward == 1.0
    assert second.decision == NO_VERDICT and math.isnan(second.reward) and second.reason == "zzz"


def test_a_judge_that_returns_is_used_again(bench_of):
    down = iter([True, False])

    def answer(prompt, attempt):
        if next(down, False):
            raise EngineError("it broke")
        return yes(prompt, attempt)

    bench = bench_of(answer)
    bench.run.queue("rollouts").put(SHARD, shard("\\boxed{5}"))
    bench.serve()
    [verdict] = bench.run.queue("verdicts").claim("reader").rows
    assert verdict.reward == 1.0
    assert bench.run.queue("rollouts").failed() == []


def test_a_judge_that_fails_shard_after_shard_ends_the_task(bench_of):
    bench = bench_of(broken)
    for group in range(4):
        bench.run.queue("rollouts").put(f"g{group:08d}-0001", shard("\\boxed{5}", group=group))
    with pytest.raises(EngineError, match="it broke"):
        bench.serve()
    assert bench.run.queue("rollouts").counts()["leased"] == 0


def test_a_drain_gives_the_shard_back_as_it_was(bench_of):
    def answer(prompt, attempt):
        bench.life.drain("signal SIGUSR2")
        return ""  # no decision: it would be asked again, but is asked to stop first

    bench = bench_of(answer)
    bench.run.queue("rollouts").put(SHARD, shard("\\boxed{5}"))
    assert bench.serve() == "signal SIGUSR2"
    lease = bench.run.queue("rollouts").claim("next")
    assert (lease.name, lease.attempt) == (SHARD, 1)
    assert bench.run.queue("verdicts").counts()["ready"] == 0
    assert [e["event"] for e in read_events(bench.run.events_dir)] == ["ready", "cut", "drain", "stop"]


def test_shards_that_are_ready_are_judged_together_while_the_judge_has_room(bench_of):
    bench = bench_of(room=4)
    names = [f"g{group:08d}-0001" for group in range(4)]
    for group, name in enumerate(names):
        answers = [f"\\boxed{{{answer}}}" for answer in (group // 2, 50 + group)]
        bench.run.queue("rollouts").put(
            name, [dataclasses.replace(r, question="?") for r in shard(*answers, group=group)]
        )
    bench.serve()
    told = bench.told("shard")
    assert [event["shard"] for event in told] == names
    assert [event["asked"] for event in told] == [5, 0, 0, 1], "three of them together, for so many filled the room"
    rows = [row for _ in names for row in bench.run.queue("verdicts").claim("reader").rows]
    together = "+".join(names[:3])
    assert [row.judged_by for row in rows] == ["", "", f"local-1 {names[0]}", "", "", "", f"local-1 {together}", ""]
    assert all(row.decision == YES for row in rows)


def test_a_shard_that_was_taken_away_is_not_judged_on(bench_of, monkeypatch):
    bench = bench_of()
    bench.run.queue("rollouts").put(SHARD, shard("\\boxed{5}"))
    lease = bench.run.queue("rollouts").claim("local-1")
    monkeypatch.setattr(type(lease), "lost", True)
    with pytest.raises(Exception, match="the lease was lost"):
        bench.worker.work(lease)
    assert bench.run.queue("verdicts").counts()["ready"] == 0


@pytest.mark.parametrize(
    ("mode", "decisions", "layers"),
    [
        ("exact", [YES, NO, NO, NO_ANSWER], ["exact", "exact", "exact", "extract"]),
        ("rule", [YES, YES, NO, NO_ANSWER], ["exact", "rule", "rule", "extract"]),
    ],
)
def test_the_modes_without_a_model(tmp_path, tokenizer_dir, mode, decisions, layers):
    run = make_run(tmp_path, tokenizer_dir, mode=mode)
    run.queue("rollouts").put(SHARD, shard("\\boxed{5}", "\\boxed{10/2}", "\\boxed{6}", "nothing"))
    main(run.path, Lifetime(job="local-1"))
    verdicts = run.queue("verdicts").claim("reader").rows
    assert [v.decision for v in verdicts] == decisions
    assert [v.layer for v in verdicts] == layers


def test_a_rule_that_cannot_decide_is_no_verdict(tmp_path, tokenizer_dir, monkeypatch):
    monkeypatch.setattr(MathVerify, "equivalent", lambda self, reference, answer: None)
    run = make_run(tmp_path, tokenizer_dir, mode="rule")
    run.queue("rollouts").put(SHARD, shard("\\boxed{10/2}"))
    main(run.path, Lifetime(job="local-1"))
    [verdict] = run.queue("verdicts").claim("reader").rows
    assert verdict.decision == NO_VERDICT and math.isnan(verdict.reward)


def test_with_the_real_small_verifier(tmp_path):
    run = make_run(tmp_path, SHIPPED)
    config = run.config()
    template = (SHIPPED / "template.txt").read_text()
    Path(config.verifier.template).write_text(template)
    settings = "verify:\n  mode: generative\n  engine: {kv_cache_mb: 64, enforce_eager: true}\n"
    text = run.config_path.read_text()
    run.config_path.write_text(text[: text.index("verify:")] + settings + text[text.index("grpo:") :])
    rows = [
        rollout(0, 0, question="Is 7 greater than 3?", answer="yes", response="\\boxed{no}"),
        rollout(0, 1, question="What is 1/2 + 1/4 ?", answer="0.75", response="\\boxed{zebra crossing}"),
        rollout(0, 2, question="What is 1/2 + 1/4 ?", answer="0.75", response="\\boxed{zebra crossing}"),
        rollout(0, 3, question="?", answer="0.75", response="none"),
    ]
    run.queue("rollouts").put(SHARD, rows)
    main(run.path, Lifetime(job="local-1"))
    verdicts = run.queue("verdicts").claim("reader").rows
    assert [v.layer for v in verdicts] == ["generative", "generative", "generative", "extract"]
    assert all("Final Decision:" in v.reason for v in verdicts[:3])
    assert [v.reused for v in verdicts] == [False, False, True, False]
    assert verdicts[1].decision == verdicts[2].decision == NO
    assert [e["event"] for e in read_events(run.events_dir)] == ["start", "ready", "shard", "stop"]
