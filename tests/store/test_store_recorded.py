"""A recorded batch can be read, as it was, whatever happens while batches are packed into archives."""

import hashlib
import zipfile
from pathlib import Path

import pytest
from store_faults import DEATHS, FAULTS, at_every_call
from store_faults import folder as folder
from store_operations import archive
from store_rows import small_config

from grhpc.errors import CorruptFile, StoreError
from grhpc.store.ledger import Ledger, StepEntry, read_ledger
from grhpc.store.recorded import archive_batches, batch_bytes
from grhpc.store.rundir import RunDir


def content(step: int) -> bytes:
    return bytes([step]) * 3000


def prepare(root: Path, steps: int = 4) -> RunDir:
    """A run with recorded steps; their files' contents do not matter here."""
    run = RunDir.create(root / "run", small_config())
    ledger = Ledger.open_next(run.ledger_dir, run_id=run.run_id)
    ledger.append({"kind": "admit", "first": 0, "count": steps, "version": 0})
    for step in range(1, steps + 1):
        path = run.batch_path(step, 1)
        path.write_bytes(content(step))
        digest = hashlib.sha256(content(step)).hexdigest()
        entry = {"kind": "step", "step": step, "version": step - 1, "batch": path.name, "sha256": digest}
        ledger.append({**entry, "groups": [step - 1]})
    return run


def steps_of(run: RunDir) -> list[StepEntry]:
    return list(read_ledger(run.ledger_dir, run_id=run.run_id).steps.values())


def assert_all_there(run: RunDir, what: str = "") -> None:
    for entry in steps_of(run):
        assert batch_bytes(run, entry)[:10] == content(entry.step)[:10], what


def test_whole_spans_are_archived_as_they_were_and_any_unzip_opens_them(tmp_path: Path) -> None:
    run = prepare(tmp_path, steps=5)
    assert archive_batches(run, steps_of(run), 2) == []
    assert [path.name for path in sorted(run.archive_dir.iterdir())] == ["s000001-s000002.zip", "s000003-s000004.zip"]
    assert [path.name for path in run.batches_dir.iterdir()] == ["s000005-g0001.parquet"]
    assert_all_there(run)
    with zipfile.ZipFile(run.archive_path(3, 4)) as opened:
        assert opened.namelist() == ["s000003-g0001.parquet", "s000004-g0001.parquet"]
        assert opened.read("s000004-g0001.parquet")[:10] == content(4)[:10]


def test_one_step_is_read_without_the_others(tmp_path: Path) -> None:
    run = prepare(tmp_path)
    archive_batches(run, steps_of(run), 4)
    path = run.archive_path(1, 4)
    path.write_bytes(path.read_bytes().replace(content(2), b"\xff" * 3000))
    for entry in steps_of(run):
        if entry.step != 2:
            assert batch_bytes(run, entry)[:10] == content(entry.step)[:10]
    with pytest.raises(CorruptFile, match=r"s000002-g0001\.parquet in .*s000001-s000004\.zip"):
        batch_bytes(run, steps_of(run)[1])


def test_an_archive_damaged_anywhere_is_named_or_does_not_matter(tmp_path: Path) -> None:
    run = prepare(tmp_path, steps=2)
    archive_batches(run, steps_of(run), 2)
    path, entry = run.archive_path(1, 2), steps_of(run)[0]
    whole = path.read_bytes()
    for index in (*range(60), *range(3000, 3100), *range(len(whole) - 250, len(whole))):
        damaged = bytearray(whole)
        damaged[index] ^= 0x41
        path.write_bytes(damaged)
        try:
            assert batch_bytes(run, entry)[:10] == content(1)[:10]
        except StoreError as error:
            assert path.name in error.problem or run.archive_dir.name in error.problem, index


def test_a_batch_that_is_not_what_was_recorded_is_set_aside_and_the_others_archived(tmp_path: Path) -> None:
    run = prepare(tmp_path)
    run.batch_path(2, 1).write_bytes(b"other")
    (problem,) = archive_batches(run, steps_of(run), 4)
    assert "s000002-g0001.parquet is not the batch that the ledger recorded" in problem
    assert [path.read_bytes() for path in run.quarantine_dir.glob("s000002*") if path.suffix != ".json"] == [b"other"]
    assert list(run.batches_dir.iterdir()) == []
    for entry in steps_of(run):
        if entry.step != 2:
            assert batch_bytes(run, entry)[:10] == content(entry.step)[:10]
    assert archive_batches(run, steps_of(run), 4) == [], "said once"


def test_an_archive_of_other_files_is_not_taken_for_ours(tmp_path: Path) -> None:
    """A superseded trainer may have made it from batches of its own."""
    run = prepare(tmp_path)
    with zipfile.ZipFile(run.archive_path(1, 4), "w") as other:
        other.writestr("s000001-g0009.parquet", b"not ours")
    archive_batches(run, steps_of(run), 4)
    assert_all_there(run)


@pytest.mark.parametrize("fault", FAULTS)
def test_no_step_is_ever_out_of_reach(fault: str, folder: Path) -> None:
    for what, root, outcome in at_every_call("archive", prepare, folder, FAULTS[fault]):
        run = RunDir.open(root / "run")
        if fault not in DEATHS:
            assert not outcome.killed
            assert not outcome.error or ("StoreError" in outcome.error and outcome.remedy), outcome.error
        assert_all_there(run, what)
        assert archive(root) == [], what
        assert_all_there(run, what)
        assert list(run.batches_dir.iterdir()) == [], what
        assert [path.name for path in run.archive_dir.iterdir() if path.name.startswith(".")] == [], what
