"""A judge behind an OpenAI-compatible address: `vllm serve` somewhere, or a service.

Does not know: templates, decisions, how a server is asked. Invariant: an answer that is not there is never a text: it
is told as that prompt's problem, or raised.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from grhpc.config import VerifierConfig
from grhpc.engine.endpoint import Endpoint
from grhpc.engine.server import Answer, Asked
from grhpc.errors import EngineError
from grhpc.judge.judge import Heard, Reply, refused, unheard

RETRY_TEMPERATURE = 0.3  # a greedy model that rambled once rambles again
MANY = 8  # questions of which a server that is set up rightly does not refuse every one


class EndpointJudge:
    """Asks the server at `verifier.endpoint`. `tokenizer` is that of `verifier.model`, which counts the lengths.

    `identity` says also which model the server says it serves, once it was reached.
    """

    def __init__(self, settings: VerifierConfig, seed: int, tokenizer: Any) -> None:
        self._settings, self._seed, self._tokenizer = settings, seed, tokenizer
        endpoint = settings.endpoint
        self._server = Endpoint(endpoint, endpoint.model or settings.model, "judge", "verifier.endpoint")

    @property
    def identity(self) -> str:
        endpoint = self._settings.endpoint
        return f"{endpoint.url} {self._server.model} {endpoint.api} {self._server.served}"

    @property
    def running(self) -> bool:
        return self._server.running

    def start(self) -> None:
        """Reach the server. Raises Unavailable where it does not answer, ConfigError where it refuses us."""
        self._server.start()

    def ask(
        self, prompts: Sequence[str], attempt: int, should_stop: Callable[[], bool], heard: Heard = unheard
    ) -> list[Reply] | None:
        """As Judge.ask. Raises Unavailable when the server is gone, after all tries of a request."""
        tokens = self._tokenizer(list(prompts))["input_ids"] if prompts else []
        replies = [refused(len(ids), self._settings.max_input_tokens) for ids in tokens]
        sent = [prompt for prompt, reply in zip(prompts, replies, strict=True) if reply is None]

        def hear(answers: Mapping[int, Answer]) -> None:
            heard({sent[number]: _reply(answer) for number, answer in answers.items()})

        done = self._server.ask([self._question(prompt, attempt) for prompt in sent], should_stop, hear)
        if done is None:
            return None
        if len(done) >= MANY and all(answer.refused for answer in done):
            raise EngineError(
                f"the judge refused all of {len(done)} questions: {done[0].problem}",
                "mend verifier.endpoint: the model, or what it is asked with",
            )
        told = iter(done)
        return [reply or _reply(next(told)) for reply in replies]

    def usage(self) -> dict[str, float]:
        """As Endpoint.usage."""
        return self._server.usage()

    def close(self) -> None:
        self._server.close()

    def _question(self, prompt: str, attempt: int) -> Asked:
        temperature = 0.0 if attempt == 1 else RETRY_TEMPERATURE
        return Asked(prompt, self._settings.max_new_tokens, temperature=temperature, seed=self._seed + attempt)


def _reply(answer: Answer) -> Reply:
    problem = answer.problem or ("" if answer.text.strip() else "the judge said nothing")
    return Reply(answer.text, answer.finish_reason == "stop", problem=problem, refused=answer.refused)
