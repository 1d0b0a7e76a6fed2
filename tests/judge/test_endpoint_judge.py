"""A judge behind an address: a server that fails in every way it can, and a real `vllm serve`."""

import contextlib
import email.utils
import math
import random
import threading
import time
from dataclasses import replace

import pytest
from openai_server import BROKEN, CUT, DRIP, PAGE, Server
from until_empty import UntilEmpty
from verify_rows import make_run, rollout
from vllm_server import NAME
from vllm_server import SERVED as SHIPPED

from grhpc.config import EndpointConfig, VerifierConfig
from grhpc.config_file import check
from grhpc.engine.pacing import LONGEST_WAIT_S, back_off_s
from grhpc.engine.probe import PROBE
from grhpc.engine.server import Server as EndpointServer
from grhpc.engine.tokenizer import load_tokenizer
from grhpc.errors import ConfigError, EngineError, Unavailable
from grhpc.judge.decide import Pair
from grhpc.judge.endpoint_judge import MANY, EndpointJudge
from grhpc.judge.generative import GenerativeDecider
from grhpc.judge.make import make_decider
from grhpc.lifetime import Lifetime
from grhpc.records import NO, NO_VERDICT, YES
from grhpc.store.events import read_events
from grhpc.store.serving import serve
from grhpc.verify.worker import VerifyWorker

LONG_S = 200.0  # for what comes at once where the machine is not busy
RIGHT, WRONG = "The same. Final Decision: Yes", "Not the same. Final Decision: No"


def words_of(texts: list[str]) -> dict[str, list[list[str]]]:
    """In the place of a tokenizer: a word is a token."""
    return {"input_ids": [text.split() for text in texts]}


def never() -> bool:
    return False


def by_answer(prompt: str) -> str:
    return RIGHT if "Student: 5" in prompt else WRONG


@pytest.fixture
def server():
    it = Server(by_answer)
    yield it
    it.die()


def settings(server, **endpoint) -> VerifierConfig:
    """A try has longer than a busy machine needs: where a server is silent, the test says how much shorter."""
    bounded = {"timeout_s": 60.0, "max_retries": 0} | endpoint
    return VerifierConfig("a-judge", endpoint=EndpointConfig(url=server.url, **bounded))


def time_for(fault) -> float:
    """The seconds of a try: few where they all pass, and more than a busy machine needs where none is waited for."""
    return 2.0 if fault in (DRIP, None) else 60.0


def texts(replies) -> list[str]:
    return [reply.text for reply in replies]


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_every_prompt_gets_its_own_answer_in_order(server, api):
    server.answer = lambda prompt: f"heard {prompt}"
    judge = EndpointJudge(settings(server, api=api, concurrency=3, price_in=2.0, price_out=30.0), 0, words_of)
    prompts = [f"question {i}" for i in range(20)]
    assert texts(judge.ask(prompts, 1, never)) == [f"heard {prompt}" for prompt in prompts]
    assert sorted(server.prompts) == sorted(prompts) and 1 <= server.most_at_once <= 3
    # 20 requests of 100 and 10 tokens: 2,000 x 2.0 / 1e6 + 200 x 30.0 / 1e6
    tokens = {"prompt_tokens": 2000, "new_tokens": 200, "cost": pytest.approx(0.01)}
    assert judge.usage() == {"requests": 20, "retries": 0, **tokens}


