"""A resumed run ends with the same bits; another layout ends with the same numbers; damage is found."""

import json
import os
import queue
import shutil
from pathlib import Path

import numpy as np
import pytest
import rank_tasks
import torch
from megatron.core.dist_checkpointing.strategies import filesystem_async
from torch.distributed.checkpoint.api import CheckpointException
from trainer_cases import make_config

from grhpc.errors import ConfigError, CorruptFile, StoreError
from grhpc.train import checkpoint
from grhpc.train.checkpoint import MANIFEST, verify_checkpoint
from grhpc.train.optimizer_shards import rectangles
from grhpc.train.step import Trainer

LAYOUTS = {
    "TP1PP1": (1, {}),
    "DP2": (2, {}),
    "TP2PP2-SP": (4, {"tensor_parallel": 2, "pipeline_parallel": 2, "sequence_parallel": True}),
}


@pytest.fixture(scope="module")
def saved_under(pool, model_of, batches_of, tmp_path_factory):
    """A run of three steps on four ranks, with a checkpoint after the first: sizes -> (folder, what followed)."""
    made = {}

    def get(**sizes):
        key = tuple(sizes.items())
        if key not in made:
            *batches, probe = batches_of("qwen3-tied")
            folder, model = tmp_path_factory.mktemp("checkpoints") / "s000001", model_of("qwen3-tied")
            config = make_config(train=sizes)
            made[key] = folder, pool.run(4, rank_tasks.save_midway, config, model, batches, probe, folder, 1)[0]
        return made[key]

    return get


@pytest.fixture(scope="module")
def saved(saved_under):
    return saved_under(tensor_parallel=2, pipeline_parallel=2)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_resume_under_the_same_layout_is_bit_exact(pool, model_of, batches_of, tmp_path, layout, dtype):
    ranks, sizes = LAYOUTS[layout]
    *batches, probe = batches_of("qwen3-tied")
    config, model, folder = make_config(dtype, train=sizes), model_of("qwen3-tied"), tmp_path / "s000001"
    never_stopped = pool.run(ranks, rank_tasks.save_midway, config, model, batches, probe, folder, 1)[0]
    assert verify_checkpoint(folder) == ""
    resumed = pool.run(ranks, rank_tasks.resume, config, model, batches, probe, folder)[0]
    assert resumed["extra"] == {"step": 1}
    assert resumed["figures"] == never_stopped["figures"]
    for ours, theirs in zip(resumed["after"], never_stopped["after"], strict=True):
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("saved_sizes", "ranks", "sizes"),
    [
        ({"tensor_parallel": 2, "pipeline_parallel": 2}, 1, {}),
        ({"tensor_parallel": 2, "pipeline_parallel": 2}, 2, {}),
        ({"tensor_parallel": 2, "pipeline_parallel": 2}, 2, {"tensor_parallel": 2}),
        ({"tensor_parallel": 2, "pipeline_parallel": 2}, 4, {"pipeline_parallel": 2}),
        ({"tensor_parallel": 2}, 4, {}),  # DP2 -> DP4: every rank's ranges begin elsewhere
        ({}, 3, {}),
        ({}, 4, {"tensor_parallel": 2, "sequence_parallel": True}),
    ],
)
def test_resume_under_another_layout_agrees(pool, model_of, batches_of, saved_under, saved_sizes, ranks, sizes):
    folder, expected = saved_under(**saved_sizes)
    *batches, probe = batches_of("qwen3-tied")
    config = make_config(train=sizes)
    found = pool.run(ranks, rank_tasks.resume, config, model_of("qwen3-tied"), batches, probe, folder)[0]
    for ours, theirs in zip(found["figures"], expected["figures"], strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-6)
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-5)


def test_training_on_differs_from_resuming_elsewhere(pool, model_of, batches_of, saved):
    """The optimizer's state matters: the same weights with a fresh optimizer end elsewhere."""
    folder, expected = saved
    *batches, probe = batches_of("qwen3-tied")
    wrong_order = [batches[0], batches[2], batches[1]]
    found = pool.run(1, rank_tasks.resume, make_config(), model_of("qwen3-tied"), wrong_order, probe, folder)[0]
    assert found["figures"] != expected["figures"]


