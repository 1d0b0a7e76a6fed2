"""Questions to responses by an engine in this process.

Does not know: queues, scores, how many shards may be in the engine at one time. Invariant: which requests a shard
becomes, and in which order, depends on the configuration and its questions alone.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from grhpc.engine.host import EngineHost, engine_starter, without_prefix_cache
from grhpc.engine.vllm import Completion, Request, VllmEngine, context_tokens
from grhpc.errors import ConfigError, DataError
from grhpc.eval_config import EvalConfig
from grhpc.evaluate.benchmarks import Benchmark
from grhpc.evaluate.sampling import Answered, Further, first_seed, stops, unanswered
from grhpc.evaluate.statistics import TOO_LONG
from grhpc.records import Question, Sample

_SAID = "It is 2."


@dataclass(frozen=True)
class _Asked:
    """A shard's questions, which of them are short enough to be asked, and what the engine is asked for those."""

    questions: Sequence[Question]
    short: Sequence[bool]
    requests: Sequence[Request]


class EngineSampler:
    """Asks an engine in this process: all questions of a shard at once, of further ones beside it while it has room.

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

    def stream(self, first: Sequence[Question], further: Further, should_stop: Callable[[], bool]) -> Answered:
        numbers, in_hand = itertools.count(), dict[int, tuple[int, _Asked]]()
        questions: Sequence[Question] | None = first
        try:
            while questions is not None or in_hand:
                if questions is not None:
                    number, asked = next(numbers), self._ask(questions)
                    if asked.requests:
                        in_hand[self._host.add(asked.requests)] = number, asked
                    else:
                        yield number, self._samples(asked, [])
                if should_stop():
                    return
                for batch, groups in self._host.step().items() if in_hand else ():
                    number, asked = in_hand.pop(batch)
                    yield number, self._samples(asked, groups)
                questions = further() if in_hand and self._host.has_room else None
        finally:
            self._host.abort()

    def usage(self) -> dict[str, float]:
        return {}

    def close(self) -> None:
        self._host.close()

    def _ask(self, questions: Sequence[Question]) -> "_Asked":
        prompts = _prompt_ids(self._host.engine.tokenizer, questions)
        short = [len(ids) <= self._config.data.max_prompt_tokens for ids in prompts]
        ends = end_of_turn(self._host.engine.tokenizer)
        requests = [self._request(q, ids, ends) for q, ids, ok in zip(questions, prompts, short, strict=True) if ok]
        return _Asked(questions, short, requests)

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

    def _samples(self, asked: "_Asked", groups: Sequence[list[Completion]]) -> list[Sample]:
        told = iter(groups)
        answered = [(q, next(told) if ok else None) for q, ok in zip(asked.questions, asked.short, strict=True)]
        return [self._row(question, k, group) for question, group in answered for k in range(question.num_samples)]

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
        # Nobody reads log-probabilities here, and vLLM's other kind costs a twentieth even so.
        settings = replace(settings, extra={"logprobs_mode": "raw_logprobs"} | settings.extra)
        return engine_starter(model, config.model.dtype, settings, held, config.run.seed)()


def end_of_turn(tokenizer: Any) -> tuple[int, ...]:
    """The special token with which the chat template ends a turn, if it does: a base model's end of text is another
    one, and after its answer it would go on with turns of its own."""
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _SAID}]
    _, said, after = tokenizer.apply_chat_template(turns, tokenize=False).rpartition(_SAID)
    token_ids = tokenizer(after.strip(), add_special_tokens=False)["input_ids"][:1] if said else []
    added = tokenizer.added_tokens_decoder
    return tuple(number for number in token_ids if number in added and added[number].special)


def _prompt_ids(tokenizer: Any, questions: Sequence[Question]) -> list[list[int]]:
    """Each question as one user turn of the model's chat template."""
    if not tokenizer.chat_template:
        raise DataError("the model's tokenizer has no chat template", "add a chat_template.jinja to its folder")
    turns = [[{"role": "user", "content": question.prompt}] for question in questions]
    texts = [tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True) for turn in turns]
    found: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return found
