"""Questions to a server that speaks OpenAI's language: `vllm serve` somewhere, or a service.

Bounded: requests at a time, requests a minute, tries a request, and the seconds of each try as a whole, however slowly
a server drips. What it costs is counted, failed tries too.

A question that no try brings an answer to is its own problem where the server answers another one right afterwards: one
of those asked beside it, or a small one of ours. Where it does not, the server is away.

Does not know: who asks, what for. Invariant: an answer that is not there is never a text: a server that cannot be
reached raises Unavailable, one that refuses or fails a question is told as that question's problem.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from grhpc.config import EndpointConfig
from grhpc.engine.pacing import Pace, back_off_s
from grhpc.engine.server import Answer, Asked, Server, may_pass, refuses
from grhpc.errors import EngineError, GrhpcError, Unavailable

PROBE = "What is 1 + 1?"  # asked to see whether the server answers at all
_LOOK_S = 0.2  # between two looks at whether to stop
_PROBE_S = 60.0  # at most, for its answer
_PROBE_TOKENS = 16
_END_S = 1.0  # for a connection to close

Heard = Callable[[Mapping[int, Answer]], None]  # is told answers by their questions' numbers, as soon as they are there


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
        """All questions; at every look `heard` is told what came. Once the server is away, or refuses us, no further
        request is sent; those on their way have their time, and are heard."""
        round_ = _Round(asyncio.Semaphore(self._settings.concurrency), asyncio.Lock(), asyncio.Lock())
        tasks = [asyncio.create_task(self._one(question, round_)) for question in questions]
        numbers = {task: number for number, task in enumerate(tasks)}
        waiting = set(tasks)
        failures: list[BaseException] = []
        try:
            while waiting:
                if should_stop():
                    return None
                done, waiting = await asyncio.wait(waiting, timeout=_LOOK_S, return_when=round_.returns)
                done = {task for task in done if not task.cancelled()}
                failures += [error for task in done if (error := task.exception())]
                heard({numbers[task]: task.result() for task in done if not task.exception()})
                if failures:
                    round_.returns = asyncio.ALL_COMPLETED
                    for task in waiting - round_.sending:
                        task.cancel()
            if failures:
                raise failures[0]
            return [task.result() for task in tasks]
        finally:
            for task in waiting:
                task.cancel()
            if waiting:
                ended, _ = await asyncio.wait(waiting, timeout=_END_S)
                _ = [task.cancelled() or task.exception() for task in ended]  # seen, so that asyncio tells of none

    async def _one(self, question: Asked, round_: _Round) -> Answer:
        import openai

        async with round_.slots:
            try:
                answer = await self._send_until_answered(question, round_)
            except (openai.OpenAIError, TimeoutError, ValueError) as error:
                if not refuses(error):
                    return await self._without_answer(self._server.failure(error), round_)
                problem = f"the endpoint refused the question: {self._server.words(error)}"
                answer = Answer(problem=problem, refused=True)
        self._heard_s = time.monotonic()
        return answer

    async def _without_answer(self, failure: GrhpcError, round_: _Round) -> Answer:
        """The question's own problem where the server answers another; else the failure is raised."""
        failed_s = time.monotonic()
        if not round_.over:
            async with round_.probing:
                if self._heard_s > failed_s or await self._probed(round_.order) is None:
                    return Answer(problem=f"of others an answer came, of this none: {failure.problem}", refused=True)
        round_.over = True
        raise failure

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
            await self._pace.turn(round_.order)
            if round_.over:
                raise asyncio.CancelledError
            self._server.usage.update(requests=1, retries=int(failed > 0))
            try:
                with round_.on_its_way():
                    async with asyncio.timeout(self._settings.timeout_s):
                        return await self._server.send(question)
            except Exception as error:
                failed += 1
                if failed > self._settings.max_retries or not may_pass(error) or round_.over:
                    raise
                wish = getattr(error, "response", None)
            await asyncio.sleep(back_off_s(failed, None if wish is None else wish.headers.get("retry-after")))