def test_the_key_comes_from_the_environment_and_is_shown_nowhere(server, monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-secret")
    judge = EndpointJudge(settings(server, api_key_env="MY_KEY"), 0, words_of)
    judge.ask(["q"], 1, never)
    assert server.keys == {"Bearer sk-secret"}
    server.answer = lambda prompt: (401, "wrong key")
    with pytest.raises(ConfigError, match="refuses the key: 401") as caught:
        judge.ask(["q"], 1, never)
    assert "sk-secret" not in f"{caught.value} {vars(caught.value)} {judge.identity}"
    server.answer = lambda prompt: (401, f"{'x' * 190} Invalid API key: sk-secret (in Authorization)")
    with pytest.raises(ConfigError, match=r"Invalid") as caught:
        judge.ask(["q"], 1, never)
    assert "sk-" not in f"{caught.value}"
    server.answer = lambda prompt: (400, "Invalid API key: sk-secret")
    assert judge.ask(["q"], 1, never)[0].problem.endswith("400 Invalid API key: ***")
    monkeypatch.delenv("MY_KEY")
    with pytest.raises(ConfigError, match="MY_KEY is not set"):
        EndpointJudge(settings(server, api_key_env="MY_KEY"), 0, words_of)


def test_a_request_is_tried_again_so_many_times_and_no_more(server):
    fails = [(503, "overloaded"), (429, "slow down")]
    server.answer = lambda prompt: fails.pop() if fails else RIGHT
    judge = EndpointJudge(settings(server, max_retries=2), 0, words_of)
    assert texts(judge.ask(["q"], 1, never)) == [RIGHT]
    assert len(server.prompts) == 3
    server.answer = lambda prompt: (503, "overloaded")
    with pytest.raises(Unavailable, match="does not answer: 503 overloaded"):
        judge.ask(["q"], 1, never)
    assert len(server.prompts) == 6 and not judge.running
    assert server.probes == 0 and judge.usage().items() >= {"requests": 6, "retries": 4, "new_tokens": 10}.items()


def test_tries_again_take_their_turns_too(server):
    """At ten a second: five tries of one question cannot all come within two gaps."""
    fails = [(429, "slow down")] * 4
    server.answer = lambda prompt: fails.pop() if fails else RIGHT
    judge = EndpointJudge(settings(server, max_retries=4, requests_per_min=60.0), 0, words_of)  # one a second
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("grhpc.engine.endpoint.back_off_s", lambda failed, wish: 0.0)
        begun_s = time.monotonic()
        assert texts(judge.ask(["q"], 1, never)) == [RIGHT]
    assert time.monotonic() - begun_s >= 4


def test_the_server_may_say_when_to_try_again(server, monkeypatch):
    fails = [(429, "slow down", {"Retry-After": "7"}), (503, "busy")]
    server.answer = lambda prompt: fails.pop() if fails else RIGHT
    asked = []
    monkeypatch.setattr("grhpc.engine.endpoint.back_off_s", lambda *words: asked.append(words) or 0.0)
    assert texts(EndpointJudge(settings(server, max_retries=2), 0, words_of).ask(["q"], 1, never)) == [RIGHT]
    assert asked == [(1, None), (2, "7")]


def test_the_wait_between_tries_grows_and_has_an_end():
    in_50_s = email.utils.formatdate(time.time() + 50, usegmt=True)
    assert all(0.3 <= back_off_s(1, None) <= 0.7 and 3 <= back_off_s(4, None) <= 5 for _ in range(100))
    assert back_off_s(99, None) == back_off_s(1, "86400") == back_off_s(1, "9" * 400) == LONGEST_WAIT_S
    assert back_off_s(1, "7") == 7 and 10 <= back_off_s(1, in_50_s) <= 51
    assert all(back_off_s(1, rubbish) < 1 for rubbish in ("", "soon", "-5", "nan", "Mon, 99 Foo 2026", "1e9"))


@pytest.mark.parametrize("fault", [DRIP, None], ids=["drips", "hangs"])
def test_a_try_has_its_time_however_slowly_the_server_drips(server, fault):
    """A byte comes within every read's limit, and the whole answer never."""
    server.answer = lambda prompt: fault
    judge = EndpointJudge(settings(server, timeout_s=1.5, max_retries=1), 0, words_of)
    with pytest.raises(Unavailable, match=r"does not answer: nothing whole in 1\.5 s"):
        judge.ask(["q"], 1, never)
    assert len(server.prompts) == 2 and server.dripped < 2 * 600, "each answer alone takes a minute"


def test_a_judge_that_is_let_go_of_leaves_no_thread_behind(server):
    server.answer = lambda prompt: DRIP
    before = set(threading.enumerate())
    judge = EndpointJudge(settings(server, timeout_s=60.0), 0, words_of)
    assert judge.ask(["a", "b", "c"], 1, lambda: len(server.prompts) == 3) is None
    judge.close()
    mine = {thread for thread in threading.enumerate() if "process_request" not in thread.name}
    assert mine <= before


def test_what_was_answered_before_a_failure_is_not_asked_again(server):
    """Paid for is paid for."""
    server.answer = lambda prompt: (503, "overloaded") if "third" in prompt or prompt == PROBE else RIGHT
    asked_of = replace(settings(server, concurrency=1), template="chat")
    decider = GenerativeDecider(EndpointJudge(asked_of, 0, words_of), asked_of)
    pairs = [Pair(question, "5", "6") for question in ("first", "second", "third", "fourth")]
    with pytest.raises(Unavailable):
        decider.decide(pairs, never)
    server.answer, before = lambda prompt: RIGHT, len(server.prompts)
    assert decider.decide(pairs[:3], never).reused == set(pairs[:2])
    assert len(server.prompts) == before + 1


def test_what_was_answered_before_a_stop_is_not_asked_again(server):
    server.answer = lambda prompt: None if "second" in prompt else RIGHT
    asked_of = replace(settings(server, timeout_s=60.0), template="chat")
    judge = EndpointJudge(asked_of, 0, words_of)
    decider = GenerativeDecider(judge, asked_of)
    pairs = [Pair(question, "5", "6") for question in ("first", "second")]
    assert decider.decide(pairs, lambda: judge.usage()["new_tokens"] > 0) is None
    assert decider.decide(pairs[:1], never).reused == {pairs[0]}


def test_a_question_that_is_too_long_is_not_sent(server):
    """By the tokens of verifier.model, as for a judge in the task."""
    asked_of = replace(settings(server), max_input_tokens=3)
    judge = EndpointJudge(asked_of, 0, words_of)
    fits, long = judge.ask(["a b c", "a b c d"], 1, never)
    assert fits.text == WRONG and server.prompts == ["a b c"]
    assert long.refused and long.problem == "the judge's prompt has 4 tokens, more than 3"
    assert all(reply.refused for reply in judge.ask(["a b c d"] * MANY, 1, never)), "not the server's refusal"


def test_another_model_under_the_same_name_is_another_judge(server):
    asked_of = settings(server)
    judge = EndpointJudge(asked_of, 0, words_of)
    decider = GenerativeDecider(judge, replace(asked_of, template="chat"))
    pair = Pair("q", "5", "5")
    for number, root in enumerate(("/models/one", "/models/one", "/models/two"), 1):
        server.models = [{"id": "other", "root": "?"}, {"id": "a-judge", "root": root, "created": number}]
        judge.close()  # as after a failure: it is reached anew
        decider.start()
        assert root in judge.identity
        decider.decide([pair], never)
    assert len(server.prompts) == 2


def test_a_refused_question_is_that_questions_problem_alone(server):
    server.answer = lambda prompt: (400, "too long") if prompt == "long" else RIGHT
    judge = EndpointJudge(settings(server), 0, words_of)
    short, long = judge.ask(["short", "long"], 1, never)
    assert short.text == RIGHT and not short.problem
    assert long.refused and "400 too long" in long.problem and judge.running


def test_a_server_that_refuses_every_question_is_an_error_and_no_verdict(server):
    """A model that does not take a setting, for instance: else every group of the run would be dropped in silence."""
    server.answer = lambda prompt: (400, "temperature is not supported")
    with pytest.raises(EngineError, match=r"refused all of 8 questions.*temperature is not supported"):
        EndpointJudge(settings(server), 0, words_of).ask([str(i) for i in range(8)], 1, never)


POISON = {
    "fails": (500, "internal error"),
    "too large": (413, "request entity too large"),
    "forbidden": (403, "blocked by the firewall"),
    "unknown": (404, "no such page"),
    "a page": PAGE,
    "broken": BROKEN,
    "drips": DRIP,
    "hangs": None,
}


@pytest.mark.parametrize("fault", POISON)
@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_question_that_always_fails_is_that_questions_problem_alone(server, fault, concurrency):
    """While the server answers others: those beside it, or, where there are none, small ones of ours. It is asked five
    times more alone, once where that takes its whole time, and never where the server said that it will not take it."""
    server.answer = lambda prompt: POISON[fault] if prompt == "poison" else RIGHT
    judge = EndpointJudge(settings(server, timeout_s=time_for(POISON[fault]), concurrency=concurrency), 0, words_of)
    told = judge.ask(["a", "poison", "b", "c"], 1, never)
    assert texts(told) == [RIGHT, "", RIGHT, RIGHT] and judge.running
    assert told[1].refused and told[1].problem
    assert judge.ask(["poison"], 1, never)[0].refused
    asked = {"too large": 2, "drips": 4, "hangs": 4}.get(fault, 1 + 5)
    assert server.prompts.count("poison") == asked and len(server.prompts) == asked + 3, "the others were bought once"


def test_a_task_goes_on_with_a_question_that_always_fails(server, tmp_path, tokenizer_dir):
    """In each of two shards, one of them nothing but it: no verdict on it, no attempt spent, and all others judged."""
    run, life = make_run(tmp_path, tokenizer_dir, idle_s=60.0), Lifetime(job="local-1")
    decider = GenerativeDecider(EndpointJudge(settings(server), 0, words_of), run.config().verifier)
    worker = VerifyWorker(run, run.config(), life, run.events("verify", "local-1"), decider)
    for group, answers in ((0, ["13"]), (1, ["5", "13", "6"]), (2, ["5", "7"])):
        rows = [rollout(group, k, response=f"\\boxed{{{answer}}}") for k, answer in enumerate(answers)]
        run.queue("rollouts").put(f"g{group:08d}-0001", rows)
    server.answer = lambda prompt: (500, "internal error") if "Student: 13" in prompt else by_answer(prompt)
    serve(run, "rollouts", UntilEmpty(run, "rollouts", worker), life, run.events("verify", "local-1"))
    found = {}
    while (lease := run.queue("verdicts").claim("reader")) is not None:
        assert lease.attempt == 1
        found |= {(row.group, row.extracted): row for row in lease.rows}
        lease.done()
    decisions = {place: row.decision for place, row in found.items()}
    lost = {(0, "13"): NO_VERDICT, (1, "13"): NO_VERDICT}
    assert decisions == lost | {(1, "5"): YES, (1, "6"): NO, (2, "5"): YES, (2, "7"): NO}
    assert all(math.isnan(found[place].reward) and "500 internal error" in found[place].reason for place in lost)
    assert server.prompts.count(next(p for p in server.prompts if "number 0" in p)) == 1 + 5, "among others, and alone"


def test_a_server_that_fails_many_questions_and_answers_a_small_one_is_an_error(server):
    """A time limit that is too short, for instance: else every group of the run would be dropped in silence."""
    server.answer = lambda prompt: RIGHT if prompt == PROBE else (500, "out of memory")
    with pytest.raises(EngineError, match=r"refused all of 8 questions.*500 out of memory") as caught:
        EndpointJudge(settings(server), 0, words_of).ask([str(i) for i in range(MANY)], 1, never)
    assert not isinstance(caught.value, Unavailable)


def ask_until_answered(judge: EndpointJudge, questions: list[str], most: int = 1000) -> list:
    """Every reply that was heard, a task's way: what an overloaded server left open is asked again."""
    heard, calls = {}, 0
    while left := [question for question in questions if question not in heard]:
        calls += 1
        assert calls <= most
        with contextlib.suppress(Unavailable):
            judge.ask(left, 1, never, heard.update)
    return [heard[question] for question in questions]


@pytest.mark.parametrize("fault", [(408, "x"), (409, "x"), (425, "x"), (429, "x"), (503, "x"), CUT])
def test_a_server_that_has_too_much_to_do_says_nothing_of_the_question(server, fault):
    """Also where a small question passes, and others beside it are answered."""
    server.answer = lambda prompt: fault if prompt == "unlucky" and server.prompts.count(prompt) <= 2 else RIGHT
    judge = EndpointJudge(settings(server), 0, words_of)
    for questions in (["a", "unlucky"], ["unlucky"]):
        with pytest.raises(Unavailable, match="does not answer"):
            judge.ask(questions, 1, never)
    assert texts(judge.ask(["unlucky"], 1, never)) == [RIGHT]


@pytest.mark.parametrize(("status", "together"), [(429, 48), (503, 48), (500, 1)])
def test_where_half_of_all_requests_fail_at_random_no_question_is_refused(server, monkeypatch, status, together):
    """Also where none is beside it, and a single further try would blame every sixteenth."""
    monkeypatch.setattr("grhpc.engine.endpoint.back_off_s", lambda failed, wish: 0.0)
    coin = random.Random(7)
    server.answer = lambda prompt: (status, "not now") if coin.random() < 0.5 else RIGHT
    judge = EndpointJudge(settings(server, timeout_s=30.0, max_retries=together > 1, concurrency=8), 0, words_of)
    questions = [f"question {i}" for i in range(48)]
    for first in range(0, 48, together):
        replies = ask_until_answered(judge, questions[first : first + together])
        assert texts(replies) == [RIGHT] * together
    assert "given_up" not in judge.usage()


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_question_at_fault_is_found_where_requests_fail_at_random(server, monkeypatch, status):
    monkeypatch.setattr("grhpc.engine.endpoint.back_off_s", lambda failed, wish: 0.0)
    coin = random.Random(7)

    def answer(prompt: str):
        if coin.random() < 0.2:
            return (status, "not now")
        return (500, "internal error") if prompt == "poison" else RIGHT

    server.answer = answer
    judge = EndpointJudge(settings(server, timeout_s=30.0, max_retries=1, concurrency=8), 0, words_of)
    replies = ask_until_answered(judge, [*(f"question {i}" for i in range(16)), "poison"])
    assert texts(replies) == [RIGHT] * 16 + [""] and replies[16].refused and judge.usage()["given_up"] == 1


@pytest.mark.parametrize(
    ("fault", "concurrency"), [(CUT, 1), (CUT, 4), ((503, "restarting"), 4), ((502, "bad gateway"), 4)]
)
def test_a_question_that_brings_the_server_down_each_time_is_given_up(server, fault, concurrency):
    """Where those beside it fall with it twice, and it alone five times more; each time the server comes back."""
    down, lock = [0], threading.Lock()

    def answer(prompt: str):
        with lock:
            if prompt == "poison":
                down[0] += 2  # as many requests find it away
                return fault
            if down[0]:
                down[0] -= 1
                return fault
        time.sleep(0.02)
        return RIGHT

    server.answer = answer
    judge = EndpointJudge(settings(server, concurrency=concurrency), 0, words_of)
    replies = ask_until_answered(judge, ["poison", *(f"question {i}" for i in range(12))], most=60)
    assert texts(replies) == [""] + [RIGHT] * 12
    assert replies[0].refused and "of others an answer came, of this none" in replies[0].problem
    asked = server.prompts.count("poison")
    assert 5 < asked <= 2 + 5 and judge.usage()["given_up"] == 1
    assert judge.ask(["poison"], 1, never)[0].refused and server.prompts.count("poison") == asked, "not asked again"
    assert judge.usage()["given_up"] == 1


@pytest.mark.parametrize("status", [409, 429])
def test_what_meets_an_overload_for_ever_is_never_refused(server, status):
    """As a long question beyond what is left of the tokens a minute, where small ones pass."""
    server.answer = lambda prompt: (status, "slow down") if prompt == "long" else RIGHT
    judge = EndpointJudge(settings(server), 0, words_of)
    for _ in range(12):
        with pytest.raises(Unavailable, match=rf"does not answer: {status} slow down \("):
            judge.ask(["a", "long"], 1, never)


def test_a_task_goes_on_with_a_question_that_brings_the_server_down(server, tmp_path, tokenizer_dir):
    """No verdict on it, all others judged, no attempt spent; events say what went on."""
    run, life = make_run(tmp_path, tokenizer_dir, idle_s=60.0), Lifetime(job="local-1")
    decider = GenerativeDecider(EndpointJudge(settings(server), 0, words_of), run.config().verifier)
    worker = VerifyWorker(run, run.config(), life, run.events("verify", "local-1"), decider)
    rows = [rollout(0, k, response=f"\\boxed{{{answer}}}") for k, answer in enumerate(["13", "5", "6"])]
    run.queue("rollouts").put("g00000000-0001", rows)
    server.answer = lambda prompt: CUT if "Student: 13" in prompt else by_answer(prompt)
    serve(run, "rollouts", UntilEmpty(run, "rollouts", worker), life, run.events("verify", "local-1"))
    lease = run.queue("verdicts").claim("reader")
    assert (lease.attempt, [row.decision for row in lease.rows]) == (1, [NO_VERDICT, YES, NO])
    alone = [e["problem"] for e in told(run, "error") if "asked alone, one question" in e["problem"]]
    assert [f"failures {n} times" in problem for n, problem in enumerate(alone, 1)] == [True] * 5
    assert told(run, "shard")[-1]["so_far"]["given_up"] == 1


@pytest.mark.parametrize("fault", [(500, "out of memory"), (504, "upstream"), BROKEN, DRIP, None])
def test_a_question_that_fails_among_others_and_passes_alone_is_answered(server, fault):
    """As a long one for which a server under load has no time."""
    beside: list[int] = []

    def answer(prompt: str):
        if prompt != "long":
            time.sleep(0.2)
            return RIGHT
        beside.append(server.at_once - 1)
        return fault if len(beside) == 1 else WRONG

    server.answer = answer
    judge = EndpointJudge(settings(server, timeout_s=time_for(fault), concurrency=2), 0, words_of)
    prompts = ["long", *(f"short {i}" for i in range(8))]
    assert texts(judge.ask(prompts, 1, never)) == [WRONG] + [RIGHT] * 8
    assert len(server.prompts) == 10 and server.prompts[-1] == "long" and beside[1] == 0
    assert judge.usage()["retries"] == 1


@pytest.mark.parametrize("fault", [(429, "slow down"), CUT])
def test_a_question_that_meets_an_overload_when_asked_alone_is_not_refused(server, fault):
    faults = [fault, (500, "internal error")]
    server.answer = lambda prompt: faults.pop() if faults and prompt == "unlucky" else RIGHT
    judge = EndpointJudge(settings(server), 0, words_of)
    with pytest.raises(Unavailable, match="does not answer"):
        judge.ask(["a", "unlucky"], 1, never)
    assert texts(judge.ask(["unlucky"], 1, never)) == [RIGHT]


def test_a_blocked_question_beside_an_overload_is_no_wrong_key(server):
    """A firewall's 403 while the small question meets 429: the task waits, and does not end for good."""
    busy = [(429, "slow down")]
    server.answer = lambda prompt: (403, "blocked") if prompt == "poison" else busy.pop() if busy else RIGHT
    judge = EndpointJudge(settings(server), 0, words_of)
    with pytest.raises(Unavailable, match="429 slow down"):
        judge.ask(["poison"], 1, never)
    assert judge.ask(["poison"], 1, never)[0].refused


def test_a_stopped_task_does_not_wait_for_a_question_asked_alone(server):
    server.answer = lambda prompt: RIGHT if prompt != "q" else (500, "x") if len(server.prompts) == 1 else None
    judge = EndpointJudge(settings(server, timeout_s=60.0), 0, words_of)
    assert judge.ask(["q"], 1, lambda: len(server.prompts) == 2) is None


@pytest.mark.parametrize("status", [500, 503])
def test_what_is_on_its_way_when_the_server_goes_away_is_heard_and_no_more_is_sent(server, status, monkeypatch):
    """The slow answer comes when the judge has seen that the server is away."""
    seen, failure = threading.Event(), EndpointServer.failure

    def answer(prompt: str):
        if prompt == "slow":
            assert seen.wait(LONG_S)
            time.sleep(0.5)
            return RIGHT
        return (status, "going down")

    server.answer = answer
    monkeypatch.setattr(EndpointServer, "failure", lambda it, error: (seen.set(), failure(it, error))[1])
    judge = EndpointJudge(settings(server, concurrency=2), 0, words_of)
    heard = {}
    with pytest.raises(Unavailable, match=f"{status} going down"):
        judge.ask(["slow", "bad", "later", "never"], 1, never, heard.update)
    assert {prompt: reply.text for prompt, reply in heard.items()} == {"slow": RIGHT}
    assert set(server.prompts) == {"slow", "bad"} and not judge.running


def test_a_server_that_was_away_is_back_when_it_answers_a_question(server):
    """Not when it only lists its models again."""
    server.answer = lambda prompt: (503, "loading")
    judge = EndpointJudge(settings(server), 0, words_of)
    judge.start()
    for begin in (lambda: judge.ask(["q"], 1, never), judge.start, judge.start):
        with pytest.raises(Unavailable, match="503 loading"):
            begin()
        assert not judge.running
    server.answer = lambda prompt: RIGHT
    judge.start()
    assert judge.running and server.prompts == ["q"]


@pytest.mark.parametrize("page", [PAGE, BROKEN])
def test_a_page_that_is_no_judge_is_away(server, page):
    server.answer = lambda prompt: page
    with pytest.raises(Unavailable, match="no judge: not JSON"):
        EndpointJudge(settings(server, timeout_s=30.0), 0, words_of).ask(["q"], 1, never)


def test_a_stopped_task_does_not_wait_for_its_turns(server):
    judge = EndpointJudge(settings(server, requests_per_min=1.0, concurrency=4), 0, words_of)  # a turn a minute
    assert judge.ask(["a", "b", "c", "d"], 1, lambda: bool(server.prompts)) is None


def test_no_more_requests_start_in_a_minute_than_allowed(server):
    judge = EndpointJudge(settings(server, requests_per_min=600.0), 0, words_of)  # one every 0.1 s
    begun_s = time.monotonic()
    judge.ask([str(i) for i in range(6)], 1, never)
    assert time.monotonic() - begun_s >= 0.5  # five gaps: a lower bound that no machine can undercut


def test_a_drain_does_not_wait_for_answers(server):
    server.answer = lambda prompt: None
    judge = EndpointJudge(settings(server, timeout_s=20.0), 0, words_of)
    assert judge.ask(["q"], 1, lambda: bool(server.prompts)) is None


def test_a_template_that_writes_its_own_turns_is_not_put_into_a_turn(tmp_path):
    config = make_run(tmp_path, tmp_path).config()
    verifier = replace(config.verifier, template="general-verifier", endpoint=EndpointConfig(url="http://x/v1"))
    with pytest.raises(ConfigError, match="writes the turns"):
        check(replace(config, verifier=verifier))


def test_a_judge_elsewhere_is_not_bound_by_an_engine_of_ours(tmp_path):
    config = make_run(tmp_path, tmp_path).config()
    verify = replace(config.verify, engine=replace(config.verify.engine, max_model_tokens=100))
    with pytest.raises(ConfigError, match="max_model_tokens is 100"):
        check(replace(config, verify=verify))
    verifier = replace(config.verifier, template="chat", endpoint=EndpointConfig(url="http://x/v1"))
    check(replace(config, verify=verify, verifier=verifier))


SILENT, GONE = "silent", "gone"


@pytest.mark.parametrize("fault", [SILENT, GONE, (503, "restarting")], ids=["hangs", "dies", "fails"])
def test_while_the_judge_is_away_no_sample_is_judged_and_the_task_says_so_and_goes_on(
    server, tmp_path, tokenizer_dir, fault
):
    """One shard is judged, the judge goes away under the second, and comes back."""
    run, life = make_run(tmp_path, tokenizer_dir, room=1, idle_s=60.0), Lifetime(job="local-1")
    decider = GenerativeDecider(
        EndpointJudge(settings(server, timeout_s=1.0 if fault is SILENT else 60.0), 0, words_of), run.config().verifier
    )
    worker = VerifyWorker(run, run.config(), life, run.events("verify", "local-1"), decider)
    for group in (0, 1):
        run.queue("rollouts").put(f"g{group:08d}-0001", [rollout(group, response="\\boxed{5}")])

    dying = threading.Thread(target=server.die, daemon=True)

    def answer(prompt: str):
        if "number 0" in prompt:
            return RIGHT
        if fault is GONE and dying.ident is None:
            dying.start()
        return None if fault in (SILENT, GONE) else fault

    server.answer = answer
    task = threading.Thread(
        target=serve,
        args=(run, "rollouts", UntilEmpty(run, "rollouts", worker), life, run.events("verify", "local-1")),
        daemon=True,
    )
    task.start()
    wait_for(lambda: any("does not answer" in e["problem"] for e in told(run, "error")))
    wait_for(lambda: run.queue("verdicts").names()["ready"])
    assert run.queue("verdicts").names()["ready"] == {"g00000000-0001"}
    server.answer = by_answer
    if fault is GONE:
        wait_for(lambda: any("does not answer" in e["for"] for e in told(run, "waiting")))
        dying.join(LONG_S)
        server.rise(server.port)
    task.join(LONG_S)
    assert not task.is_alive()
    verdicts = {}
    while (lease := run.queue("verdicts").claim("reader")) is not None:
        verdicts[lease.name] = (lease.attempt, lease.rows[0].decision)
        lease.done()
    assert verdicts == {"g00000000-0001": (1, YES), "g00000001-0001": (1, YES)}
    assert run.queue("rollouts").counts() == {"ready": 0, "leased": 0, "failed": 0}


@pytest.mark.parametrize(
    "rubbish", ["", "   ", "maybe", "Final Decision: Yes, said the student. Or not.", "\x00\ufffd"]
)
def test_empty_text_and_rubbish_are_no_verdict(server, tokenizer_dir, rubbish):
    server.answer = lambda prompt: rubbish
    decider = GenerativeDecider(EndpointJudge(settings(server), 0, words_of), settings(server))
    pair = Pair("q", "5", "6")
    assert decider.decide([pair], never).decisions[pair].decision == NO_VERDICT
    assert len(server.prompts) == 2, "asked again once"


def test_a_real_server_decides_as_the_engine_in_the_task(tmp_path, vllm_server):
    """`vllm serve` with the small verifier against the same model in this process."""
    config = make_run(tmp_path, SHIPPED).config()
    pairs = [Pair("What is 2 + 3?", "5", answer) for answer in ("5", "five", "6", "5.0", "1/2", "15")]
    verifier = replace(config.verifier, template=str(SHIPPED / "template.txt"))
    config = replace(
        config,
        verifier=verifier,
        verify=replace(config.verify, engine=replace(config.verify.engine, kv_cache_mb=64, enforce_eager=True)),
    )
    endpoint = EndpointConfig(url=vllm_server, model=NAME, api="completions")
    tokenizer = load_tokenizer(str(SHIPPED))
    there = make_decider(replace(config, verifier=replace(verifier, endpoint=endpoint)), tokenizer, print)
    found = there.decide(pairs, never).decisions
    there.close()
    here = make_decider(config, tokenizer, print)
    wanted = here.decide(pairs, never).decisions
    here.close()
    assert {p: (d.decision, d.reason) for p, d in found.items()} == {
        p: (d.decision, d.reason) for p, d in wanted.items()
    }
    assert {d.decision for d in found.values()} >= {YES, NO}


def told(run, event: str) -> list[dict]:
    return [e for e in read_events(run.events_dir) if e["event"] == event]


def wait_for(come) -> None:
    deadline_s = time.monotonic() + LONG_S
    while not come():
        assert time.monotonic() < deadline_s, "it did not come"
        time.sleep(0.02)
