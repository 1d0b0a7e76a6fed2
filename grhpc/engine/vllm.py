"""Prompts to completions with vLLM, in this process or in its children.

One engine holds one model. Its weights can be replaced in place between calls of `generate`. Prompts come in as token
ids; log-probabilities are those of the distribution that was sampled from (after temperature, top-p and top-k).

Does not know: groups, shards, verdicts. Invariant: a call of `generate` returns every completion it was asked for, or
None because it was asked to stop, or raises EngineError; it never returns a part. After an EngineError of `generate` or
`load_weights` the engine is closed, because neither its weights nor its key-value cache can be trusted any more.
"""

import contextlib
import itertools
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grhpc.config import EngineConfig
from grhpc.engine.tokenizer import load_tokenizer
from grhpc.errors import ConfigError, EngineError

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


def _never() -> bool:
    return False


class VllmEngine:
    """A vLLM engine for `model` (a folder or a Hub id).

    `max_model_tokens` bounds prompt plus completion; `settings.max_model_tokens`, where given, takes its place.
    Raises EngineError where vLLM does not start, ConfigError for an engine setting that vLLM does not know.
    """

    def __init__(self, model: str, *, dtype: str, settings: EngineConfig, max_model_tokens: int, seed: int = 0) -> None:
        self.max_model_tokens = settings.max_model_tokens or max_model_tokens
        self._numbers = itertools.count()
        self._engine: Any = None
        _set_environment(settings.tensor_parallel)
        with _children_ignore_signals(), _as_engine_error(f"vLLM did not start with {model}"):
            self._engine = _start(model, dtype, settings, self.max_model_tokens, seed)
            self.tokenizer: Any = load_tokenizer(model)

    def generate(
        self, requests: Sequence[Request], should_stop: Callable[[], bool] = _never
    ) -> list[list[Completion]] | None:
        """Completions by request, then by sample; None where `should_stop`, asked after every token, said so.

        Raises EngineError where the engine fails, or where a prompt with its `max_tokens` exceeds `max_model_tokens`
        (nothing was generated then, and the engine stays usable).
        """
        if self._engine is None:
            raise EngineError(*_CLOSED)
        for number, request in enumerate(requests):
            self._refuse_too_long(number, request)
        try:
            with _as_engine_error("vLLM failed while generating"):
                return self._generate(requests, should_stop)
        except EngineError:
            self.close()
            raise

    def load_weights(self, folder: Path) -> None:
        """Replace the weights in place by the *.safetensors files of `folder`, and forget all cached prefixes."""
        if self._engine is None:
            raise EngineError(*_CLOSED)
        if not any(folder.glob("*.safetensors")):
            raise EngineError(f"no safetensors files in {folder}", "publish the weights again")
        try:
            with _as_engine_error(f"vLLM could not load the weights of {folder}"):
                self._engine.collective_rpc("replace_weights", args=(str(folder.resolve()),))
                if not self._engine.reset_prefix_cache():
                    raise EngineError("the prefix cache is in use", "load weights only between calls of generate")
        except EngineError:
            self.close()
            raise

    @property
    def closed(self) -> bool:
        return self._engine is None

    def close(self) -> None:
        """Stop the engine and its children. May be called twice."""
        engine, self._engine = self._engine, None
        if engine is None:
            return
        from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

        with contextlib.suppress(Exception):  # a broken engine may also fail to stop
            engine.engine_core.shutdown()
        del engine
        with contextlib.suppress(Exception):
            cleanup_dist_env_and_memory()

    def _refuse_too_long(self, number: int, request: Request) -> None:
        prompt, new, most = len(request.prompt_ids), request.max_tokens, self.max_model_tokens
        if not prompt or prompt + new > most:
            raise EngineError(
                f"request {number} has {prompt} prompt tokens and {new} to come, but the engine holds {most}",
                "leave it out, or raise the engine's max_model_tokens",
            )

    def _generate(self, requests: Sequence[Request], should_stop: Callable[[], bool]) -> list[list[Completion]] | None:
        slots: dict[str, tuple[int, int]] = {}
        done: list[list[Completion | None]] = [[None] * request.n for request in requests]
        for r, request in enumerate(requests):
            for k in range(request.n):
                name = str(next(self._numbers))
                slots[name] = (r, k)
                prompt = {"prompt_token_ids": request.prompt_ids}
                self._engine.add_request(name, prompt, _sampling_params(request, k))
        while slots:
            if should_stop():
                self._engine.abort_request(list(slots))
                return None
            for output in self._engine.step():
                if output.finished:
                    r, k = slots.pop(output.request_id)
                    done[r][k] = _completion(output.outputs[0], requests[r].logprobs)
            if slots and not self._engine.has_unfinished_requests():
                raise EngineError(f"{len(slots)} completions never came", "see the engine's log")
        return [[c for c in samples if c is not None] for samples in done]


