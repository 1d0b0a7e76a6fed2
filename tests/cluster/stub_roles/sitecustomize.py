"""Put on a job's PYTHONPATH, this replaces the three roles by one that costs nothing: what it does stands in $STUB.

linger   work until a drain, a stop request or the run's end
deaf     work on whatever signal comes; late: after a signal, raise what no retry can mend
once     say hello and end
allreduce  every rank of a gloo group adds its rank + 1; rank 0 says the sum, then lingers
fail     raise; hopeless: raise what no retry can mend
"""

import os
import subprocess
import sys
import time
import types


def main(run_dir, life):
    import grhpc
    from grhpc.errors import ConfigError
    from grhpc.store.rundir import RunDir

    run, kind, role = RunDir.open(run_dir), os.environ.get("STUB", "linger"), os.environ["STUB_ROLE"]
    rank = int(os.environ.get("RANK", "0"))
    log = run.events(role, life.job if rank == 0 else f"{life.job}-rank{rank}")
    total = _sum_of_ranks(rank) if kind == "allreduce" else 0
    host = os.environ.get("SLURMD_NODENAME", "")
    child = subprocess.Popen(["sleep", "300"]) if kind == "child" else None
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    more = {"total": total, "rank": rank, "end_s": life.end_s, "gpus": gpus, "code": grhpc.__file__}
    log.emit("ready", restart=life.restart, pid=os.getpid(), host=host, **more)
    if kind == "fail":
        raise RuntimeError("the stub was told to fail")
    if kind == "hopeless":
        raise ConfigError("the stub was told to give up", "tell it otherwise")
    while kind != "once" and not (life.draining and kind != "deaf" or run.stop_reason() or run.finished()):
        time.sleep(0.1)
    reason = life.drain_reason or run.stop_reason() or "end"
    log.emit("drain", reason=reason, restart=life.restart, child_lives=bool(child and child.poll() is None))
    if kind == "late":
        raise ConfigError("the stub was told to give up", "tell it otherwise")
    if child:
        child.kill()


def _sum_of_ranks(rank):
    import torch
    import torch.distributed as dist

    dist.init_process_group("gloo")
    value = torch.tensor([rank + 1.0])
    dist.all_reduce(value)
    dist.destroy_process_group()
    return value.item()


for _role in ("train", "rollout", "verify"):
    _module = types.ModuleType(f"grhpc.{_role}.worker")
    _module.main = main
    sys.modules[_module.__name__] = _module
