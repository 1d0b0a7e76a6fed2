"""A judge behind an OpenAI-compatible address: `vllm serve` somewhere, or a service.

Bounded: requests at a time, requests a minute, tries a request, and the seconds of each try as a whole, however slowly
a server drips. What it costs is counted, failed tries too.

Does not know: templates, decisions. Invariant: an answer that is not there is never a text: a server that cannot be
reached raises Unavailable, one that refuses a prompt is told as that prompt's problem. The key is in no file or log.
"""

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from grhpc.config import EndpointConfig, VerifierConfig
from grhpc.errors import ConfigError, EngineError, Unavailable
from grhpc.judge.judge import Heard, Reply, refused, unheard
from grhpc.judge.pacing import Pace, back_off_s

RETRY_TEMPERATURE = 0.3  # a greedy model that rambled once rambles again
MANY = 8  # questions of which a server that is set up rightly does not refuse every one
_LOOK_S = 0.2  # between two looks at whether to stop
_END_S = 1.0  # for a connection to close
_TRY_AGAIN = (408, 409, 429)  # and all from 500
_NO_KEY = "none"  # servers of one's own ask for none, and the client insists on one


class EndpointJudge:
    """Asks the server at `verifier.endpoint`. `tokenizer` is that of `verifier.model`, which counts the lengths.

    `identity` says also which model the server says it serves, once it was reached. All requests run in one event loop
    inside `start`, `ask` and `close`, so that nothing of them outlives these calls.
    """

    def __init__(self, settings: VerifierConfig, seed: int, tokenizer: Any) -> None:
        self._settings, self._endpoint, self._seed = settings, settings.endpoint, seed
        self._tokenizer = tokenizer
        self._model = self._endpoint.model or settings.model
        self._key = _key(self._endpoint)
        self._pace = Pace(self._endpoint.requests_per_min)
        self._loop: asyncio.Runner | None = None
        self._client: Any = None
        self._served = ""
        self._usage = Counter[str](requests=0, retries=0, prompt_tokens=0, new_tokens=0)

    @property
    def identity(self) -> str:
        return f"{self._endpoint.url} {self._model} {self._endpoint.api} {self._served}"

    @property
    def running(self) -> bool:
        return self._client is not None

    def start(self) -> None:
        """Reach the server. Raises Unavailable where it does not answer, ConfigError where it refuses us."""
        import openai

        if self._client is not None:
            return
        # Tries and time limits are ours: the client's own are not paced, and its limit is that of one read.
        self._client = openai.AsyncOpenAI(base_url=self._endpoint.url, api_key=self._key, timeout=None, max_retries=0)
        self._loop = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        try:
            self._served = self._loop.run(self._what_is_served())
        except BaseException:
            self.close()
            raise

    def ask(
        self, prompts: Sequence[str], attempt: int, should_stop: Callable[[], bool], heard: Heard = unheard
    ) -> list[Reply] | None:
        """As Judge.ask. Raises Unavailable when the server is gone, after all tries of a request."""
        self.start()
        assert self._loop is not None
        tokens = self._tokenizer(list(prompts))["input_ids"] if prompts else []
        replies = [refused(len(ids), self._settings.max_input_tokens) for ids in tokens]
        asked = [number for number, reply in enumerate(replies) if reply is None]
        try:
            done = self._loop.run(self._ask_all([prompts[number] for number in asked], attempt, should_stop, heard))
        except EngineError:
            self.close()
            raise
        if done is None:
            return None
        if len(done) >= MANY and all(reply.refused for reply in done):
            raise EngineError(
                f"the judge refused all of {len(done)} questions: {done[0].problem}",
                "mend verifier.endpoint: the model, or what it is asked with",
            )
        told = iter(done)
        return [reply or next(told) for reply in replies]

    def usage(self) -> dict[str, float]:
        """What was asked so far: requests (every try), the retries among them, prompt_tokens, new_tokens, and their
        cost at the configured prices."""
        counts = self._usage
        millions = counts["prompt_tokens"] * self._endpoint.price_in + counts["new_tokens"] * self._endpoint.price_out
        return {**counts, "cost": millions / 1e6}

    def close(self) -> None:
        client, loop = self._client, self._loop
        self._client = self._loop = None
        if loop is not None:
            with contextlib.suppress(TimeoutError):
                loop.run(asyncio.wait_for(client.close(), _END_S))
            loop.close()

    async def _what_is_served(self) -> str:
        """What the server says that the model is, where it says so: vLLM tells its path as `root`. (`created` is no
        help: vLLM and others fill in the time of the request.)"""
        import openai

        try:
            async with asyncio.timeout(self._endpoint.timeout_s):
                page = await self._client.models.list()
        except openai.NotFoundError:
            return ""  # it answers, though it lists no models
        except (openai.OpenAIError, TimeoutError, ValueError) as error:
            raise self._failure(error) from None
        if not hasattr(page, "data"):
            raise self._no_completion()
        entry = next((e for e in page.data or () if getattr(e, "id", "") == self._model), None)
        return str(getattr(entry, "root", None) or "")

    async def _ask_all(
        self, prompts: Sequence[str], attempt: int, should_stop: Callable[[], bool], heard: Heard
    ) -> list[Reply] | None:
        """All prompts; at every look `heard` is told what came, also where another one has failed for good."""
        slots, order = asyncio.Semaphore(self._endpoint.concurrency), asyncio.Lock()
        tasks = [asyncio.create_task(self._one(prompt, attempt, slots, order)) for prompt in prompts]
        of = dict(zip(tasks, prompts, strict=True))
        waiting = set(tasks)
        try:
            while waiting:
                if should_stop():
                    return None
                done, waiting = await asyncio.wait(waiting, timeout=_LOOK_S, return_when=asyncio.FIRST_EXCEPTION)
                failures = [error for task in done if (error := task.exception())]
                heard({of[task]: task.result() for task in done if not task.exception()})
                if failures:
                    raise failures[0]
            return [task.result() for task in tasks]
        finally:
            for task in waiting:
                task.cancel()
            if waiting:
                ended, _ = await asyncio.wait(waiting, timeout=_END_S)
                _ = [task.cancelled() or task.exception() for task in ended]  # seen, so that asyncio tells of none

    async def _one(self, prompt: str, attempt: int, slots: asyncio.Semaphore, order: asyncio.Lock) -> Reply:
        import openai

        try:
            async with slots:
                answer = await self._send_until_answered(prompt, attempt, order)
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            return Reply("", False, problem=f"the endpoint refused the question: {_words(error)}", refused=True)
        except (openai.OpenAIError, TimeoutError, ValueError) as error:
            raise self._failure(error) from None
        if not hasattr(answer, "choices"):
            raise self._no_completion()
        self._count(answer.usage)
        if not answer.choices:
            return Reply("", False, problem="the endpoint's answer is empty")
        choice = answer.choices[0]
        text = (getattr(choice.message, "content", "") if self._endpoint.api == "chat" else choice.text) or ""
        return Reply(text, choice.finish_reason == "stop", problem="" if text.strip() else "the judge said nothing")

    async def _send_until_answered(self, prompt: str, attempt: int, order: asyncio.Lock) -> Any:
        """The first answer of so many tries, or the error of the last one."""
        failed = 0
        while True:
            await self._pace.turn(order)
            self._usage.update(requests=1, retries=int(failed > 0))
            try:
                async with asyncio.timeout(self._endpoint.timeout_s):
                    return await self._send(prompt, attempt)
            except Exception as error:
                failed += 1
                if failed > self._endpoint.max_retries or not _may_pass(error):
                    raise
                wish = getattr(error, "response", None)
            await asyncio.sleep(back_off_s(failed, None if wish is None else wish.headers.get("retry-after")))

    async def _send(self, prompt: str, attempt: int) -> Any:
        common: dict[str, Any] = {
            "model": self._model,
            "temperature": 0.0 if attempt == 1 else RETRY_TEMPERATURE,
            "seed": self._seed + attempt,
        }
        if self._endpoint.api == "chat":
            turn = {"role": "user", "content": prompt}
            most = {self._endpoint.max_tokens_name: self._settings.max_new_tokens}
            return await self._client.chat.completions.create(messages=[turn], **most, **common)
        return await self._client.completions.create(prompt=prompt, max_tokens=self._settings.max_new_tokens, **common)

    def _no_completion(self) -> Unavailable:
        """A proxy's page, for instance: the client hands over as a text what is no JSON."""
        return Unavailable(
            f"what answers at {self._endpoint.url} is no judge: not JSON", "see what stands there; this task waits"
        )

    def _failure(self, error: Exception) -> EngineError | ConfigError:
        import openai

        where = f"the judge at {self._endpoint.url}"
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            return ConfigError(
                f"{where} refuses the key: {_words(error)}",
                "put a valid key into the environment variable that verifier.endpoint.api_key_env names",
            )
        if isinstance(error, openai.NotFoundError):
            return ConfigError(
                f"{where} does not know {self._model} or this interface: {_words(error)}",
                "mend verifier.endpoint.model, url (it ends in /v1) or api",
            )
        if isinstance(error, ValueError):  # JSON by its header only
            return self._no_completion()
        what = f"nothing whole in {self._endpoint.timeout_s:g} s" if isinstance(error, TimeoutError) else _words(error)
        return Unavailable(f"{where} does not answer: {what}", "see whether it runs; this task waits for it")

    def _count(self, usage: Any) -> None:
        for name, told in (("prompt_tokens", "prompt_tokens"), ("new_tokens", "completion_tokens")):
            count = getattr(usage, told, 0)
            self._usage[name] += count if isinstance(count, int) else 0


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
            "set it where the task starts (a line of cluster.verify.setup may read it from a file of yours)",
        )
    return key


def _words(error: Any) -> str:
    """What went wrong, without the request (which holds the key); of a cause its kind alone, as it may quote that."""
    status = getattr(error, "status_code", None)
    body = getattr(error, "body", None)
    told = body.get("message", "") if isinstance(body, dict) else ""
    text = told if isinstance(told, str) and told else type(error.__cause__ or error).__name__
    return f"{status} {text[:200]}" if status else text[:200]
