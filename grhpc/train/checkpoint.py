"""The full training state on disk: saved by all ranks at once, whole or not there, loadable under another layout.

A checkpoint is a folder of Megatron-Core's distributed files and a manifest with the size and SHA-256 of each, as each
rank tells what it wrote. It is written under a hidden name; the manifest comes last, then the rename. Under the same
layout a load gives back the same bits; under another, the same numbers.

Does not know: which checkpoint to load, how many to keep.
Invariant: a folder that `verify_checkpoint` accepts holds every byte that was saved.
"""

import hashlib
import json
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.api import CheckpointException

from grhpc.errors import ConfigError, CorruptFile, StoreError
from grhpc.store.atomic import fsync_dir, make_dir, storing, write_json
from grhpc.train.learner import Learner
from grhpc.train.mcore import FileStrategy, dist_checkpointing
from grhpc.train.mcore import parallel_state as mpu

FORMAT = 1
MANIFEST = "manifest.json"
_RANK_FILE = re.compile(r"__(\d+)_\d+\.distcp")
_HASH_THREADS = 8
_CHUNK = 1 << 22


def save_checkpoint(learner: Learner, folder: Path, extra: dict[str, Any]) -> None:
    """Save weights, optimizer state and `extra` (JSON values) as `folder`, which must not exist. All ranks call.

    Raises StoreError, on every rank, where the filesystem refuses one of them; no folder appears then.
    """
    parallel = learner.parallel
    temp = folder.with_name(f".{folder.name}.tmp")
    if parallel.is_main:
        make_dir(folder.parent)
        shutil.rmtree(temp, ignore_errors=True)
        make_dir(temp)
    parallel.barrier()
    failure = ""
    try:
        with storing(temp):
            dist_checkpointing.save(_state(learner, is_loading=False), str(temp), FileStrategy("torch_dist", 1))
    except CheckpointException as error:  # on every rank; the causes are known to one
        failure = _causes(error)
    failures = parallel.gather(failure)
    if any(failures):
        raise StoreError(
            f"checkpoint {folder} could not be written: {max(failures, key=len)}",
            "free space or mend the filesystem, then resume the run",
        )
    # Each rank tells of its own files: its machine shows them, while another's listing may be old.
    mine = _digests(temp, [name for name in list_files(temp) if _writer(name) == parallel.rank])
    files = {name: digest for part in parallel.gather(mine) for name, digest in part.items()}
    if parallel.is_main:
        manifest = {
            "format": FORMAT,
            "architecture": asdict(learner.arch),
            "dtype": learner.settings.dtype,
            "layout": {"tensor": parallel.tensor_size, "pipeline": parallel.pipeline_size, "data": parallel.data_size},
            "extra": extra,
            "files": {name: files[name] for name in sorted(files)},
        }
        write_json(temp / MANIFEST, manifest)
        with storing(folder):
            os.rename(temp, folder)
            fsync_dir(folder.parent)
    parallel.barrier()


def load_checkpoint(learner: Learner, folder: Path) -> dict[str, Any]:
    """Replace the learner's weights and optimizer state by `folder`'s; returns its `extra`. All ranks call.

    Only sizes are compared here; `verify_checkpoint` reads every byte. Raises CorruptFile, and ConfigError where the
    checkpoint is of another model or type.
    """
    manifest = read_manifest(folder)
    problem = _compare(folder, manifest, with_digests=False)
    if problem:
        raise CorruptFile(f"checkpoint {folder} is corrupt: {problem}", "resume from an earlier checkpoint")
    if manifest["architecture"] != asdict(learner.arch) or manifest["dtype"] != learner.settings.dtype:
        raise ConfigError(
            f"checkpoint {folder} is of another model or dtype than policy.model",
            "resume with the configuration that the run was started with",
        )
    try:
        state = dist_checkpointing.load(_state(learner, is_loading=True), str(folder))
    except CheckpointException as error:
        problem = f"checkpoint {folder} cannot be read: {_causes(error)}"
        if any(isinstance(cause, OSError) for cause, _ in error.failures.values()):
            raise StoreError(problem, "mend the filesystem, then resume the run") from None
        raise CorruptFile(problem, "resume from an earlier checkpoint") from None
    learner.wrapped.module.load_state_dict(state["model"])
    with torch.no_grad():
        learner.optimizer.load_state_dict(state["optimizer"])
    learner.parallel.barrier()
    extra: dict[str, Any] = manifest["extra"]
    return extra