@pytest.mark.parametrize("shape", [(37,), (5, 7), (1, 30), (30, 1)])
def test_every_range_of_a_flattened_tensor_is_cut_into_rectangles(shape):
    size = int(np.prod(shape))
    whole = torch.arange(size).view(shape)
    for first in range(size + 1):
        for end in range(first, size + 1):
            cuts = rectangles(first, end, shape)
            assert len(cuts) <= 3 and [i for cut in cuts for i in range(*cut)] == list(range(first, end))
            for begin, stop in cuts:
                places = torch.nonzero((whole >= begin) & (whole < stop))
                box = places.amax(0) - places.amin(0) + 1
                assert int(box.prod()) == stop - begin, "what lies between its corners is its own, and nothing else"


def test_every_replica_writes_and_reads_its_own_part_of_the_state_and_no_more(pool, model_of, tmp_path):
    """12 bytes a parameter must neither come together on the first replica to be saved, nor on any to be loaded."""
    folder = tmp_path / "s000001"
    answers = pool.run(4, rank_tasks.peaks_of_saving_and_loading, make_config("bfloat16"), model_of("qwen3"), folder)
    state = 12 * answers[0]["parameters"]
    for rank, answer in enumerate(answers):
        weights = state / 6 if rank == 0 else 0  # those of the model are the same everywhere
        written = (folder / f"__{rank}_0.distcp").stat().st_size
        assert state / 4 + weights < written < 1.3 * (state / 4 + weights)  # an entry has a header of its own
        assert answer["saving"] < 1.2 * (state / 4 + weights)
        assert answer["loading"] < 0.2 * state


def test_tensors_reach_the_host_one_at_a_time(tmp_path, monkeypatch):
    happened = []

    class OnDevice:
        def to(self, device):
            happened.append(f"to {device}")
            return torch.zeros(1)

    def write(*_args, **_kwargs):
        happened.append("written")

    monkeypatch.setattr(filesystem_async, "_write_item", write)
    results = queue.Queue()
    buckets = [(str(tmp_path / "__0_0.distcp"), "__0_0.distcp", ([], [(None, OnDevice()), (None, OnDevice())]))]
    writer = filesystem_async.FileSystemWriterAsync
    writer.write_preloaded_data_multiproc([], False, 0, writer.preload_tensors(buckets, True), results)
    assert happened == ["to cpu", "written"] * 2 and len(results.get_nowait()) == 1


def copy_of(saved, tmp_path):
    return shutil.copytree(saved[0], tmp_path / "copy")


def test_every_damaged_file_is_found(saved, tmp_path):
    names = list(json.loads((saved[0] / MANIFEST).read_text())["files"])
    assert len(names) >= 6, "one data file a rank, and Megatron-Core's own"
    for name in names:
        folder = copy_of(saved, tmp_path / name)
        whole = bytearray((folder / name).read_bytes())
        whole[len(whole) // 2] ^= 1
        (folder / name).write_bytes(whole)
        assert name in verify_checkpoint(folder)
        (folder / name).write_bytes(whole[:-1])
        assert f"{name} has {len(whole) - 1} bytes" in verify_checkpoint(folder)
        (folder / name).unlink()
        assert verify_checkpoint(folder) == f"{name} is missing"


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"format": 1}', '{"format": 99}'])
def test_unfinished_or_foreign_manifest_is_found(saved, tmp_path, text):
    folder = copy_of(saved, tmp_path)
    (folder / MANIFEST).unlink()
    if text is not None:
        (folder / MANIFEST).write_text(text)
    assert "manifest" in verify_checkpoint(folder)


def test_damaged_checkpoint_is_not_loaded(saved, model_of, tmp_path):
    folder = copy_of(saved, tmp_path)
    (folder / "common.pt").unlink()
    trainer = Trainer(make_config(), model_of("qwen3-tied"))
    try:
        with pytest.raises(CorruptFile, match=r"common\.pt is missing"):
            checkpoint.load_checkpoint(trainer.learner, folder)
    finally:
        trainer.close()


