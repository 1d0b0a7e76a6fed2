"""Tasks that meet the same question at the same moment: one asks the judge, the others wait for what it hears."""

import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from asking_task import SHARDS, shard
from openai_server import Server
from verify_rows import TEMPLATE, Host, yes

from grhpc.config import EndpointConfig, VerifierConfig
from grhpc.errors import EngineError, WaitTimeout
from grhpc.judge.decide import Decided, Pair
from grhpc.judge.endpoint_judge import EndpointJudge
from grhpc.judge.engine_judge import EngineJudge
from grhpc.judge.generative import GenerativeDecider
from grhpc.records import NO_VERDICT, YES
from grhpc.store.decisions import DecisionLog

HERE = Path(__file__).parent
LIMIT_S = 200.0  # for what comes at once unless something is broken


def pair(answer: str, question: str = "q") -> Pair:
    return Pair(question, "5", answer)


class Scene:
    """Tasks of one run, each in a thread. `asked` is what any of their judges was asked, in order; a task that waits
    for another one is in `waiting`; `moved` tells of each such change."""

    def __init__(self, folder, tokenizer) -> None:
        (folder / "template.txt").write_text(TEMPLATE)
        self.folder, self.tokenizer = folder, tokenizer
        self.asked: list[tuple[str, str]] = []
        self.waiting: set[str] = set()
        self.stopped: set[str] = set()
        self.moved = threading.Condition()
        self.go_on = threading.Event()
        self.pool = ThreadPoolExecutor(8)

    def slow(self, prompt: str) -> str:
        """A judge that answers when the test lets it."""
        assert self.go_on.wait(LIMIT_S)
        return yes(prompt, 1)

    def task(self, name: str, answer: Callable[[str], str] = lambda prompt: yes(prompt, 1), **log) -> "Task":
        """`answer` sees what the judge is asked, when it is asked."""

        def ask(prompt: str, attempt: int) -> str:
            with self.moved:
                self.asked.append((name, prompt.split("Student: ")[1].split("\n")[0]))
                self.moved.notify_all()
            return answer(prompt)

        verifier = self.verifier()
        memory = DecisionLog(self.folder / "decisions", run_id="r", task=name, **log)
        return Task(
            self, name, EngineJudge(Host(self.tokenizer, ask), self.tokenizer, verifier, 0, "m"), verifier, memory
        )

    def verifier(self, **endpoint) -> VerifierConfig:
        settings = EndpointConfig(**endpoint)
        return VerifierConfig("m", template=str(self.folder / "template.txt"), max_new_tokens=40, endpoint=settings)

    def until(self, true: Callable[[], bool]) -> None:
        with self.moved:
            assert self.moved.wait_for(true, LIMIT_S), f"asked {self.asked}, waiting {self.waiting}"

    def until_waits_or_asks(self, name: str, answer: str) -> None:
        """What holds a first task back until the second has met its question too, whatever that one makes of it."""
        self.until(lambda: name in self.waiting or (name, answer) in self.asked)

    def left(self) -> list[str]:
        return [path.name for path in (self.folder / "decisions").iterdir() if not path.name.endswith(".jsonl")]


class Task:
    def __init__(self, scene: Scene, name: str, judge, verifier: VerifierConfig, memory: DecisionLog) -> None:
        self.scene, self.name, self.memory = scene, name, memory
        self.decider = GenerativeDecider(judge, verifier, memory)
        self.too_late_for: set[str] = set()  # topics that another task was quicker with
        take = memory._claims.take

        def seen(names):
            taken = take(names - self.too_late_for)
            with scene.moved:
                (scene.waiting.discard if taken else scene.waiting.add)(name)
                scene.moved.notify_all()
            return taken

        memory._claims.take = seen

    def topics(self, *pairs: Pair) -> set[str]:
        return {key.topic.hex() for key in self.decider._keys({p: p.answer for p in pairs}).values()}

    def decide(self, *pairs: Pair):
        return self.scene.pool.submit(
            self.decider.decide, pairs, lambda: self.name in self.scene.stopped, f"shard of {self.name}"
        )


@pytest.fixture
def scene(tmp_path, tokenizer):
    made = Scene(tmp_path, tokenizer)
    yield made
    made.stopped |= {"1", "2"}
    made.go_on.set()
    made.pool.shutdown()


def by(decided: Decided) -> dict[str, str]:
    return {p.answer: decision.by for p, decision in decided.decisions.items()}


def test_two_tasks_that_meet_the_same_questions_ask_each_once(scene):
    """The second one first asks what is its own alone, and has waited for the rest before the first one is done."""

    def slow(prompt):
        scene.until_waits_or_asks("2", "5")
        return yes(prompt, 1)

    first = scene.task("1", slow).decide(pair("5"), pair("6"))
    scene.until(lambda: bool(scene.asked))
    second = scene.task("2").decide(pair("5"), pair("6"), pair("7", "another"))
    one, two = first.result(LIMIT_S), second.result(LIMIT_S)
    assert scene.asked == [("1", "5"), ("2", "7"), ("1", "6")]
    assert by(one) == {"5": "", "6": ""} and by(two) == {"5": "1 shard of 1", "6": "1 shard of 1", "7": ""}
    assert (one.asked, two.asked, two.reused) == (2, 1, {pair("5"), pair("6")})
    assert one.asked_twice == two.asked_twice == 0
    assert scene.left() == []


