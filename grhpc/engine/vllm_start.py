"""Start vLLM: its settings for this machine, its environment, and the signals its children hear.

Does not know: requests, weights. Invariant: what a person has set in the environment is left alone; the children never
die of a warning that is meant for the role.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

from grhpc.config import EngineConfig
from grhpc.engine.sockets import socket_folder
from grhpc.errors import ConfigError, EngineError

_INVARIANT = "VLLM_BATCH_INVARIANT"
_OWN_PROCESS = "VLLM_ENABLE_V1_MULTIPROCESSING"


def start(model: str, dtype: str, settings: EngineConfig, max_model_tokens: int, seed: int) -> Any:
    """A vLLM LLMEngine for `model`. Raises EngineError, ConfigError."""
    with _children_ignore_warnings(), as_engine_error(f"vLLM did not start with {model}"):
        _set_environment(settings.tensor_parallel)
        return _start(model, dtype, settings, max_model_tokens, seed)


def schedule_here() -> None:
    """Every engine of this process from now on schedules in it: what is in a batch then depends on what was asked
    alone. A scheduler in a process of its own begins with those requests that have reached it, and hears a moment later
    which ones have met a stop string. A person's own setting stays."""
    os.environ.setdefault(_OWN_PROCESS, "0")


def require_batch_invariance() -> None:
    """Every engine of this process from now on computes a sequence alike, whatever else is in its batch.

    Raises ConfigError where vLLM cannot, or where a person has forbidden it."""
    if not _has_gpu():
        raise ConfigError(
            "batching is invariant, but here is no GPU, and vLLM on CPUs is not batch-invariant",
            "see why the task sees none; or make the evaluation anew, with batching alone or continuous",
        )
    if not _is_new_enough():
        raise ConfigError(
            "batching is invariant, but this GPU's compute capability is below 8.0",
            "take newer ones (cluster.evaluate.constraint); or make the evaluation anew, with batching alone",
        )
    if os.environ.setdefault(_INVARIANT, "1") != "1":
        raise ConfigError(f"batching is invariant, but {_INVARIANT} is {os.environ[_INVARIANT]}", f"unset {_INVARIANT}")
    # CUDA graphs without torch.compile, which picks kernels by timing them: two tasks may time otherwise.
    os.environ.setdefault("VLLM_USE_BREAKABLE_CUDAGRAPH", "1")


def refuse_batch_invariance(why: str) -> None:
    """Raises ConfigError where a person has asked for it behind the configuration's back."""
    if os.environ.get(_INVARIANT, "0") != "0":
        raise ConfigError(
            f"{why}, but {_INVARIANT} is {os.environ[_INVARIANT]}, and no result would say which kernels computed it",
            f"unset {_INVARIANT}, or make the evaluation anew with batching invariant",
        )


def _is_new_enough() -> bool:
    from vllm.platforms import current_platform

    return bool(current_platform.has_device_capability(80))


@contextlib.contextmanager
def as_engine_error(what: str) -> Iterator[None]:
    """Whatever vLLM raises inside, our callers know one error."""
    try:
        yield
    except (EngineError, ConfigError):
        raise
    except Exception as error:
        raise EngineError(f"{what}: {type(error).__name__}: {error}", "see the engine's log") from error


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
    elif os.environ.get(_OWN_PROCESS) == "0":
        chosen["distributed_executor_backend"] = "mp"  # a child has the GPU's memory, and gives it back when it ends
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
            defaults[_OWN_PROCESS] = "0"
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    if "VLLM_RPC_BASE_PATH" not in os.environ:
        os.environ["VLLM_RPC_BASE_PATH"] = socket_folder()
    if "torch._dynamo" in sys.modules:  # transformers may have brought it in before, and it has read its environment
        dynamo = sys.modules["torch._dynamo"]
        dynamo.config.disable = dynamo.config.disable or os.environ.get("TORCH_COMPILE_DISABLE") == "1"


@contextlib.contextmanager
def _children_ignore_warnings() -> Iterator[None]:
    """SLURM warns every process of a step, and the engine's children are not to die of it: they inherit that USR2 is
    blocked. TERM ends them in good order: vLLM handles it there. A warning to us waits until we are done here."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
