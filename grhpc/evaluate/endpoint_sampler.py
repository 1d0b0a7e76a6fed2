"""Questions to responses by a server.

Does not know: queues, scores, engines. Invariant: as for every sampler (sampling.py); what a server is asked for a
sample depends on the configuration and its place alone, and what it answered once is not asked again by this task.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from grhpc.engine.endpoint import Endpoint
from grhpc.engine.server import Answer, Asked
from grhpc.errors import ConfigError, EngineError
from grhpc.eval_config import EvalConfig
from grhpc.evaluate.benchmarks import Benchmark
from grhpc.evaluate.sampling import Answered, Further, first_seed, stops, unanswered
from grhpc.evaluate.statistics import REFUSED, TOO_LONG
from grhpc.records import Question, Sample

MANY = 8  # questions of which a server that is set up rightly does not refuse every one
_PROBE = "What is 1 + 1?"
# How servers refuse a question for its length.
_TOO_LONG = re.compile(
    r"context[_ ](length|window|size)|maximum (model|input|prompt) length|max_model_len|longer than the (maximum|model)"
    r"|(prompt|input|question|messages?) (is|are|was|were) too long|input token count|`?inputs`? tokens",
    re.IGNORECASE,
)


class EndpointSampler:
    """Asks a server, one request for each sample. What came of a shard is kept until all of it is there: where the
    server goes away in between, nothing is asked, or paid, twice by this task.

    Every sample says whose it is by the word of the server that gave it: its name for the model, and what that is to
    it. A question that the server refuses is a wrong answer of its own kind; a server that refuses all of them is set
    up wrongly, and gives none.
    """

    def __init__(self, config: EvalConfig, entries: Mapping[str, Benchmark]) -> None:
        self._config, self._entries = config, entries
        endpoint = config.sample.endpoint
        self._server = Endpoint(endpoint, endpoint.model or config.model.model, "model", "sample.endpoint")
        self._kept: dict[tuple[str, int, int], tuple[Answer, str]] = {}  # with what the server said that it is

    @property
    def running(self) -> bool:
        return self._server.running

    def start(self) -> None:
        self._server.start()
        new, held = self._config.sample.max_response_tokens, self._server.max_model_tokens
        if held is not None and new >= held:
            raise ConfigError(
                f"a response may have {new} tokens, but {self._server.model} at {self._config.sample.endpoint.url} "
                f"holds {held} together with the question",
                "lower sample.max_response_tokens, or serve the model with a longer context",
            )

    def stream(self, first: Sequence[Question], further: Further, should_stop: Callable[[], bool]) -> Answered:
        """Asks for no further shard: a server has room for `concurrency` requests, and batches them as it likes."""
        samples = self.sample(first, should_stop)
        if samples is not None:
            yield 0, samples

    def sample(self, questions: Sequence[Question], should_stop: Callable[[], bool]) -> list[Sample] | None:
        """All samples of all questions, which are of one benchmark; None where `should_stop` said so."""
        self.start()
        places = [(question, k) for question in questions for k in range(question.num_samples)]
        left = [(question, k) for question, k in places if _place(question, k) not in self._kept]

        def hear(answers: Mapping[int, Answer]) -> None:
            whole = {number: answer for number, answer in answers.items() if not answer.problem}
            self._kept |= {_place(*left[number]): (answer, self._digest) for number, answer in whole.items()}

        told = self._server.ask([self._asked(question, k) for question, k in left], should_stop, hear)
        if told is None:
            return None
        now = {_place(*place): (answer, self._digest) for place, answer in zip(left, told, strict=True)}
        answers = now | self._kept
        all_refused = all(answers[_place(*place)][0].refused for place in places)
        if all_refused and not self._is_theirs(len(questions), left[0], told[0], should_stop):
            return None
        samples = [self._row(question, k, *answers[_place(question, k)]) for question, k in places]
        self._kept.clear()
        return samples

    def usage(self) -> dict[str, float]:
        return self._server.usage()

    def close(self) -> None:
        self._server.close()

    @property
    def _digest(self) -> str:
        return f"{self._server.model} {self._server.served}".strip()

    def _asked(self, question: Question, k: int) -> Asked:
        entry, seed = self._entries[question.benchmark], first_seed(self._config.run.seed, question) + k
        most = self._config.sample.max_response_tokens
        stop = stops(self._config, entry)
        return Asked(question.prompt, most, temperature=entry.temperature, top_p=entry.top_p, seed=seed, stop=stop)

    def _is_theirs(
        self, num: int, first: tuple[Question, int], refusal: Answer, should_stop: Callable[[], bool]
    ) -> bool:
        """Whether it is due to `num` questions that all of them were refused: few may be, where another one is taken
        that is asked in the same way. False where `should_stop` said so. Raises ConfigError where it is not."""
        if num < MANY:
            told = self._server.ask([replace(self._asked(*first), prompt=_PROBE)], should_stop)
            if told is None or not told[0].refused:
                return told is not None
        raise ConfigError(
            f"all of {num} questions to {self._server.model}: {refusal.problem}",
            "mend sample: endpoint, max_response_tokens; or the benchmark's temperature and top_p",
        )

    def _row(self, question: Question, k: int, answer: Answer, digest: str) -> Sample:
        seed = first_seed(self._config.run.seed, question) + k
        if answer.refused:
            why = TOO_LONG if _TOO_LONG.search(answer.problem) else REFUSED
            return unanswered(question, k, seed, digest, why)
        if answer.problem:
            raise EngineError(f"{question.benchmark} {question.item}: {answer.problem}", "mend sample.endpoint")
        return Sample(
            **vars(question),
            sample=k,
            response=answer.text.encode("utf-8", "replace").decode(),  # JSON may bring half a surrogate pair
            num_tokens=answer.num_tokens,
            finish_reason=answer.finish_reason,
            seed=seed,
            weight_digest=digest,
        )


def _place(question: Question, k: int) -> tuple[str, int, int]:
    return question.benchmark, question.index, k
