"""Questions to a server that speaks OpenAI's language: `vllm serve` somewhere, or a service.

Bounded: requests at a time, requests a minute, tries a request, and the seconds of each try as a whole, however slowly
a server drips. What it costs is counted, failed tries too.

A server that is busy or breaks connections through all tries of a question is away: that alone says nothing of the
question. One that fails it otherwise (500, no JSON) and answers another right afterwards, beside it or a small one of
ours, is asked it again when all others are through, alone; so is one that went away twice with the question on its way,
when it is back. Only where that fails again and again, while small ones are answered so much oftener that chance does
not explain it (engine/doubt.py), is it the question's own problem; and where it had its whole time alone, at once.

Does not know: who asks, what for. Invariant: an answer that is not there is never a text: a server that cannot be
reached raises Unavailable, one that refuses or fails a question is told as that question's problem.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from grhpc.config import EndpointConfig
from grhpc.engine.doubt import Doubt
from grhpc.engine.pacing import Pace, back_off_s
from grhpc.engine.probe import Prober
from grhpc.engine.server import Answer, Asked, Server, busy, may_pass, overloaded, refuses
from grhpc.errors import EngineError, GrhpcError, Unavailable

_LOOK_S = 0.2  # between two looks at whether to stop
_END_S = 1.0  # for a connection to close
_SCATTER = 4  # times the longest answer: in which tasks whose server came back ask again what failed alone

Heard = Callable[[Mapping[int, Answer]], None]  # is told answers by their questions' numbers, as soon as they are there
T = TypeVar("T", Answer, Answer | GrhpcError)  # or what a question failed with, which is to be asked again alone


@dataclass
class _Round:
    """What the questions of one call share. `sending`: whose request is on its way; `over`: no other is to be sent."""

    slots: asyncio.Semaphore
    order: asyncio.Lock
    probing: asyncio.Lock
    sending: set[Any] = field(default_factory=set)
    over: bool = False
    returns: str = asyncio.FIRST_EXCEPTION

    @contextlib.contextmanager
    def on_its_way(self) -> Iterator[None]:
        task = asyncio.current_task()
        self.sending.add(task)
        try:
            yield
        finally:
            self.sending.discard(task)


class Endpoint:
    """The server at `settings.url`, asked for `model`. `who` it is to people ("judge"); `section` is where it is set.

    `served` is which model the server says that it is, and `max_model_tokens` how many tokens that holds, question and
    answer together, where it says so, once it was reached. All requests run in one event loop inside `start`, `ask` and
    `close`, so that nothing of them outlives these calls.
    """

    def __init__(self, settings: EndpointConfig, model: str, who: str, section: str) -> None:
        self._settings, self.model = settings, model
        self._server = Server(settings, model, who, section)
        self._pace = Pace(settings.requests_per_min)
        self._probe = Prober(self._server, self._pace, settings.timeout_s)
        self._doubts: dict[Asked, Doubt] = {}
        self._loop: asyncio.Runner | None = None
        self.served = ""
        self.max_model_tokens: int | None = None
        self._was_away = False
        self._longest_s = 0.0  # of the answers so far

    @property
    def running(self) -> bool:
        return self._loop is not None

    def start(self) -> None:
        """Reach the server. Raises Unavailable where it does not answer, ConfigError where it refuses us.

        A server that was away is there again when it answers a question."""
        if self._loop is not None:
            return
        self._server.open()
        self._loop = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        try:
            self.served, self.max_model_tokens = self._loop.run(self._reach())
            self._was_away = False
        except BaseException:
            self.close()
            raise

    def ask(
        self, questions: Sequence[Asked], should_stop: Callable[[], bool], heard: Heard = lambda answers: None
    ) -> list[Answer] | None:
        """An answer to every question, in order; None where `should_stop` said so.

        Raises Unavailable when the server is gone, after all tries of a request, ConfigError where it refuses us.
        `heard` is told every answer that came, also where None is returned or an error raised in the end.
        """
        self.start()
        assert self._loop is not None
        try:
            return self._loop.run(self._ask_all(questions, should_stop, heard))
        except EngineError as error:
            self._was_away = isinstance(error, Unavailable)
            self.close()
            raise

    def usage(self) -> dict[str, float]:
        """What was asked so far: requests (every try), the retries among them, prompt_tokens, new_tokens, and their
        cost at the configured prices; where questions were found at fault, how many were given_up."""
        counts = self._server.usage
        millions = counts["prompt_tokens"] * self._settings.price_in + counts["new_tokens"] * self._settings.price_out
        return {**counts, "cost": millions / 1e6}

    def close(self) -> None:
        loop, self._loop = self._loop, None
        if loop is not None:
            with contextlib.suppress(TimeoutError):
                loop.run(asyncio.wait_for(self._server.close(), _END_S))
            loop.close()

    async def _reach(self) -> tuple[str, int | None]:
        import openai

        try:
            async with asyncio.timeout(self._probe.limit_s):
                told = await self._server.what_is_served()
        except (openai.OpenAIError, TimeoutError, ValueError) as error:
            raise self._server.failure(error) from None
        if self._was_away and (missing := await self._probe.ask(asyncio.Lock())):
            raise self._server.failure(missing)
        return told

    async def _ask_all(
        self, questions: Sequence[Asked], should_stop: Callable[[], bool], heard: Heard
    ) -> list[Answer] | None:
        """All questions at once, then those that failed or are in doubt, one after the other."""
        round_ = _Round(asyncio.Semaphore(self._settings.concurrency), asyncio.Lock(), asyncio.Lock())
        doubts = [self._doubts.get(question, Doubt()) for question in questions]
        sent = {n: self._one(questions[n], round_) for n, doubt in enumerate(doubts) if not doubt.is_apart}
        told = await self._together(sent, round_, should_stop, heard)
        if told is None:
            return None
        answers = {number: answer for number, answer in told.items() if isinstance(answer, Answer)}
        left = [number for number in range(len(questions)) if number not in answers]
        for number in sorted(left, key=lambda number: doubts[number].failed):
            alone = await self._together({number: self._alone(questions[number], round_)}, round_, should_stop, heard)
            if alone is None:
                return None
            answers |= alone
        return [answers[number] for number in range(len(questions))]

    async def _together(
        self, sent: Mapping[int, Coroutine[Any, Any, T]], round_: _Round, should_stop: Callable[[], bool], heard: Heard
    ) -> dict[int, T] | None:
        """What came of each; at every look `heard` is told the answers. Once the server is away, or refuses us, no
        further request is sent; those on their way have their time, and are heard."""
        numbers = {asyncio.create_task(one): number for number, one in sent.items()}
        waiting = set(numbers)
        failures: list[BaseException] = []
        try:
            while waiting:
                if should_stop():
                    return None
                done, waiting = await asyncio.wait(waiting, timeout=_LOOK_S, return_when=round_.returns)
                done = {task for task in done if not task.cancelled()}
                failures += [error for task in done if (error := task.exception())]
                told = {numbers[task]: task.result() for task in done if not task.exception()}
                heard({number: answer for number, answer in told.items() if isinstance(answer, Answer)})
                if failures:
                    round_.returns = asyncio.ALL_COMPLETED
                    for task in waiting - round_.sending:
                        task.cancel()
            if failures:
                raise failures[0]
            return {number: task.result() for task, number in numbers.items()}
        finally:
            for task in waiting:
                task.cancel()
            if waiting:
                ended, _ = await asyncio.wait(waiting, timeout=_END_S)
                _ = [task.cancelled() or task.exception() for task in ended]  # seen, so that asyncio tells of none

    async def _one(self, question: Asked, round_: _Round) -> Answer | GrhpcError:
        import openai

        async with round_.slots:
            try:
                answer = await self._send_until_answered(question, round_)
            except (openai.OpenAIError, TimeoutError, ValueError) as error:
                if not refuses(error):
                    return await self._suspected(question, error, round_)
                answer = self._refusal(error)
        self._probe.heard()
        self._doubts.pop(question, None)
        return answer

    def _refusal(self, error: Exception) -> Answer:
        return Answer(problem=f"the endpoint refused the question: {self._server.words(error)}", refused=True)

    async def _suspected(self, question: Asked, error: Exception, round_: _Round) -> GrhpcError:
        """What it failed with, where that may be due to the question, and the server answers another; else raised."""
        failed_s, cause = time.monotonic(), error
        if not round_.over and not busy(error):
            async with round_.probing:
                missing = None if self._probe.heard_s > failed_s else await self._probe.ask(round_.order)
            if missing is None:
                return self._server.failure(error)
            cause = missing if busy(missing) else error
        if not overloaded(error):
            self._doubts.setdefault(question, Doubt()).broke += 1
        round_.over = True
        raise self._server.failure(cause)

    async def _alone(self, question: Asked, round_: _Round) -> Answer:
        """Further tries, with nothing else on its way, until it is answered, or it is settled that it never will be."""
        import openai

        doubt = self._doubts.setdefault(question, Doubt())
        if doubt.is_open:  # the server went away: what other tasks ask alone is to meet it at other times
            await asyncio.sleep(random.uniform(0, _SCATTER * self._longest_s))
        while True:
            if doubt.is_open and (missing := await self._probe.compare(doubt, round_.order)):
                raise self._server.failure(missing)
            if doubt.is_settled:
                break
            try:
                answer = await self._try(question, round_, again=True)
            except (openai.OpenAIError, TimeoutError, ValueError) as error:
                if not refuses(error):
                    await self._failed_alone(doubt, error, round_)
                    if isinstance(error, TimeoutError):
                        del self._doubts[question]
                        break
                    continue
                answer = self._refusal(error)
            del self._doubts[question]
            return answer
        self._server.usage.update(given_up=int(not doubt.given_up))
        doubt.given_up = True
        return Answer(problem=f"of others an answer came, of this none: {doubt.words}", refused=True)

    async def _failed_alone(self, doubt: Doubt, error: Exception, round_: _Round) -> None:
        """Count it where it may be due to the question. Raises where the server is away."""
        failure = self._server.failure(error)
        if overloaded(error):
            raise failure
        doubt.failed, doubt.words = doubt.failed + 1, failure.problem
        missing = error if busy(error) else await self._probe.ask(round_.order)
        if missing is None:
            return
        failure = self._server.failure(missing) if busy(missing) else failure
        if not isinstance(failure, Unavailable):
            raise failure
        times = f"asked alone, one question met such failures {doubt.failed} times; if small ones pass, it is given up"
        raise Unavailable(f"{failure.problem}; {times}", failure.remedy)

    async def _send_until_answered(self, question: Asked, round_: _Round) -> Answer:
        """The first answer of so many tries, or the error of the last one."""
        failed = 0
        while True:
            try:
                return await self._try(question, round_, again=failed > 0)
            except Exception as error:
                failed += 1
                if failed > self._settings.max_retries or not may_pass(error) or round_.over:
                    raise
                wish = getattr(error, "response", None)
            await asyncio.sleep(back_off_s(failed, None if wish is None else wish.headers.get("retry-after")))

    async def _try(self, question: Asked, round_: _Round, again: bool) -> Answer:
        await self._pace.turn(round_.order)
        if round_.over:
            raise asyncio.CancelledError
        self._server.usage.update(requests=1, retries=int(again))
        begun_s = time.monotonic()
        with round_.on_its_way():
            async with asyncio.timeout(self._settings.timeout_s):
                answer = await self._server.send(question)
        self._longest_s = max(self._longest_s, time.monotonic() - begun_s)
        return answer
