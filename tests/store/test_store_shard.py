"""Rows come back exactly as they went, or the reader is told what is wrong with the file."""

import hashlib
import math
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_rows import RUN, Row, rows_of

from grhpc.errors import CorruptFile, ForeignFile, StoreError
from grhpc.records import Verdict
from grhpc.store.shard import decode, encode, read_shard, write_shard

INTS = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
ROWS = st.builds(
    Row,
    group=INTS,
    text=TEXT,
    ids=st.lists(INTS, max_size=20),
    score=st.none() | st.floats(allow_nan=False),
    ok=st.booleans(),
)


def verdict(**changes) -> Verdict:
    base = Verdict(
        prompt_id="p",
        question="q?",
        answer="1/2",
        answer_type="Fraction",
        category="maths",
        difficulty="easy",
        token_ids=[1, 2, 3],
        group=7,
        kind="train",
        epoch=0,
        admitted_version=3,
        sample=1,
        response_ids=[4, 5],
        sampler_logprobs=[-0.1, -2.5],
        response="0.5",
        finish_reason="stop",
        weight_version=4,
        seed=9,
        extracted="0.5",
        decision="yes",
        layer="generative",
        reason="equal",
        answer_tokens=2,
        reference_tokens=3,
        reward=0.95,
        reused=False,
    )
    return replace(base, **changes)


@settings(max_examples=60, deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=8))
def test_rows_come_back_as_they_went(rows: list[Row]) -> None:
    assert decode(encode(rows, run_id=RUN), Path("x"), Row, run_id=RUN) == rows


def test_the_rows_of_the_journey_come_back(tmp_path: Path) -> None:
    rows = [verdict(), verdict(extracted=None, reward=-0.5, sample=2, response_ids=[], sampler_logprobs=[])]
    digest = write_shard(tmp_path / "s.parquet", rows, run_id=RUN)
    assert read_shard(tmp_path / "s.parquet", Verdict, run_id=RUN) == rows
    assert digest == hashlib.sha256((tmp_path / "s.parquet").read_bytes()).hexdigest()
    assert write_shard(tmp_path / "t.parquet", rows, run_id=RUN) == digest, "the same rows make the same file"


def test_a_missing_reward_stays_nan() -> None:
    (row,) = decode(encode([verdict(reward=math.nan)], run_id=RUN), Path("x"), Verdict, run_id=RUN)
    assert math.isnan(row.reward)


def test_every_flipped_bit_is_found() -> None:
    data = encode(rows_of(1, 2), run_id=RUN)
    for index in range(len(data)):
        damaged = bytearray(data)
        damaged[index] ^= 1 << (index % 8)
        with pytest.raises(CorruptFile):
            decode(bytes(damaged), Path("x"), Row, run_id=RUN)


def test_every_truncation_is_found() -> None:
    data = encode(rows_of(1), run_id=RUN)
    for length in range(len(data)):
        with pytest.raises(CorruptFile):
            decode(data[:length], Path("x"), Row, run_id=RUN)
    with pytest.raises(CorruptFile):
        decode(data + b"\0", Path("x"), Row, run_id=RUN)


def test_another_runs_shard_is_refused(tmp_path: Path) -> None:
    write_shard(tmp_path / "s.parquet", rows_of(1), run_id="another")
    with pytest.raises(ForeignFile, match="belongs to run another"):
        read_shard(tmp_path / "s.parquet", Row, run_id=RUN)


def test_rows_of_another_kind_are_refused(tmp_path: Path) -> None:
    write_shard(tmp_path / "s.parquet", [verdict()], run_id=RUN)
    with pytest.raises(CorruptFile, match="holds rows of Verdict, not Row"):
        read_shard(tmp_path / "s.parquet", Row, run_id=RUN)


def test_a_missing_shard_is_told_in_words(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such shard"):
        read_shard(tmp_path / "s.parquet", Row, run_id=RUN)


def test_a_row_that_breaks_its_type_is_a_bug_not_a_file() -> None:
    with pytest.raises((ValueError, TypeError)):
        encode([verdict(question=None)], run_id=RUN)
    with pytest.raises((ValueError, TypeError)):
        encode([], run_id=RUN)


def test_other_programs_can_open_a_shard(tmp_path: Path) -> None:
    """pandas and datasets know nothing of the seal."""
    write_shard(tmp_path / "s.parquet", rows_of(1, 2), run_id=RUN)
    pandas = pytest.importorskip("pandas")
    table = pandas.read_parquet(tmp_path / "s.parquet")
    assert list(table["group"]) == [1, 1, 2, 2] and list(table["ids"][0]) == [1, 2, 3, 4, 5]


def test_names_are_learned_without_loading_arrow() -> None:
    """`status` on a login node opens queues and ledgers; it must not wait for pyarrow."""
    code = "import sys, grhpc.store.rundir; sys.exit(int('pyarrow' in sys.modules or 'numpy' in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@dataclass(frozen=True, kw_only=True)
class Odd:
    names: list[str]
    maybe: list[int] | None
    flags: list[bool]


def test_lists_of_text_and_absent_lists() -> None:
    rows = [Odd(names=["a", ""], maybe=None, flags=[True]), Odd(names=[], maybe=[1], flags=[False, True])]
    assert decode(encode(rows, run_id=RUN), Path("x"), Odd, run_id=RUN) == rows
