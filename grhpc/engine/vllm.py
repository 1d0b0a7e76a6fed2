"""Prompts to completions with vLLM, in this process or in its children.

One engine holds one model. Its weights can be replaced in place between calls of `generate`. Prompts come in as token
ids; log-probabilities are those of the distribution that was sampled from (after temperature, top-p and top-k).

Does not know: groups, shards, verdicts. Invariant: a batch of requests comes back with every completion it was asked
for, or not at all; never in part. After an EngineError of anything but a refused request the engine is closed, because
neither its weights nor its key-value cache can be trusted any more.
"""

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grhpc.config import EngineConfig
from grhpc.engine.tokenizer import load_tokenizer
from grhpc.engine.vllm_start import as_engine_error, start
from grhpc.errors import EngineError

_FINISHED = ("stop", "length")
_CLOSED = "the engine is closed", "make a new one"


@dataclass(frozen=True)
class Request:
    """One prompt and how to continue it. Of `n` samples, number k is drawn with seed + k. Without `logprobs`, which
    cost a tenth of a small model's time, the completions have none. A text ends before a string of `stop`, and with a
    token of `stop_token_ids`, as with the end-of-text token."""

    prompt_ids: list[int]
    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    max_tokens: int = 16
    seed: int | None = None
    logprobs: bool = True
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class Completion:
    """One continuation. `token_ids` ends with the end-of-text token where it was sampled (finish_reason "stop", not
    "length"); `logprobs` has one natural-log probability per token; `text` leaves special tokens out."""

    token_ids: list[int]
    logprobs: list[float]
    text: str
    finish_reason: str


class _Batch:
    """Requests that were taken together, and what came of them so far."""

    def __init__(self, requests: Sequence[Request]) -> None:
        self.requests = requests
        self.done: list[list[Completion | None]] = [[None] * request.n for request in requests]
        self.missing = sum(request.n for request in requests)


def _never() -> bool:
    return False


