"""A run directory and an event log, with a death or a lie at every system call."""

import os
from pathlib import Path

import pytest
from store_faults import DEATHS, FAULTS, at_every_call
from store_faults import folder as folder
from store_operations import SMALL_CODE, emit
from store_rows import small_config

from grhpc.config_file import dump
from grhpc.errors import StoreError
from grhpc.store.events import read_events
from grhpc.store.rundir import RunDir


@pytest.mark.parametrize("fault", FAULTS)
def test_a_run_directory_is_made_whole_or_not_at_all(fault: str, folder: Path) -> None:
    RunDir.create(folder / "example", small_config(), SMALL_CODE.begin, code=SMALL_CODE.first())
    text = dump(small_config())
    everything = {path.name for path in (folder / "example").rglob("*")}
    for what, root, outcome in at_every_call("create", lambda root: None, folder, FAULTS[fault]):
        runs = root / "runs"
        shown = [name for name in os.listdir(runs) if not name.startswith(".")] if runs.exists() else []
        assert shown in ([], ["small"]), what
        if fault not in DEATHS:
            assert not outcome.killed
            assert not outcome.error or ("StoreError" in outcome.error and outcome.remedy), outcome.error
            if runs.exists() and fault == "disk full":
                assert os.listdir(runs) == shown, f"{what}: something half-made was left"
        if shown:
            assert RunDir.open(runs / "small").config_path.read_text() == text, what
            assert {path.name for path in (runs / "small").rglob("*")} == everything, what
            assert (runs / "small" / "code" / "grhpc" / "part" / "__init__.py").read_text() == "x = 1\n", what
            with pytest.raises(StoreError, match="holds a run already"):
                RunDir.create(runs / "small", small_config())
        else:
            assert outcome.killed or outcome.error, what
            RunDir.create(runs / "small", small_config())


@pytest.mark.parametrize("fault", FAULTS)
def test_an_event_log_gives_whole_lines(fault: str, folder: Path) -> None:
    for what, root, outcome in at_every_call("emit", emit, folder, FAULTS[fault]):
        before = read_events(root / "events")
        assert [event["event"] for event in before[:2]] == ["start", "ready"] and len(before) <= 4, what
        if not outcome.killed and not outcome.error:
            assert len(before) == 4
        emit(root)  # the requeued job writes on in the same file
        assert len(read_events(root / "events")) == len(before) + 2, what