def verify_checkpoint(folder: Path) -> str:
    """Read every byte of a checkpoint; what is wrong with it in one line, or "" where nothing is."""
    try:
        manifest = read_manifest(folder)
    except CorruptFile as error:
        return error.problem
    return _compare(folder, manifest, with_digests=True)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint. Raises CorruptFile where it is missing or not one of ours."""
    remedy = "resume from an earlier checkpoint"
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
    except FileNotFoundError:
        raise CorruptFile(f"checkpoint {folder} has no manifest: its save did not finish", remedy) from None
    except (OSError, ValueError) as error:
        raise CorruptFile(f"the manifest of checkpoint {folder} cannot be read: {error}", remedy) from None
    keys = {"format", "architecture", "dtype", "layout", "extra", "files"}
    if not isinstance(manifest, dict) or not keys <= manifest.keys() or manifest["format"] != FORMAT:
        raise CorruptFile(f"the manifest of checkpoint {folder} is not of this format", remedy)
    return manifest


def list_files(folder: Path) -> list[str]:
    """The checkpoint's files, sorted, the manifest aside; Megatron-Core hides one of them behind a dot."""
    with storing(folder):
        names = os.listdir(folder)
    return sorted(n for n in names if n == ".metadata" or not n.startswith(".") and n != MANIFEST)


def _writer(name: str) -> int:
    """The rank that writes a file: Megatron-Core names the ranks' data after them, and rank 0 writes the rest."""
    match = _RANK_FILE.fullmatch(name)
    return int(match[1]) if match else 0


def _state(learner: Learner, *, is_loading: bool) -> dict[str, Any]:
    metadata = {
        # The default sharding type of Megatron-Core 0.16.1 is broken; this one can be read under any layout.
        "distrib_optim_sharding_type": "fully_reshardable",
        "chained_optim_avoid_prefix": True,
        "singleton_local_shards": False,
        "dp_cp_group": mpu.get_data_parallel_group(with_context_parallel=True),
    }
    model = learner.wrapped.module.sharded_state_dict(metadata=metadata)
    optimizer = learner.optimizer.sharded_state_dict(model, is_loading=is_loading, metadata=metadata)
    return {"model": model, "optimizer": optimizer}


def _causes(error: CheckpointException) -> str:
    causes = {f"rank {rank}: {cause}" for rank, (cause, _) in error.failures.items()}
    return "; ".join(sorted(causes)) or "another rank failed"


def _compare(folder: Path, manifest: dict[str, Any], *, with_digests: bool) -> str:
    expected: dict[str, dict[str, Any]] = manifest["files"]
    present = set(list_files(folder))
    for name, what in expected.items():
        if name not in present:
            return f"{name} is missing"
        size = (folder / name).stat().st_size
        if size != what["size"]:
            return f"{name} has {size} bytes instead of {what['size']}"
    if with_digests:
        for name, found in _digests(folder, list(expected), sync=False).items():
            if found["sha256"] != expected[name]["sha256"]:
                return f"{name} does not have the bytes that were saved"
    return ""


def _digests(folder: Path, names: list[str], *, sync: bool = True) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 by name; `sync` makes each file durable on the way."""
    with ThreadPoolExecutor(_HASH_THREADS) as pool:
        return dict(zip(names, pool.map(lambda name: _digest(folder / name, sync), names), strict=True))


def _digest(path: Path, sync: bool) -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
        if sync:
            os.fsync(file.fileno())
    return {"size": size, "sha256": digest.hexdigest()}
