"""Questions to a server that speaks OpenAI's language: `vllm serve` somewhere, or a service.

Bounded: requests at a time, requests a minute, tries a request, and the seconds of each try as a whole, however slowly
a server drips. What it costs is counted, failed tries too.

Does not know: who asks, what for. Invariant: an answer that is not there is never a text: a server that cannot be
reached raises Unavailable, one that refuses a question is told as that question's problem. The key is in no file or
log.
"""

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grhpc.config import EndpointConfig
from grhpc.engine.pacing import Pace, back_off_s
from grhpc.errors import ConfigError, EngineError, Unavailable

_LOOK_S = 0.2  # between two looks at whether to stop
_END_S = 1.0  # for a connection to close
_TRY_AGAIN = (408, 409, 429)  # and all from 500
_NO_KEY = "none"  # servers of one's own ask for none, and the client insists on one
_TOLD = {"prompt_tokens": "prompt_tokens", "new_tokens": "completion_tokens"}


@dataclass(frozen=True)
class Asked:
    """One question, and how to continue it: a user turn, or the raw text of `completions`."""

    prompt: str
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()  # strings before which the text ends


@dataclass(frozen=True)
class Answer:
    """What came back. `finish_reason` is the server's, "stop" or "length" mostly; `num_tokens` is what it counted,
    None where it told none. `problem`: why there is no text; with `refused`, the server would not take the question."""

    text: str = ""
    finish_reason: str = ""
    num_tokens: int | None = None
    problem: str = ""
    refused: bool = False


Heard = Callable[[Mapping[int, Answer]], None]  # is told answers by their questions' numbers, as soon as they are there