def test_tasks_that_hold_what_the_other_needs_do_not_block_each_other(scene):
    """Both need both questions, and each is the first with one of them."""

    def together(prompt):
        scene.until(lambda: len(scene.asked) == 2)
        return yes(prompt, 1)

    one, two = scene.task("1", together), scene.task("2", together)
    left, right = pair("5", "left"), pair("6", "right")
    one.too_late_for, two.too_late_for = one.topics(right), two.topics(left)
    futures = [task.decide(left, right) for task in (one, two)]
    scene.until(lambda: len(scene.asked) == 2)
    one.too_late_for = two.too_late_for = set()
    for future in futures:
        assert {d.decision for d in future.result(LIMIT_S).decisions.values()} == {YES}
    assert sorted(scene.asked) == [("1", "5"), ("2", "6")]


def test_no_decision_is_no_news_for_the_one_who_waits(scene):
    """It asks, once the first has given up: no verdict is never shared."""

    def undecided(prompt):
        scene.until_waits_or_asks("2", "5")
        return "hm"

    first = scene.task("1", undecided).decide(pair("5"))
    scene.until(lambda: bool(scene.asked))
    second = scene.task("2").decide(pair("5"))
    assert first.result(LIMIT_S).decisions[pair("5")].decision == NO_VERDICT
    assert second.result(LIMIT_S).decisions[pair("5")].decision == YES
    assert Counter(scene.asked) == {("1", "5"): 2, ("2", "5"): 1}


def test_a_judge_that_fails_frees_its_questions_at_once(scene):
    """What it decided before it failed is not asked again."""

    def fail(prompt):
        if "Student: 13" not in prompt:
            return yes(prompt, 1)
        scene.until_waits_or_asks("2", "13")
        raise EngineError("it broke")

    one = scene.task("1", fail)
    one.decide(pair("12")).result(LIMIT_S)
    first = one.decide(pair("13"))
    scene.until(lambda: ("1", "13") in scene.asked)
    second = scene.task("2").decide(pair("12"), pair("13"))
    with pytest.raises(EngineError):
        first.result(LIMIT_S)
    assert by(second.result(LIMIT_S)) == {"12": "1 shard of 1", "13": ""}
    assert scene.asked == [("1", "12"), ("1", "13"), ("2", "13")]
    assert scene.left() == []


def test_a_task_that_waits_stops_when_it_is_to(scene):
    first = scene.task("1", scene.slow).decide(pair("5"))
    scene.until(lambda: bool(scene.asked))
    second = scene.task("2").decide(pair("5"))
    scene.until(lambda: "2" in scene.waiting)
    scene.stopped.add("2")
    assert second.result(LIMIT_S) is None
    scene.go_on.set()
    assert first.result(LIMIT_S).asked == 1
    assert scene.asked == [("1", "5")] and scene.left() == []


def test_a_task_that_is_to_stop_while_it_asks_frees_its_questions(scene):
    scene.stopped.add("1")
    assert scene.task("1").decide(pair("5")).result(LIMIT_S) is None
    assert scene.left() == []


def test_waiting_is_told_of_and_has_an_end(scene, monkeypatch):
    monkeypatch.setattr("grhpc.store.decisions._TELL_AFTER_S", 0.0)
    told = []
    first = scene.task("1", scene.slow).decide(pair("5"))
    scene.until(lambda: bool(scene.asked))
    second = scene.task("2", wait_s=0.2, on_wait=lambda what, since_s: told.append(what)).decide(pair("5"))
    with pytest.raises(WaitTimeout, match="for 1 to hear from the judge"):
        second.result(LIMIT_S)
    scene.go_on.set()
    assert first.result(LIMIT_S).asked == 1
    assert told == ["1 to hear from the judge what is to be asked here too"]
    assert scene.asked == [("1", "5")]


def test_an_endpoint_that_costs_money_is_asked_once(scene):
    """One server for both tasks: it answers the first request only when the second task waits, or has asked too."""
    requests: list[str] = []

    def answer(prompt):
        with scene.moved:
            requests.append(prompt)
            scene.moved.notify_all()
        scene.until(lambda: "2" in scene.waiting or len(requests) == 2)
        return "The same. Final Decision: Yes"

    server = Server(answer)
    verifier = scene.verifier(url=server.url, timeout_s=LIMIT_S)
    tasks = []
    for name in ("1", "2"):
        judge = EndpointJudge(verifier, 0, lambda texts: {"input_ids": [text.split() for text in texts]})
        memory = DecisionLog(scene.folder / "decisions", run_id="r", task=name)
        tasks.append(Task(scene, name, judge, verifier, memory))
    first = tasks[0].decide(pair("5"))
    scene.until(lambda: bool(requests))
    second = tasks[1].decide(pair("5"))
    assert first.result(LIMIT_S).asked == 1
    assert (second.result(LIMIT_S).asked, by(second.result())) == (0, {"5": "1 shard of 1"})
    assert len(requests) == 1
    for task in tasks:
        task.decider.close()
    server.die()


def test_processes_that_race_through_the_same_shards_ask_each_question_once(tmp_path):
    paths = os.pathsep.join([str(HERE.parents[1]), str(HERE)])
    words = [sys.executable, str(HERE / "asking_task.py"), str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    tasks = [subprocess.Popen([*words, f"7_{n}"], env=os.environ | {"PYTHONPATH": paths}, **pipes) for n in range(3)]
    for task in tasks:
        assert task.stdout.readline() == "ready\n"
    for task in tasks:
        task.stdin.write("go\n")
        task.stdin.flush()
    asked = [int(task.communicate(timeout=LIMIT_S)[0]) for task in tasks]
    assert sum(asked) == len({pair for number in range(SHARDS) for pair in shard(number)})
    log = DecisionLog(tmp_path, run_id="r", task="7_9")
    log.recall([])
    assert len(log._places) == sum(asked)
    assert [path.name for path in tmp_path.iterdir() if not path.name.endswith(".jsonl")] == []
