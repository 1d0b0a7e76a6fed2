"""Process groups: joins this process to the others and cuts the world into TP x PP x DP.

Works in 1..N processes started with RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT set (as torchrun does);
without WORLD_SIZE it is a world of one that needs no port. Tensors travel over NCCL where CUDA is present, else over
gloo; small Python objects always travel over a gloo control group whose patience is the caller's.

Does not know: models, batches. Invariant: every rank of the world makes the same calls in the same order.
"""

import datetime
import os
from typing import Any

import torch
import torch.distributed as dist

from grhpc.errors import ConfigError, GrhpcError
from grhpc.train.mcore import parallel_state as mpu
from grhpc.train.mcore import tensor_parallel

_NO_GPUS = ("", "-1", "NoDevFiles")  # what SLURM, and people, put into CUDA_VISIBLE_DEVICES
# Between two ranks in one collective, as in Megatron-Core's own groups: NCCL's ten minutes are short for a save that
# the filesystem holds up on one of them.
_PATIENCE = datetime.timedelta(minutes=30)


class Parallel:
    """The cut of the world and this process's place in it.

    `patience_s` bounds how long a rank waits for another in `broadcast` and `barrier` (the trainer's rank 0 may wait
    for verdicts for hours while the others wait for it). Raises ConfigError where the sizes do not divide the world.
    """

    def __init__(self, tensor: int = 1, pipeline: int = 1, *, seed: int = 0, patience_s: float = 3600.0) -> None:
        self._owns_world = not dist.is_initialized()
        self.device = own_device()
        on_cuda = self.device.type == "cuda"
        if on_cuda:
            torch.cuda.set_device(self.device)
            _make_cuda_repeatable()
        if self._owns_world:
            _join_world("nccl" if on_cuda else "gloo")
        self.rank: int = dist.get_rank()
        self.world_size: int = dist.get_world_size()
        if self.world_size % (tensor * pipeline):
            self._leave_world()
            raise ConfigError(
                f"the trainer has {self.world_size} ranks, which tensor_parallel x pipeline_parallel = "
                f"{tensor} x {pipeline} does not divide",
                "change the number of trainer ranks or the parallel sizes",
            )
        mpu.initialize_model_parallel(tensor_model_parallel_size=tensor, pipeline_model_parallel_size=pipeline)
        tensor_parallel.model_parallel_cuda_manual_seed(seed)
        self.control = dist.new_group(backend="gloo", timeout=datetime.timedelta(seconds=patience_s))
        self.tensor_size, self.pipeline_size = tensor, pipeline
        self.data_size: int = mpu.get_data_parallel_world_size()
        self.tensor_rank: int = mpu.get_tensor_model_parallel_rank()
        self.pipeline_rank: int = mpu.get_pipeline_model_parallel_rank()
        self.data_rank: int = mpu.get_data_parallel_rank()

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @property
    def is_first_stage(self) -> bool:
        return self.pipeline_rank == 0

    @property
    def is_last_stage(self) -> bool:
        return self.pipeline_rank == self.pipeline_size - 1

    @property
    def speaks_for_replica(self) -> bool:
        """Whether this rank reports for its data-parallel replica: its last stage's first tensor rank."""
        return self.is_last_stage and self.tensor_rank == 0

    def broadcast(self, value: Any) -> Any:
        """Rank 0's value on every rank."""
        box = [value if self.is_main else None]
        dist.broadcast_object_list(box, src=0, group=self.control)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, in rank order, on every rank."""
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value, group=self.control)
        return values

    def sum(self, numbers: list[float]) -> list[float]:
        """Element-wise float64 sum over the world, the same bits on every rank."""
        total = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(total, group=self.control)
        return [float(value) for value in total]

    def barrier(self) -> None:
        dist.barrier(group=self.control)

    def close(self) -> None:
        """Forget the groups, and leave the world if this object joined it."""
        mpu.destroy_model_parallel()
        self._leave_world()

    def _leave_world(self) -> None:
        if self._owns_world and dist.is_initialized():
            dist.destroy_process_group()


def own_device() -> torch.device:
    """The GPU of this rank of its node; where SLURM binds each task to its own (gpus_per_task), the one it sees.

    Raises GrhpcError where this rank has been given GPUs, and none works: its siblings would wait for it over NCCL.
    """
    if not torch.cuda.is_available():
        given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        if given not in _NO_GPUS and torch.version.cuda:
            node = os.uname().nodename
            raise GrhpcError(
                f"no GPU works on {node}, where CUDA_VISIBLE_DEVICES is {given}",
                f"see what `nvidia-smi` says there; `cluster.train.exclude: {node}` goes around it",
            )
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


def _make_cuda_repeatable() -> None:
    """Same inputs, same bits, on GPUs too: a resumed run must end as the run that was never stopped."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # NVLink's switches (NVLS) sum in no fixed order; torch by itself forbids one of NCCL's algorithms that let them.
    os.environ.setdefault("NCCL_NVLS_ENABLE", "0")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False


def _join_world(backend: str) -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    else:
        dist.init_process_group(backend, timeout=_PATIENCE)