class Endpoint:
    """The server at `settings.url`, asked for `model`. `who` it is to people ("judge"); `section` is where it is set.

    `served` is which model the server says that it is, and `max_model_tokens` how many tokens that holds, question and
    answer together, where it says so, once it was reached. All requests run in one event loop inside `start`, `ask` and
    `close`, so that nothing of them outlives these calls.
    """

    def __init__(self, settings: EndpointConfig, model: str, who: str, section: str) -> None:
        self._settings, self.model, self._who, self._section = settings, model, who, section
        self._key = _key(settings)
        self._pace = Pace(settings.requests_per_min)
        self._loop: asyncio.Runner | None = None
        self._client: Any = None
        self.served = ""
        self.max_model_tokens: int | None = None
        self._usage = Counter[str](requests=0, retries=0, prompt_tokens=0, new_tokens=0)

    @property
    def running(self) -> bool:
        return self._client is not None

    def start(self) -> None:
        """Reach the server. Raises Unavailable where it does not answer, ConfigError where it refuses us."""
        import openai

        if self._client is not None:
            return
        # Tries and time limits are ours: the client's own are not paced, and its limit is that of one read.
        self._client = openai.AsyncOpenAI(base_url=self._settings.url, api_key=self._key, timeout=None, max_retries=0)
        self._loop = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        try:
            self.served, self.max_model_tokens = self._loop.run(self._what_is_served())
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
        except EngineError:
            self.close()
            raise

    def usage(self) -> dict[str, float]:
        """What was asked so far: requests (every try), the retries among them, prompt_tokens, new_tokens, and their
        cost at the configured prices."""
        counts = self._usage
        millions = counts["prompt_tokens"] * self._settings.price_in + counts["new_tokens"] * self._settings.price_out
        return {**counts, "cost": millions / 1e6}

    def close(self) -> None:
        client, loop = self._client, self._loop
        self._client = self._loop = None
        if loop is not None:
            with contextlib.suppress(TimeoutError):
                loop.run(asyncio.wait_for(client.close(), _END_S))
            loop.close()

    async def _what_is_served(self) -> tuple[str, int | None]:
        """What the server says that the model is, and how much it holds, where it says so: vLLM tells its path as
        `root`, and its `max_model_len`. (`created` is no help: vLLM and others fill in the time of the request.)"""
        import openai

        try:
            async with asyncio.timeout(self._settings.timeout_s):
                page = await self._client.models.list()
        except openai.NotFoundError:
            return "", None  # it answers, though it lists no models
        except (openai.OpenAIError, TimeoutError, ValueError) as error:
            raise self._failure(error) from None
        if not hasattr(page, "data"):
            raise self._no_completion()
        entry = next((e for e in page.data or () if getattr(e, "id", "") == self.model), None)
        most = getattr(entry, "max_model_len", None)
        return str(getattr(entry, "root", None) or ""), most if isinstance(most, int) and most > 0 else None

    async def _ask_all(
        self, questions: Sequence[Asked], should_stop: Callable[[], bool], heard: Heard
    ) -> list[Answer] | None:
        """All questions; at every look `heard` is told what came, also where another one has failed for good."""
        slots, order = asyncio.Semaphore(self._settings.concurrency), asyncio.Lock()
        tasks = [asyncio.create_task(self._one(question, slots, order)) for question in questions]
        numbers = {task: number for number, task in enumerate(tasks)}
        waiting = set(tasks)
        try:
            while waiting:
                if should_stop():
                    return None
                done, waiting = await asyncio.wait(waiting, timeout=_LOOK_S, return_when=asyncio.FIRST_EXCEPTION)
                failures = [error for task in done if (error := task.exception())]
                heard({numbers[task]: task.result() for task in done if not task.exception()})
                if failures:
                    raise failures[0]
            return [task.result() for task in tasks]
        finally:
            for task in waiting:
                task.cancel()
            if waiting:
                ended, _ = await asyncio.wait(waiting, timeout=_END_S)
                _ = [task.cancelled() or task.exception() for task in ended]  # seen, so that asyncio tells of none

    async def _one(self, question: Asked, slots: asyncio.Semaphore, order: asyncio.Lock) -> Answer:
        import openai

        try:
            async with slots:
                answer = await self._send_until_answered(question, order)
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            return Answer(problem=f"the endpoint refused the question: {self._words(error)}", refused=True)
        except (openai.OpenAIError, TimeoutError, ValueError) as error:
            raise self._failure(error) from None
        if not hasattr(answer, "choices"):
            raise self._no_completion()
        num_tokens = self._count(answer.usage)
        if not answer.choices:
            return Answer(problem="the endpoint's answer is empty")
        choice = answer.choices[0]
        text = (getattr(choice.message, "content", "") if self._settings.api == "chat" else choice.text) or ""
        return Answer(text, str(choice.finish_reason or ""), num_tokens)

    async def _send_until_answered(self, question: Asked, order: asyncio.Lock) -> Any:
        """The first answer of so many tries, or the error of the last one."""
        failed = 0
        while True:
            await self._pace.turn(order)
            self._usage.update(requests=1, retries=int(failed > 0))
            try:
                async with asyncio.timeout(self._settings.timeout_s):
                    return await self._send(question)
            except Exception as error:
                failed += 1
                if failed > self._settings.max_retries or not _may_pass(error):
                    raise
                wish = getattr(error, "response", None)
            await asyncio.sleep(back_off_s(failed, None if wish is None else wish.headers.get("retry-after")))

    async def _send(self, question: Asked) -> Any:
        common: dict[str, Any] = {
            "model": self.model,
            "temperature": question.temperature,
            "seed": question.seed,
        }
        if question.top_p != 1.0:  # some services refuse what they do not know, even where it changes nothing
            common["top_p"] = question.top_p
        if question.stop:
            common["stop"] = list(question.stop)
        if self._settings.api == "chat":
            turn = {"role": "user", "content": question.prompt}
            most = {self._settings.max_tokens_name: question.max_tokens}
            return await self._client.chat.completions.create(messages=[turn], **most, **common)
        return await self._client.completions.create(prompt=question.prompt, max_tokens=question.max_tokens, **common)

    def _no_completion(self) -> Unavailable:
        """A proxy's page, for instance: the client hands over as a text what is no JSON."""
        return Unavailable(
            f"what answers at {self._settings.url} is no {self._who}: not JSON",
            "see what stands there; this task waits",
        )

    def _failure(self, error: Exception) -> EngineError | ConfigError:
        import openai

        where = f"the {self._who} at {self._settings.url}"
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            return ConfigError(
                f"{where} refuses the key: {self._words(error)}",
                f"put a valid key into the environment variable that {self._section}.api_key_env names",
            )
        if isinstance(error, openai.NotFoundError):
            return ConfigError(
                f"{where} does not know {self.model} or this interface: {self._words(error)}",
                f"mend {self._section}.model, url (it ends in /v1) or api",
            )
        if isinstance(error, ValueError):  # JSON by its header only
            return self._no_completion()
        limit_s = self._settings.timeout_s
        what = f"nothing whole in {limit_s:g} s" if isinstance(error, TimeoutError) else self._words(error)
        return Unavailable(f"{where} does not answer: {what}", "see whether it runs; this task waits for it")

    def _count(self, usage: Any) -> int | None:
        """The new tokens of this answer, where the server tells them."""
        told = {ours: getattr(usage, theirs, None) for ours, theirs in _TOLD.items()}
        counts = {name: count for name, count in told.items() if isinstance(count, int)}
        self._usage.update(counts)
        return counts.get("new_tokens")

    def _words(self, error: Any) -> str:
        """What went wrong, without the request (which holds the key), and without the key where the server quotes it;
        of a cause its kind alone, as it may quote that."""
        status = getattr(error, "status_code", None)
        body = getattr(error, "body", None)
        told = body.get("message", "") if isinstance(body, dict) else ""
        text = told if isinstance(told, str) and told else type(error.__cause__ or error).__name__
        if self._key != _NO_KEY:
            text = text.replace(self._key, "***")
        return f"{status} {text[:200]}" if status else text[:200]


def _may_pass(error: Exception) -> bool:
    """Whether another try may do better."""
    import openai

    if isinstance(error, openai.APIStatusError):
        return error.status_code in _TRY_AGAIN or error.status_code >= 500
    return isinstance(error, openai.APIConnectionError | TimeoutError)


def _key(endpoint: EndpointConfig) -> str:
    if not endpoint.api_key_env:
        return _NO_KEY
    key = os.environ.get(endpoint.api_key_env, "")
    if not key:
        raise ConfigError(
            f"the environment variable {endpoint.api_key_env} is not set or empty",
            "set it where the task starts (a line of the role's setup in cluster may read it from a file of yours)",
        )
    return key
