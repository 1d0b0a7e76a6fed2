"""What the trainer sees to where there are GPUs: the right one, the same bits, the tested kernels."""

import datetime
import os
import subprocess
import sys

import pytest
import torch

from grhpc.errors import GrhpcError
from grhpc.train import parallel
from grhpc.train.parallel import own_device

SCRIPT = """
import sys
from transformer_engine.pytorch.optimizers import FusedAdam  # it is there
for name in [name for name in sys.modules if name.startswith("transformer_engine")]:
    del sys.modules[name]
import grhpc.train.mcore
from megatron.core import optimizer
print(optimizer.Adam.__module__, optimizer.USING_PYTORCH_OPTIMIZER)
"""


@pytest.mark.parametrize(("given", "build", "fits"), [("0,1", "13.0", False), ("", "13.0", True), ("0,1", None, True)])
def test_a_rank_whose_gpu_is_lost_says_so_and_does_not_train_on_the_cpu(monkeypatch, given, build, fits):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", build)
    if fits:
        assert own_device().type == "cpu"
    else:
        with pytest.raises(GrhpcError, match=r"no GPU works on .*CUDA_VISIBLE_DEVICES is 0,1"):
            own_device()


@pytest.fixture
def torch_as_before():
    fill = torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = fill


def test_gpus_are_asked_for_the_same_bits_where_a_person_did_not_choose_otherwise(monkeypatch, torch_as_before):
    monkeypatch.delenv("NCCL_NVLS_ENABLE", raising=False)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    parallel._make_cuda_repeatable()
    assert torch.are_deterministic_algorithms_enabled()
    assert os.environ["NCCL_NVLS_ENABLE"] == "0"
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


@pytest.mark.parametrize("backend", ["nccl", "gloo"])
def test_ranks_wait_half_an_hour_for_one_whose_filesystem_is_slow(monkeypatch, backend):
    calls = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(parallel.dist, "init_process_group", lambda *words, **settings: calls.append((words, settings)))
    parallel._join_world(backend)
    assert calls == [((backend,), {"timeout": datetime.timedelta(minutes=30)})]


def test_what_images_for_gpus_bring_along_does_not_change_the_optimizer(tmp_path):
    for package in ("transformer_engine", "transformer_engine/pytorch", "apex"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    for package in ("transformer_engine/pytorch", "apex"):
        (tmp_path / package / "optimizers.py").write_text("class FusedAdam: pass\nclass FusedSGD: pass\n")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=800, env=env)
    assert done.stdout == "torch.optim.adamw True\n", done.stderr
