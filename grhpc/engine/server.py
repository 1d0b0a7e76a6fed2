"""A server that speaks OpenAI's language: one request at a time, and what its failures mean.

Does not know: tries, time limits, how many are asked at once. Invariant: the key is in no file, log or error.
"""

import os
from collections import Counter
from dataclasses import dataclass
from typing import Any

from grhpc.config import EndpointConfig
from grhpc.errors import ConfigError, EngineError, Unavailable

_OVERLOADED = (408, 409, 425, 429)
_BUSY = (*_OVERLOADED, 503)
_REFUSES_US = (401, 403, 404)
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
    None where it told none. `problem`: why there is no text; `refused`: asking again is no use, the server would not
    take the question, or brought no answer to it in any try, alone as well, while it answered others."""

    text: str = ""
    finish_reason: str = ""
    num_tokens: int | None = None
    problem: str = ""
    refused: bool = False


class Server:
    """The server at `settings.url`, asked for `model`. `who` it is to people ("judge"); `section` is where it is set.
    `usage` counts requests, retries, and the tokens that it says it used."""

    def __init__(self, settings: EndpointConfig, model: str, who: str, section: str) -> None:
        self._settings, self.model, self._who, self._section = settings, model, who, section
        self._key = _key(settings)
        self._client: Any = None
        self.usage = Counter[str](requests=0, retries=0, prompt_tokens=0, new_tokens=0)

    @property
    def is_open(self) -> bool:
        return self._client is not None

    def open(self) -> None:
        import openai

        # Tries and time limits are ours: the client's own are not paced, and its limit is that of one read.
        self._client = openai.AsyncOpenAI(base_url=self._settings.url, api_key=self._key, timeout=None, max_retries=0)

    async def close(self) -> None:
        client, self._client = self._client, None
        await client.close()

    async def what_is_served(self) -> tuple[str, int | None]:
        """What the server says that the model is, and how much it holds, where it says so: vLLM tells its path as
        `root`, and its `max_model_len`. (`created` is no help: vLLM and others fill in the time of the request.)"""
        import openai

        try:
            page = await self._client.models.list()
        except openai.NotFoundError:
            return "", None  # it answers, though it lists no models
        if not hasattr(page, "data"):
            raise ValueError("no JSON")
        entry = next((e for e in page.data or () if getattr(e, "id", "") == self.model), None)
        most = getattr(entry, "max_model_len", None)
        return str(getattr(entry, "root", None) or ""), most if isinstance(most, int) and most > 0 else None

    async def send(self, question: Asked) -> Answer:
        """Ask once. Raises what the client raises, ValueError where what came is no JSON."""
        completion = await self._complete(question)
        if not hasattr(completion, "choices"):
            raise ValueError("no JSON")
        num_tokens = self._count(completion.usage)
        if not completion.choices:
            return Answer(problem="the endpoint's answer is empty", refused=True)
        choice = completion.choices[0]
        text = (getattr(choice.message, "content", "") if self._settings.api == "chat" else choice.text) or ""
        return Answer(text, str(choice.finish_reason or ""), num_tokens)

    async def _complete(self, question: Asked) -> Any:
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

    def failure(self, error: Exception) -> EngineError | ConfigError:
        """What an error of `send` or `what_is_served` means for all questions."""
        import openai

        where = f"the {self._who} at {self._settings.url}"
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            return ConfigError(
                f"{where} refuses the key: {self.words(error)}",
                f"put a valid key into the environment variable that {self._section}.api_key_env names",
            )
        if isinstance(error, openai.NotFoundError):
            return ConfigError(
                f"{where} does not know {self.model} or this interface: {self.words(error)}",
                f"mend {self._section}.model, url (it ends in /v1) or api",
            )
        if isinstance(error, ValueError):  # a proxy's page: the client hands it over as a text, or cannot read it
            return Unavailable(
                f"what answers at {self._settings.url} is no {self._who}: not JSON",
                "see what stands there; this task waits",
            )
        limit_s = self._settings.timeout_s
        what = f"nothing whole in {limit_s:g} s" if isinstance(error, TimeoutError) else self.words(error)
        return Unavailable(f"{where} does not answer: {what}", "see whether it runs; this task waits for it")

    def _count(self, usage: Any) -> int | None:
        """The new tokens of this answer, where the server tells them."""
        told = {ours: getattr(usage, theirs, None) for ours, theirs in _TOLD.items()}
        counts = {name: count for name, count in told.items() if isinstance(count, int)}
        self.usage.update(counts)
        return counts.get("new_tokens")

    def words(self, error: Any) -> str:
        """What went wrong, without the request (which holds the key), and without the key where the server quotes it;
        of a cause its kind alone, as it may quote that."""
        status = getattr(error, "status_code", None)
        body = getattr(error, "body", None)
        told = body.get("message", "") if isinstance(body, dict) else ""
        text = told if isinstance(told, str) and told else type(error.__cause__ or error).__name__
        if self._key != _NO_KEY:
            text = text.replace(self._key, "***")
        return f"{status} {text[:200]}" if status else text[:200]


def may_pass(error: Exception) -> bool:
    """Whether another try may do better."""
    import openai

    if isinstance(error, openai.APIStatusError):
        return error.status_code in _BUSY or error.status_code >= 500
    return isinstance(error, openai.APIConnectionError | TimeoutError)


def busy(error: Exception) -> bool:
    """Whether it says nothing of the question: the server has too much to do, or no connection to it held."""
    import openai

    if isinstance(error, openai.APIStatusError):
        return error.status_code in _BUSY
    return isinstance(error, openai.APIConnectionError)


def overloaded(error: Exception) -> bool:
    """Whether it is by its own words that the server has too much to do, or we ask too much at a time."""
    import openai

    return isinstance(error, openai.APIStatusError) and error.status_code in _OVERLOADED


def refuses(error: Exception) -> bool:
    """Whether it is the question that the server will not take, as it is."""
    import openai

    if not isinstance(error, openai.APIStatusError):
        return False
    return 400 <= error.status_code < 500 and error.status_code not in (*_REFUSES_US, *_BUSY)


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
