"""What vLLM is asked for where there are GPUs, and where there are none. No engine starts."""

import os
from pathlib import Path

import pytest
from vllm.v1.engine.llm_engine import LLMEngine

from grhpc.config import EngineConfig
from grhpc.engine import vllm_start

POLICY = Path(vllm_start.__file__).parents[1] / "data" / "tiny_models" / "policy"
FOR_CPUS = ("TORCH_COMPILE_DISABLE", "VLLM_CPU_OMP_THREADS_BIND", "VLLM_ENABLE_V1_MULTIPROCESSING")


@pytest.fixture
def asked_for(monkeypatch):
    """The EngineArgs of a start, and the environment that its children would inherit."""

    def start(has_gpu, person=None, **settings):
        kept = {name: value for name, value in os.environ.items() if name not in (*FOR_CPUS, "VLLM_RPC_BASE_PATH")}
        kept |= person or {}
        monkeypatch.setattr(os, "environ", kept)
        monkeypatch.setattr(vllm_start, "_has_gpu", lambda: has_gpu)
        monkeypatch.setattr(vllm_start, "socket_folder", lambda: "/tmp")
        monkeypatch.setattr(LLMEngine, "from_engine_args", lambda args, usage_context: args)
        return vllm_start.start(str(POLICY), "bfloat16", EngineConfig(**settings), 5120, 7), kept

    return start


def test_on_gpus_vllm_keeps_its_graphs_its_compiler_and_its_own_process(asked_for):
    args, environment = asked_for(has_gpu=True)
    assert not args.enforce_eager and args.enable_chunked_prefill is None
    assert (args.gpu_memory_utilization, args.kv_cache_memory_bytes) == (0.9, None)
    assert not [name for name in FOR_CPUS if name in environment]
    assert environment["VLLM_WORKER_MULTIPROC_METHOD"] == "spawn", "a fork would take a CUDA context along"


def test_a_scheduler_in_our_process_leaves_the_gpus_memory_to_a_child(asked_for, monkeypatch):
    """Which gives it back for the judge's engine when it ends."""
    args, _ = asked_for(has_gpu=True)
    assert args.distributed_executor_backend is None
    args, _ = asked_for(has_gpu=True, person={"VLLM_ENABLE_V1_MULTIPROCESSING": "0"})
    assert args.distributed_executor_backend == "mp"
    args, _ = asked_for(has_gpu=False)
    assert args.distributed_executor_backend is None


def test_on_cpus_vllm_neither_compiles_nor_starts_a_process(asked_for):
    args, environment = asked_for(has_gpu=False, kv_cache_mb=64)
    assert args.enforce_eager and args.enable_chunked_prefill is False
    assert args.kv_cache_memory_bytes == 64 << 20
    assert environment["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0" and environment["TORCH_COMPILE_DISABLE"] == "1"


@pytest.mark.parametrize("has_gpu", [True, False])
def test_the_log_probabilities_are_those_sampled_from_and_weights_can_be_replaced(asked_for, has_gpu):
    args, _ = asked_for(has_gpu)
    assert (args.dtype, args.max_model_len, args.seed) == ("bfloat16", 5120, 7)
    assert args.logprobs_mode == "processed_logprobs"
    assert args.worker_extension_cls == "grhpc.engine.weight_loading.WeightLoading"


def test_a_persons_words_are_the_last_ones(asked_for):
    args, _ = asked_for(has_gpu=True, enforce_eager=True, extra={"max_num_batched_tokens": 4096})
    assert args.enforce_eager and args.max_num_batched_tokens == 4096