class VllmEngine:
    """A vLLM engine for `model` (a folder or a Hub id).

    `max_model_tokens` bounds prompt plus completion; `settings.max_model_tokens`, where given, takes its place.
    Raises EngineError where vLLM does not start, ConfigError for an engine setting that vLLM does not know.
    """

    def __init__(self, model: str, *, dtype: str, settings: EngineConfig, max_model_tokens: int, seed: int = 0) -> None:
        self.max_model_tokens = settings.max_model_tokens or max_model_tokens
        self._max_num_seqs = settings.max_num_seqs
        self._numbers = itertools.count()
        self._batches: dict[int, _Batch] = {}
        self._slots: dict[str, tuple[int, int, int]] = {}  # an unfinished sequence's batch, request, and sample
        self._engine: Any = None
        self._engine = start(model, dtype, settings, self.max_model_tokens, seed)
        with as_engine_error(f"{model} has no usable tokenizer"):
            self.tokenizer: Any = load_tokenizer(model)

    def generate(
        self, requests: Sequence[Request], should_stop: Callable[[], bool] = _never
    ) -> list[list[Completion]] | None:
        """Completions by request, then by sample; None where `should_stop`, asked after every token, said so.

        Raises EngineError where the engine fails, or where a prompt with its `max_tokens` exceeds `max_model_tokens`
        (nothing was generated then, and the engine stays usable).
        """
        if not requests:
            return []
        number = self.add(requests)
        while not should_stop():
            done = self.step()
            if number in done:
                return done[number]
        self.abort()
        return None

    def add(self, requests: Sequence[Request]) -> int:
        """Take a batch of requests beside those that are in hand, and return its number, by which `step` delivers it.

        Raises EngineError where the engine fails, or where a prompt with its `max_tokens` exceeds `max_model_tokens`
        (the engine stays as it was then).
        """
        if self._engine is None:
            raise EngineError(*_CLOSED)
        for place, request in enumerate(requests):
            self._refuse_too_long(place, request)
        number = next(self._numbers)
        self._batches[number] = _Batch(requests)
        with self._closing_on_failure("vLLM failed while taking requests"):
            for r, request in enumerate(requests):
                for k in range(request.n):
                    name = f"{number}.{r}.{k}"
                    self._slots[name] = (number, r, k)
                    prompt = {"prompt_token_ids": request.prompt_ids}
                    self._engine.add_request(name, prompt, _sampling_params(request, k))
        return number

    def step(self) -> dict[int, list[list[Completion]]]:
        """One step of everything in hand; the batches that it finished, whole: completions by request, then by sample.

        Raises EngineError."""
        if self._engine is None:
            raise EngineError(*_CLOSED)
        with self._closing_on_failure("vLLM failed while generating"):
            return self._step()

    def abort(self) -> None:
        """Drop every batch in hand."""
        if self._engine is not None and self._slots:
            with self._closing_on_failure("vLLM failed while aborting"):
                self._engine.abort_request(list(self._slots))
        self._slots.clear()
        self._batches.clear()

    @property
    def has_room(self) -> bool:
        """Whether a further batch would begin at once, as far as the number of sequences says."""
        return len(self._slots) < self._max_num_seqs

    def load_weights(self, folder: Path) -> None:
        """Replace the weights in place by the *.safetensors files of `folder`, and forget all cached prefixes."""
        if self._engine is None:
            raise EngineError(*_CLOSED)
        if not any(folder.glob("*.safetensors")):
            raise EngineError(f"no safetensors files in {folder}", "publish the weights again")
        with self._closing_on_failure(f"vLLM could not load the weights of {folder}"):
            self._engine.collective_rpc("replace_weights", args=(str(folder.resolve()),))
            if not self._engine.reset_prefix_cache():
                raise EngineError("the prefix cache is in use", "load weights only when nothing is in hand")

    @property
    def closed(self) -> bool:
        return self._engine is None

    def close(self) -> None:
        """Stop the engine and its children. May be called twice."""
        engine, self._engine = self._engine, None
        self._slots.clear()
        self._batches.clear()
        if engine is None:
            return
        from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

        with contextlib.suppress(Exception):  # a broken engine may also fail to stop
            engine.engine_core.shutdown()
        del engine
        with contextlib.suppress(Exception):
            cleanup_dist_env_and_memory()

    @contextlib.contextmanager
    def _closing_on_failure(self, what: str) -> Iterator[None]:
        try:
            with as_engine_error(what):
                yield
        except EngineError:
            self.close()
            raise

    def _refuse_too_long(self, number: int, request: Request) -> None:
        prompt, new, most = len(request.prompt_ids), request.max_tokens, self.max_model_tokens
        if not prompt or prompt + new > most:
            raise EngineError(
                f"request {number} has {prompt} prompt tokens and {new} to come, but the engine holds {most}",
                "leave it out, or raise the engine's max_model_tokens",
            )

    def _step(self) -> dict[int, list[list[Completion]]]:
        finished: dict[int, list[list[Completion]]] = {}
        for output in self._engine.step():
            if not output.finished:
                continue
            number, r, k = self._slots.pop(output.request_id)
            batch = self._batches[number]
            batch.done[r][k] = _completion(output.outputs[0], batch.requests[r].logprobs)
            batch.missing -= 1
            if not batch.missing:
                del self._batches[number]
                finished[number] = [[c for c in samples if c is not None] for samples in batch.done]
        if self._slots and not self._engine.has_unfinished_requests():
            raise EngineError(f"{len(self._slots)} completions never came", "see the engine's log")
        return finished


def context_tokens(model: str) -> int:
    """The most tokens that `model` was made for, by its config. Raises EngineError where there is no such model."""
    from transformers import AutoConfig

    with as_engine_error(f"{model} has no readable config"):
        return int(AutoConfig.from_pretrained(model).max_position_embeddings)


def _sampling_params(request: Request, sample: int) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        max_tokens=request.max_tokens,
        stop=list(request.stop),
        stop_token_ids=list(request.stop_token_ids),
        # Greedy draws nothing, and a generator for each request costs a third of the time.
        seed=None if request.seed is None or request.temperature == 0 else request.seed + sample,
        logprobs=0 if request.logprobs else None,
        flat_logprobs=request.logprobs,
        output_kind=RequestOutputKind.FINAL_ONLY,
        skip_clone=True,
    )


def _completion(output: Any, with_logprobs: bool) -> Completion:
    """Check and convert one CompletionOutput. Raises EngineError where it is not what was asked for."""
    token_ids = list(output.token_ids)
    logprobs = list(output.logprobs.logprobs) if with_logprobs else []
    if output.finish_reason not in _FINISHED or not token_ids:
        raise EngineError(f"a completion ended with {output.finish_reason!r} after {len(token_ids)} tokens")
    if with_logprobs and (len(logprobs) != len(token_ids) or not all(math.isfinite(p) for p in logprobs)):
        raise EngineError("a completion's log-probabilities are missing or not finite", "check the weights for NaN")
    return Completion(token_ids, logprobs, output.text, output.finish_reason)
