"""A judge behind an OpenAI-compatible address: `vllm serve` somewhere, or a service.

Bounded: requests at a time, requests a minute, tries a request, seconds a try. What it costs is counted.

Does not know: templates, decisions. Invariant: an answer that is not there is never a text: a server that cannot be
reached raises Unavailable, one that refuses a prompt is told as that prompt's problem. The key is in no file or log.
"""

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import Any

from grhpc.config import EndpointConfig, VerifierConfig
from grhpc.errors import ConfigError, EngineError, Unavailable
from grhpc.judge.judge import Reply

RETRY_TEMPERATURE = 0.3  # a greedy model that rambled once rambles again
MANY = 8  # questions of which a server that is set up rightly does not refuse every one
_LOOK_S = 0.2  # between two looks at whether to stop
_NO_KEY = "none"  # servers of one's own ask for none, and the client insists on one


class EndpointJudge:
    """Asks the server at `verifier.endpoint`."""

    def __init__(self, settings: VerifierConfig, seed: int) -> None:
        self._settings, self._endpoint, self._seed = settings, settings.endpoint, seed
        self._model = self._endpoint.model or settings.model
        self._key = _key(self._endpoint)
        self._pace = _Pace(self._endpoint.requests_per_min)
        self._client: Any = None
        self._lock = threading.Lock()
        self._usage = {"requests": 0, "prompt_tokens": 0, "new_tokens": 0}
        self.identity = f"{self._endpoint.url} {self._model} {self._endpoint.api}"

    @property
    def running(self) -> bool:
        return self._client is not None

    def start(self) -> None:
        """Reach the server. Raises Unavailable where it does not answer, ConfigError where it refuses us."""
        import openai

        if self._client is not None:
            return
        client = openai.OpenAI(
            base_url=self._endpoint.url,
            api_key=self._key,
            timeout=self._endpoint.timeout_s,
            max_retries=self._endpoint.max_retries,
        )
        try:
            if not hasattr(client.with_options(max_retries=0).models.list(), "data"):
                client.close()
                raise self._no_completion()
        except openai.NotFoundError:
            pass  # it answers, though it lists no models
        except openai.OpenAIError as error:
            client.close()
            raise self._failure(error) from None
        self._client = client

    def ask(self, prompts: Sequence[str], attempt: int, should_stop: Callable[[], bool]) -> list[Reply] | None:
        """As Judge.ask. Raises Unavailable when the server is gone, after all tries of a request."""
        self.start()
        over = threading.Event()
        pool = ThreadPoolExecutor(self._endpoint.concurrency, thread_name_prefix="judge")
        try:
            futures = [pool.submit(self._one, self._client, prompt, attempt, over) for prompt in prompts]
            waiting: set[Future[Reply]] = set(futures)
            while waiting:
                if should_stop():
                    return None
                done, waiting = wait(waiting, _LOOK_S, FIRST_EXCEPTION)
                for future in done:
                    future.result()
            replies = [future.result() for future in futures]
        except EngineError:
            self.close()
            raise
        finally:
            over.set()
            pool.shutdown(wait=False, cancel_futures=True)  # what is on its way ends by its own time limit
        if len(replies) >= MANY and all(reply.refused for reply in replies):
            raise EngineError(
                f"the judge refused all of {len(replies)} questions: {replies[0].problem}",
                "mend verifier.endpoint: the model, or what it is asked with",
            )
        return replies

    def usage(self) -> dict[str, float]:
        """What was asked so far: requests, prompt_tokens, new_tokens, and their cost at the configured prices."""
        with self._lock:
            counts = dict(self._usage)
        millions = counts["prompt_tokens"] * self._endpoint.price_in + counts["new_tokens"] * self._endpoint.price_out
        return {**counts, "cost": millions / 1e6}

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _one(self, client: Any, prompt: str, attempt: int, over: threading.Event) -> Reply:
        import openai

        self._pace.wait(over)
        if over.is_set():
            return Reply("", False, problem="it was not asked")
        try:
            answer = self._send(client, prompt, attempt)
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            return Reply("", False, problem=f"the endpoint refused the question: {_words(error)}", refused=True)
        except openai.OpenAIError as error:
            raise self._failure(error) from None
        if not hasattr(answer, "choices"):
            raise self._no_completion()
        self._count(answer.usage)
        if not answer.choices:
            return Reply("", False, problem="the endpoint's answer is empty")
        choice = answer.choices[0]
        text = (getattr(choice.message, "content", "") if self._endpoint.api == "chat" else choice.text) or ""
        return Reply(text, choice.finish_reason == "stop", problem="" if text.strip() else "the judge said nothing")

    def _send(self, client: Any, prompt: str, attempt: int) -> Any:
        common: dict[str, Any] = {
            "model": self._model,
            "temperature": 0.0 if attempt == 1 else RETRY_TEMPERATURE,
            "seed": self._seed + attempt,
        }
        if self._endpoint.api == "chat":
            turn = {"role": "user", "content": prompt}
            most = {self._endpoint.max_tokens_name: self._settings.max_new_tokens}
            return client.chat.completions.create(messages=[turn], **most, **common)
        return client.completions.create(prompt=prompt, max_tokens=self._settings.max_new_tokens, **common)

    def _no_completion(self) -> Unavailable:
        """A proxy's page, for instance: the client hands over as a text what is no JSON."""
        return Unavailable(
            f"what answers at {self._endpoint.url} is no judge: not JSON", "see what stands there; this task waits"
        )

    def _failure(self, error: Any) -> EngineError | ConfigError:
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
        return Unavailable(f"{where} does not answer: {_words(error)}", "see whether it runs; this task waits for it")

    def _count(self, usage: Any) -> None:
        with self._lock:
            self._usage["requests"] += 1
            if usage is not None:
                self._usage["prompt_tokens"] += usage.prompt_tokens or 0
                self._usage["new_tokens"] += usage.completion_tokens or 0


class _Pace:
    """Lets calls through one after the other, no more than so many a minute; None: all at once."""

    def __init__(self, per_min: float | None) -> None:
        self._gap_s = 60.0 / per_min if per_min else 0.0
        self._lock, self._next_s = threading.Lock(), 0.0

    def wait(self, over: threading.Event) -> None:
        """Until it is this call's turn, or `over` is set: a thread that sleeps on would keep the process alive."""
        if not self._gap_s:
            return
        with self._lock:
            turn_s = max(self._next_s, time.monotonic())
            self._next_s = turn_s + self._gap_s
        over.wait(max(0.0, turn_s - time.monotonic()))


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
    """What went wrong, without the request (which holds the key)."""
    status = getattr(error, "status_code", None)
    body = getattr(error, "body", None)
    told = body.get("message", "") if isinstance(body, dict) else ""
    text = told if isinstance(told, str) and told else type(error).__name__
    return f"{status} {text[:200]}" if status else text[:200]
