"""A model is known by what it holds, wherever its folder stands."""

import shutil

import huggingface_hub
import pytest

from grhpc.store.model_digest import SMALL, model_digest


@pytest.fixture
def folder(tmp_path):
    found = tmp_path / "model"
    found.mkdir()
    (found / "config.json").write_text("{}")
    with open(found / "model.safetensors", "wb") as file:
        file.truncate(SMALL + 3_000_000)
    return found


def test_a_copy_under_another_name_is_the_same_model(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "manifest.json").write_text("a published version's")
    (copy / ".cache").write_text("x")
    assert model_digest(str(copy)) == model_digest(str(folder)) and len(model_digest(str(folder))) == 64


@pytest.mark.parametrize("place", [0, (5 << 20) + 100, SMALL + 3_000_000 - 1])
def test_a_large_file_is_known_in_its_middle_too(folder, place):
    """An adapter that was merged in leaves both ends as they were, and the size."""
    before = model_digest(str(folder))
    with open(folder / "model.safetensors", "r+b") as file:
        file.seek(place)
        file.write(b"y")
    assert model_digest(str(folder)) != before


def test_names_sizes_and_small_files_count(folder):
    seen = {model_digest(str(folder))}
    (folder / "config.json").write_text("[]")
    seen.add(model_digest(str(folder)))
    (folder / "config.json").rename(folder / "other.json")
    seen.add(model_digest(str(folder)))
    with open(folder / "model.safetensors", "ab") as file:
        file.write(b"\0")
    assert len(seen | {model_digest(str(folder))}) == 4


def test_a_hub_id_is_its_commit_where_that_is_known(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--org--tiny" / "snapshots" / ("c" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (tmp_path / "models--org--tiny" / "refs").mkdir()
    (tmp_path / "models--org--tiny" / "refs" / "main").write_text("c" * 40)
    assert model_digest("org/tiny") == "c" * 40
    assert [model_digest(name) for name in ("org/other", "", "no/such/folder", "gpt-5")] == [""] * 4