def context_tokens(model: str) -> int:
    """The most tokens that `model` was made for, by its config. Raises EngineError where there is no such model."""
    from transformers import AutoConfig

    with _as_engine_error(f"{model} has no readable config"):
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


def _start(model: str, dtype: str, settings: EngineConfig, max_model_tokens: int, seed: int) -> Any:
    from vllm import EngineArgs
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.engine.llm_engine import LLMEngine

    chosen: dict[str, Any] = {
        "model": model,
        "dtype": dtype,  # never "auto": it would turn a float32 checkpoint into bfloat16
        "tensor_parallel_size": settings.tensor_parallel,
        "gpu_memory_utilization": settings.gpu_memory_utilization,
        "max_model_len": max_model_tokens,
        "max_num_seqs": settings.max_num_seqs,
        "enforce_eager": settings.enforce_eager or not _has_gpu(),
        "logprobs_mode": "processed_logprobs",
        "worker_extension_cls": "grhpc.engine.weight_loading.WeightLoading",
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        "seed": seed,
    }
    if not _has_gpu():
        # A prompt cut in two rewinds its seeded generator, and the CPU's generators cannot be rewound.
        chosen["enable_chunked_prefill"] = False
    if settings.kv_cache_mb is not None:
        chosen["kv_cache_memory_bytes"] = settings.kv_cache_mb << 20
    try:
        args = EngineArgs(**(chosen | settings.extra))
    except TypeError as error:
        raise ConfigError(f"engine.extra: {error}", "use the names of vLLM's EngineArgs") from None
    # As vllm.LLM: without it a step takes 2,048 prompt tokens at most, a fourth or an eighth of what a GPU then gets.
    return LLMEngine.from_engine_args(args, usage_context=UsageContext.LLM_CLASS)


def _has_gpu() -> bool:
    import torch

    return bool(torch.cuda.device_count() > 0)  # by NVML: does not initialise CUDA in this process


def _set_environment(tensor_parallel: int) -> None:
    """vLLM and torch read these when they are imported; what a person has set already is left alone."""
    defaults = {
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    }
    if not _has_gpu():
        defaults |= {
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # "auto" puts every engine of a machine on core 0
            "TORCH_COMPILE_DISABLE": "1",  # else the first request for log-probabilities compiles for half a minute
        }
        if tensor_parallel == 1:  # one process starts in a few seconds; on a GPU two overlap, which pays there
            defaults["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    if "torch._dynamo" in sys.modules:  # transformers may have brought it in before, and it has read its environment
        dynamo = sys.modules["torch._dynamo"]
        dynamo.config.disable = dynamo.config.disable or os.environ.get("TORCH_COMPILE_DISABLE") == "1"


@contextlib.contextmanager
def _children_ignore_signals() -> Iterator[None]:
    """SLURM warns every process of a step, and the engine's children are not to die of it: they inherit that USR2 is
    blocked. (TERM ends them whatever we do: vLLM handles it there.) A signal to us waits until we are done here."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _as_engine_error(what: str) -> Iterator[None]:
    try:
        yield
    except (EngineError, ConfigError):
        raise
    except Exception as error:  # whatever vLLM raises, our callers know one error
        raise EngineError(f"{what}: {type(error).__name__}: {error}", "see the engine's log") from error