@pytest.mark.parametrize(("cause", "kind"), [(OSError("stale handle"), StoreError), (KeyError("x"), CorruptFile)])
def test_a_filesystem_that_hiccups_is_not_taken_for_a_corrupt_checkpoint(saved, model_of, monkeypatch, cause, kind):
    """A corrupt file ends the run until a person acts; a refused read is worth another try."""

    def refuse(*_args):
        raise CheckpointException("load", {3: (cause, None)})

    monkeypatch.setattr(checkpoint.dist_checkpointing, "load", refuse)
    trainer = Trainer(make_config(), model_of("qwen3-tied"))
    try:
        with pytest.raises(StoreError, match="rank 3") as caught:
            checkpoint.load_checkpoint(trainer.learner, saved[0])
    finally:
        trainer.close()
    assert type(caught.value) is kind


def test_checkpoint_of_another_model_is_refused(saved, model_of):
    trainer = Trainer(make_config(), model_of("qwen2"))
    try:
        with pytest.raises(ConfigError, match="another model"):
            checkpoint.load_checkpoint(trainer.learner, saved[0])
    finally:
        trainer.close()


def test_load_overwrites_everything_that_was_learned_since(model_of, batches_of, tmp_path):
    batches = batches_of("qwen3-tied")
    trainer = Trainer(make_config(), model_of("qwen3-tied"))
    try:
        trainer.step(batches[0], 1)
        checkpoint.save_checkpoint(trainer.learner, tmp_path / "s000001", {})
        expected = [trainer.step(batch, step) for step, batch in enumerate(batches[1:], start=2)]
        checkpoint.load_checkpoint(trainer.learner, tmp_path / "s000001")
        assert [trainer.step(batch, step) for step, batch in enumerate(batches[1:], start=2)] == expected
    finally:
        trainer.close()


def test_write_that_one_rank_cannot_do_is_an_error_on_every_rank(pool, model_of, tmp_path):
    folder = tmp_path / "s000001"
    config = make_config(train={"tensor_parallel": 2})
    messages = pool.run(2, rank_tasks.save_without_space, config, model_of("qwen3"), folder)
    assert all("could not be written" in message and "No space left" in message for message in messages)
    assert not folder.exists()
    assert pool.run(2, rank_tasks.save_only, config, model_of("qwen3"), folder) == ["", ""], "the next attempt succeeds"


def test_every_ranks_files_are_in_the_manifest_though_no_machine_sees_them_all(pool, model_of, tmp_path):
    folder = tmp_path / "s000001"
    config = make_config(train={"tensor_parallel": 2, "pipeline_parallel": 2})
    assert pool.run(4, rank_tasks.save_unseen, config, model_of("qwen3"), folder) == [""] * 4
    data = {path.name for path in folder.glob("*.distcp")}
    assert {name.split("_")[2] for name in data} == {"0", "1", "2", "3"}
    assert data <= json.loads((folder / MANIFEST).read_text())["files"].keys()
    assert verify_checkpoint(folder) == ""


def test_every_byte_is_on_the_disk_before_the_checkpoints_name_is(model_of, tmp_path, monkeypatch):
    """Else a machine that loses its power leaves a checkpoint by name whose files are empty."""
    calls, fsync, rename = [], os.fsync, os.rename

    def tell_fsync(descriptor):
        calls.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def tell_rename(source, target):
        calls.append(Path(target).name)
        rename(source, target)

    monkeypatch.setattr(os, "fsync", tell_fsync)
    monkeypatch.setattr(os, "rename", tell_rename)
    folder = tmp_path / "s000001"
    trainer = Trainer(make_config(), model_of("qwen3-tied"))
    try:
        checkpoint.save_checkpoint(trainer.learner, folder, {})
    finally:
        trainer.close()
    named = calls.index(folder.name)
    late = [path.name for path in folder.iterdir() if path.stat().st_ino not in calls[:named]]
    assert late == [], "not synced before the rename"
    assert folder.stat().st_ino in calls[:named], "their names neither"
    assert tmp_path.stat().st_ino in calls[named:], "the checkpoint's own name"


def test_save_replaces_the_rest_of_an_unfinished_one(model_of, tmp_path):
    rest = tmp_path / ".s000001.tmp"
    rest.mkdir()
    (rest / "__9_9.distcp").write_text("half")
    trainer = Trainer(make_config(), model_of("qwen3-tied"))
    try:
        checkpoint.save_checkpoint(trainer.learner, tmp_path / "s000001", {})
    finally:
        trainer.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s000001"]
    assert not (tmp_path / "s000001" / "__9_9.distcp").exists()
    assert verify_checkpoint(tmp_path / "s000001") == ""
