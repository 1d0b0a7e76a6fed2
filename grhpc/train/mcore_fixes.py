"""Corrections of Megatron-Core 0.16.1 where Transformer Engine and Apex are absent, on CPUs and GPUs alike.

Each correction names the place it mends. All are about torch's AdamW under the distributed optimizer, about activation
recomputation, and about how a checkpoint file is written.

Does not know: models, layouts, checkpoints' contents. Invariant: applying them twice is applying them once.
"""

import queue
from typing import Any

import torch
from megatron.core.dist_checkpointing.strategies import filesystem_async
from megatron.core.optimizer import distrib_optimizer
from megatron.core.tensor_parallel import random as tensor_parallel_random

from grhpc.train.optimizer_shards import save_own_part

_MARK = "_grhpc_mended"


def apply() -> None:
    """Mend the classes in place. Call once megatron.core is imported and before an optimizer is built."""
    cls: Any = distrib_optimizer.DistributedOptimizer
    if getattr(cls, _MARK, False):
        return
    setattr(cls, _MARK, True)
    _mend_parameter_states(cls)
    _mend_load(cls)
    _mend_state_dict(cls)
    save_own_part(cls)
    _mend_recompute()
    _write_in_process()


def prepare_adam(megatron_optimizer: Any) -> None:
    """Give every parameter of torch's Adam its (zero) state, which torch itself makes only at the first step."""
    inner = megatron_optimizer.optimizer
    if not isinstance(inner, torch.optim.Adam | torch.optim.AdamW):
        return
    for group in inner.param_groups:
        for param in group["params"]:
            if not inner.state[param]:
                inner.state[param].update(
                    step=torch.tensor(0.0),
                    exp_avg=torch.zeros_like(param.data),
                    exp_avg_sq=torch.zeros_like(param.data),
                )


def _mend_parameter_states(cls: Any) -> None:
    """distrib_optimizer.py:938: wants a 'step' that the checkpoint keeps elsewhere; writes to leaves under autograd."""
    original = cls._set_main_param_and_optimizer_states

    def set_states(self: Any, model_param: Any, tensors: dict[str, Any]) -> Any:
        group, order = self.model_param_group_index_map[model_param]
        state = self.optimizer.state[self.optimizer.param_groups[group]["params"][order]]
        if "step" in state:
            tensors = {**tensors, "step": state["step"]}
        with torch.no_grad():
            return original(self, model_param, tensors)

    cls._set_main_param_and_optimizer_states = set_states


def _mend_load(cls: Any) -> None:
    """distrib_optimizer.py:825: all parameters come back sharing ONE step tensor, which then counts once for each."""
    original = cls.load_state_dict

    def load_state_dict(self: Any, state_dict: dict[str, Any]) -> Any:
        prepare_adam(self)
        result = original(self, state_dict)
        for state in self.optimizer.state.values():
            if torch.is_tensor(state.get("step")):
                state["step"] = state["step"].detach().clone()
        return result

    cls.load_state_dict = load_state_dict


def _mend_state_dict(cls: Any) -> None:
    """distrib_optimizer.py:641: asserts on an optimizer that never stepped, so that nothing fresh could be loaded."""
    original = cls.state_dict

    def state_dict(self: Any) -> Any:
        prepare_adam(self)
        return original(self)

    cls.state_dict = state_dict


def _mend_recompute() -> None:
    """tensor_parallel/random.py:621: takes fp8=False for fp8."""
    cls: Any = tensor_parallel_random.CheckpointWithoutOutput
    original = cls.__init__

    def init(self: Any, fp8: Any = False) -> None:
        original(self, fp8)
        self.fp8 = bool(fp8)

    cls.__init__ = init


class _Done:
    """The one method pair of a joinable queue that the file writer needs."""

    def get(self) -> None:
        pass

    def task_done(self) -> None:
        pass


def _write_in_process() -> None:
    """filesystem_async.py:46, :177 and :205: a save starts a manager process (which imports the main script again and
    hangs without a main guard), copies all of a rank's tensors to the host, and forks a writer a file, under live GPU
    and network runtimes. A save that is waited for needs none of it: tensor by tensor, the files are written here."""
    cls: Any = filesystem_async.FileSystemWriterAsync

    def write(transforms: Any, _use_msc: bool, _rank: int, buckets: Any, results: Any) -> None:
        local: queue.Queue[Any] = queue.Queue()
        written: Any = {}
        for number, (path, name, (objects, tensors)) in enumerate(buckets):
            on_host = ((item, tensor.to("cpu")) for item, tensor in tensors)  # one at a time, as each is written
            bucket = path, name, (objects, on_host)
            cls.write_preloaded_data(transforms, number, bucket, local, _Done(), use_fsync=True)
            _, outcome = local.get_nowait()
            if isinstance(outcome, Exception):
                written = outcome
                break
            written[number] = outcome
        results.put(written)

    cls.write_preloaded_data_multiproc = staticmethod(write)
    cls.preload_tensors = staticmethod(lambda buckets, _non_blocking=True: buckets)
    filesystem_async._results_queue = queue.Queue()
