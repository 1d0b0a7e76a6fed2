"""Questions to a server that speaks OpenAI's language: `vllm serve` somewhere, or a service.

Bounded: requests at a time, requests a minute, tries a request, and the seconds of each try as a whole, however slowly
a server drips. What it costs is counted, failed tries too.

A server that is busy or breaks connections through all tries of a question is away: that says nothing of the question.
One that fails it otherwise (500, no time, no JSON) and answers another right afterwards, beside it or a small one of
ours, is asked it once more when all others are through, alone. Only where that fails too, and the small one is answered
again, is it the question's own problem.

Does not know: who asks, what for. Invariant: an answer that is not there is never a text: a server that cannot be
reached raises Unavailable, one that refuses or fails a question is told as that question's problem.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from grhpc.config import EndpointConfig
from grhpc.engine.pacing import Pace, back_off_s
from grhpc.engine.server import Answer, Asked, Server, busy, may_pass, refuses
from grhpc.errors import EngineError, GrhpcError, Unavailable

PROBE = "What is 1 + 1?"  # asked to see whether the server answers at all
_LOOK_S = 0.2  # between two looks at whether to stop
_PROBE_S = 60.0  # at most, for its answer
_PROBE_TOKENS = 16
_END_S = 1.0  # for a connection to close

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
        self._loop: asyncio.Runner | None = None
        self.served = ""
        self.max_model_tokens: int | None = None
        self._was_away = False
        self._heard_s = 0.0  # when the last answer came

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
        cost at the configured prices."""
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
            async with asyncio.timeout(self._short_s):
                told = await self._server.what_is_served()
        except (openai.OpenAIError, TimeoutError, ValueError) as error:
            raise self._server.failure(error) from None
        if self._was_away and (missing := await self._probed(asyncio.Lock())):
            raise self._server.failure(missing)
        return told

    @property
    def _short_s(self) -> float:
        """For what takes a server that is well no time."""
        return min(_PROBE_S, self._settings.timeout_s)

    async def _ask_all(
        self, questions: Sequence[Asked], should_stop: Callable[[], bool], heard: Heard
    ) -> list[Answer] | None:
        """All questions at once, then those that failed, one after the other."""
        round_ = _Round(asyncio.Semaphore(self._settings.concurrency), asyncio.Lock(), asyncio.Lock())
        sent = {number: self._one(question, round_) for number, question in enumerate(questions)}
        told = await self._together(sent, round_, should_stop, heard)
        if told is None:
            return None
        answers = {number: answer for number, answer in told.items() if isinstance(answer, Answer)}
        for number in sorted(told.keys() - answers.keys()):
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
                    return await self._suspected(error, round_)
                answer = self._refusal(error)
        self._heard_s = time.monotonic()
        return answer

    def _refusal(self, error: Exception) -> Answer:
        return Answer(problem=f"the endpoint refused the question: {self._server.words(error)}", refused=True)

    async def _suspected(self, error: Exception, round_: _Round) -> GrhpcError:
        """What it failed with, where that may be due to the question, and the server answers another; else raised."""
        failed_s = time.monotonic()
        if not round_.over and not busy(error):
            async with round_.probing:
                missing = None if self._heard_s > failed_s else await self._probed(round_.order)
            if missing is None:
                return self._server.failure(error)
            error = missing if busy(missing) else error
        round_.over = True
        raise self._server.failure(error)

    async def _alone(self, question: Asked, round_: _Round) -> Answer:
        """One more try, with nothing else on its way, for which a server may have had no time."""
        import openai

        try:
            return await self._try(question, round_, again=True)
        except (openai.OpenAIError, TimeoutError, ValueError) as error:
            if refuses(error):
                return self._refusal(error)
            missing = error if busy(error) else await self._probed(round_.order)
            failure = self._server.failure(missing if missing and busy(missing) else error)
            if missing is not None:
                raise failure from None
        return Answer(problem=f"of others an answer came, of this none: {failure.problem}", refused=True)

    async def _probed(self, order: asyncio.Lock) -> Exception | None:
        """Ask a small question, once: None where it is answered, or refused as a question, else the error."""
        import openai

        await self._pace.turn(order)
        self._server.usage.update(requests=1)
        try:
            async with asyncio.timeout(self._short_s):
                await self._server.send(Asked(PROBE, _PROBE_TOKENS))
        except (openai.OpenAIError, TimeoutError, ValueError) as error:
            if not refuses(error):
                return error
        self._heard_s = time.monotonic()
        return None

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
        with round_.on_its_way():
            async with asyncio.timeout(self._settings.timeout_s):
                return await self._server.send(question)
