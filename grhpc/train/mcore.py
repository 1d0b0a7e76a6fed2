"""The one door to Megatron-Core: prepares the platform, imports it, mends it, and hands its names on.

Every other module of this room takes Megatron-Core's names from here, so that none can be loaded unprepared.
Transformer Engine and Apex, which images for GPUs often bring along, are hidden from it: with either it would take
another optimizer and other kernels than those that are tested, and that mcore_fixes.py mends.

Does not know: what the names are used for.
Invariant: whoever holds a name from here holds the same Megatron-Core, whatever else is installed on this machine.
"""

# ruff: noqa: E402  (the platform must be ready before the first import)

import functools
import logging
import sys
import warnings

import torch

from grhpc.train import platform

platform.install()
for _unused in ("transformer_engine", "transformer_engine_torch", "apex", "amp_C"):
    sys.modules.setdefault(_unused, None)  # type: ignore[arg-type]  # by this an import fails as if it were not there
warnings.filterwarnings("ignore", module=r"megatron\..*")
warnings.filterwarnings("ignore", message=r".*torch\.distributed.*is deprecated", category=FutureWarning)
warnings.filterwarnings("ignore", message="Please use DTensor instead", category=FutureWarning)
logging.getLogger("megatron").setLevel(logging.ERROR)

from megatron.core import dist_checkpointing, parallel_state, tensor_parallel
from megatron.core.dist_checkpointing.strategies.torch import TorchDistSaveShardedStrategy
from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig, finalize_model_grads
from megatron.core.models.gpt import GPTModel
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer
from megatron.core.optimizer.clip_grads import clip_grad_by_total_norm_fp32
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules, get_num_layers_to_build
from megatron.core.transformer.transformer_config import TransformerConfig

from grhpc.train import mcore_fixes

mcore_fixes.apply()
if not torch.cuda.is_available():
    _random = tensor_parallel.random
    _random._get_cuda_rng_state = lambda *_args, **_kwargs: torch.get_rng_state()
    _random._set_cuda_rng_state = lambda state, *_args, **_kwargs: torch.set_rng_state(state)

FileStrategy = functools.partial(TorchDistSaveShardedStrategy, thread_count=1)  # one file a rank

__all__ = [
    "DistributedDataParallel",
    "DistributedDataParallelConfig",
    "FileStrategy",
    "GPTModel",
    "MegatronModule",
    "OptimizerConfig",
    "PackedSeqParams",
    "ProcessGroupCollection",
    "TransformerBlockSubmodules",
    "TransformerConfig",
    "clip_grad_by_total_norm_fp32",
    "dist_checkpointing",
    "finalize_model_grads",
    "get_forward_backward_func",
    "get_gpt_layer_local_spec",
    "get_megatron_optimizer",
    "get_num_layers_to_build",
    "parallel_state",
    "tensor_parallel",
]
