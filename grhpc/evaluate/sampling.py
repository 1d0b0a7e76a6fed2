"""Questions to responses, by this process's engine or by a server.

Does not know: shards, queues, scores. Invariant: a call answers every question with all its samples, in order, or
says that it was asked to stop, or raises; what a sample is drawn with depends on the configuration and its place alone.
"""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from grhpc.engine.endpoint import Endpoint
from grhpc.engine.host import EngineHost, engine_starter, without_prefix_cache
from grhpc.engine.server import Answer, Asked
from grhpc.engine.vllm import Completion, Request, VllmEngine, context_tokens
from grhpc.errors import ConfigError, DataError, EngineError
from grhpc.eval_config import EvalConfig
from grhpc.evaluate.benchmarks import Benchmark
from grhpc.evaluate.prompts import NEXT_EXAMPLE
from grhpc.evaluate.statistics import REFUSED, TOO_LONG
from grhpc.records import Question, Sample

MANY = 8  # questions of which a server that is set up rightly does not refuse every one
_PROBE = "What is 1 + 1?"
_SAID = "It is 2."
# How servers refuse a question for its length.
_TOO_LONG = re.compile(
    r"context[_ ](length|window|size)|maximum (model|input|prompt) length|max_model_len|longer than the (maximum|model)"
    r"|(prompt|input|question|messages?) (is|are|was|were) too long|input token count|`?inputs`? tokens",
    re.IGNORECASE,
)


class Sampler(Protocol):
    """Who responds. `running`: it can begin at once."""

    @property
    def running(self) -> bool: ...

    def start(self) -> None:
        """Start what it needs. Raises EngineError, ConfigError."""

    def sample(self, questions: Sequence[Question], should_stop: Callable[[], bool]) -> list[Sample] | None:
        """All samples of all questions, which are of one benchmark; None where `should_stop` said so."""

    def usage(self) -> dict[str, float]:
        """What was asked of a server so far; nothing for an engine."""

    def close(self) -> None: ...


class EngineSampler:
    """Asks an engine in this process, with one call for all the questions it is given.

    `fetch` gives the model's folder or Hub id; `digest` says in every sample whose weights they are; `on_stall` as for
    EngineHost.
    """

    def __init__(
        self,
        config: EvalConfig,
        entries: Mapping[str, Benchmark],
        fetch: Callable[[], str],
        digest: str,
        on_stall: Callable[[float], None],
    ) -> None:
        self._config, self._entries, self._fetch, self._digest = config, entries, fetch, digest
        self._host = EngineHost(self._start_engine, config.sample.engine.stall_s, on_stall)

    @property
    def running(self) -> bool:
        return self._host.running

    def start(self) -> None:
        _ = self._host.engine

    def sample(self, questions: Sequence[Question], should_stop: Callable[[], bool]) -> list[Sample] | None:
        prompts = _prompt_ids(self._host.engine.tokenizer, questions)
        short = [len(ids) <= self._config.data.max_prompt_tokens for ids in prompts]
        ends = end_of_turn(self._host.engine.tokenizer)
        requests = [self._request(q, ids, ends) for q, ids, ok in zip(questions, prompts, short, strict=True) if ok]
        groups = self._host.generate(requests, should_stop) if requests else []
        if groups is None:
            return None
        told = iter(groups)
        answered = [(question, next(told) if ok else None) for question, ok in zip(questions, short, strict=True)]
        return [self._row(question, k, group) for question, group in answered for k in range(question.num_samples)]

    def usage(self) -> dict[str, float]:
        return {}

    def close(self) -> None:
        self._host.close()

    def _request(self, question: Question, prompt_ids: list[int], ends: tuple[int, ...]) -> Request:
        entry = self._entries[question.benchmark]
        return Request(
            prompt_ids,
            n=question.num_samples,
            temperature=entry.temperature,
            top_p=entry.top_p,
            max_tokens=self._config.sample.max_response_tokens,
            seed=first_seed(self._config.run.seed, question),
            logprobs=False,
            stop=stops(self._config, entry),
            stop_token_ids=ends,
        )

    def _row(self, question: Question, k: int, group: list[Completion] | None) -> Sample:
        seed = first_seed(self._config.run.seed, question) + k
        if group is None:
            return unanswered(question, k, seed, self._digest, TOO_LONG)
        return Sample(
            **vars(question),
            sample=k,
            response=group[k].text,
            num_tokens=len(group[k].token_ids),
            finish_reason=group[k].finish_reason,
            seed=seed,
            weight_digest=self._digest,
        )

    def _start_engine(self) -> VllmEngine:
        config, engine = self._config, self._config.sample.engine
        model = self._fetch()
        need, context = config.data.max_prompt_tokens + config.sample.max_response_tokens, context_tokens(model)
        if need > context:
            raise ConfigError(
                f"prompt and response may have {need} tokens, but {model} holds {context}",
                "lower data.max_prompt_tokens or sample.max_response_tokens",
            )
        settings, held = without_prefix_cache(engine), engine.max_model_tokens or need
        return engine_starter(model, config.model.dtype, settings, held, config.run.seed)()


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

    def sample(self, questions: Sequence[Question], should_stop: Callable[[], bool]) -> list[Sample] | None:
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
        all_refused = bool(told) and not self._kept and all(answer.refused for answer in told)
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


def stops(config: EvalConfig, entry: Benchmark) -> tuple[str, ...]:
    """The strings that end a response to a question of this benchmark."""
    if config.sample.stop is not None:
        return tuple(config.sample.stop)
    return (NEXT_EXAMPLE,) if config.sample.few_shot and entry.few_shot else ()


def end_of_turn(tokenizer: Any) -> tuple[int, ...]:
    """The special token with which the chat template ends a turn, if it does: a base model's end of text is another
    one, and after its answer it would go on with turns of its own."""
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _SAID}]
    _, said, after = tokenizer.apply_chat_template(turns, tokenize=False).rpartition(_SAID)
    token_ids = tokenizer(after.strip(), add_special_tokens=False)["input_ids"][:1] if said else []
    added = tokenizer.added_tokens_decoder
    return tuple(number for number in token_ids if number in added and added[number].special)


def first_seed(run_seed: int, question: Question) -> int:
    """The seed of a question's first sample; the others' follow it. The same for every attempt, task and shard."""
    text = f"{run_seed} {question.benchmark} {question.item}"
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=6).digest())


def unanswered(question: Question, k: int, seed: int, digest: str, why: str) -> Sample:
    """The sample of a question that was TOO_LONG to be asked, or REFUSED."""
    return Sample(
        **vars(question),
        sample=k,
        response="",
        num_tokens=0,
        finish_reason=why,
        seed=seed,
        weight_digest=digest,
    )


def _prompt_ids(tokenizer: Any, questions: Sequence[Question]) -> list[list[int]]:
    """Each question as one user turn of the model's chat template."""
    if not tokenizer.chat_template:
        raise DataError("the model's tokenizer has no chat template", "add a chat_template.jinja to its folder")
    turns = [[{"role": "user", "content": question.prompt}] for question in questions]
    texts = [tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True) for turn in turns]
    found: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return found
