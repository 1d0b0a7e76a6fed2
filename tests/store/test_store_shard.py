"""Rows come back exactly as they went, or the reader is told what is wrong with the file."""

import hashlib
import math
import subprocess
import sys
from dataclasses import MISSING, dataclass, field, fields, make_dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_rows import RUN, Row, rows_of

from grhpc.errors import CorruptFile, ForeignFile, OtherVersion, StoreError
from grhpc.records import Rollout, Score, Verdict
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


def another_version(row_type: type, without: str = "", **more: tuple) -> type:
    """The row type as another version of grhpc may have it: without one field, with others or otherwise."""
    columns = {f.name: (f.name, f.type, field(default=f.default)) for f in fields(row_type) if f.name != without}
    columns |= {name: (name, *how) for name, how in more.items()}
    return make_dataclass(row_type.__name__, columns.values(), frozen=True, kw_only=True)


def in_version(row: object, row_type: type, **more: object) -> object:
    return row_type(**{f.name: getattr(row, f.name) for f in fields(row_type) if hasattr(row, f.name)} | more)


KNOWN = [(t, f.name) for t in (Row, Rollout, Verdict, Score) for f in fields(t)]
ROW_OF = {Row: rows_of(1)[0], Verdict: verdict()}
ROW_OF[Rollout] = in_version(verdict(), Rollout)
ROW_OF[Score] = Score(
    benchmark="b",
    item="i",
    index=0,
    question="q",
    prompt="p",
    options=["x"],
    gold="g",
    gold_type="",
    groups="{}",
    num_samples=1,
    sample=0,
    response="r",
    num_tokens=None,
    finish_reason="stop",
    seed=0,
    weight_digest="",
    extracted=None,
    score=0.5,
    layer="",
    reason="",
)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(KNOWN))
def test_a_column_fewer_is_another_version_or_filled_with_its_default(known: tuple[type, str]) -> None:
    row_type, name = known
    older, row = another_version(row_type, without=name), ROW_OF[row_type]
    data = encode([in_version(row, older)], run_id=RUN)
    default = next(f.default for f in fields(row_type) if f.name == name)
    if default is not MISSING:
        assert decode(data, Path("x"), row_type, run_id=RUN) == [replace(row, **{name: default})]
        return
    with pytest.raises(
        OtherVersion, match=rf"version of grhpc \({row_type.__name__} columns missing: {name}\)"
    ) as caught:
        decode(data, Path("x"), row_type, run_id=RUN)
    assert "PYTHONPATH=RUN/code" in caught.value.remedy and not isinstance(caught.value, CorruptFile)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([Row, Rollout, Verdict, Score]), st.sampled_from("abc"), st.sampled_from([(int, 1), (str, "")]))
def test_a_column_more_is_another_version(row_type: type, name: str, how: tuple[type, object]) -> None:
    newer = another_version(row_type, **{name: how})
    data = encode([in_version(ROW_OF[row_type], newer, **{name: how[1]})], run_id=RUN)
    with pytest.raises(OtherVersion, match=rf"columns unknown to this one: {name}\)"):
        decode(data, Path("x"), row_type, run_id=RUN)


def test_a_column_of_another_kind_is_another_version() -> None:
    newer = another_version(Row, ok=(str, ""))
    with pytest.raises(OtherVersion, match=r"columns of another type: ok\)"):
        decode(encode([in_version(rows_of(1)[0], newer, ok="yes")], run_id=RUN), Path("x"), Row, run_id=RUN)


def test_columns_in_another_order_are_the_same_rows() -> None:
    order = another_version(Row, without="group", group=(int,))
    data = encode([in_version(row, order) for row in rows_of(1, 2)], run_id=RUN)
    assert decode(data, Path("x"), Row, run_id=RUN) == rows_of(1, 2)


def test_a_damaged_file_of_another_version_is_damaged() -> None:
    data = bytearray(encode([in_version(rows_of(1)[0], another_version(Row, without="ok"))], run_id=RUN))
    data[40] ^= 1
    with pytest.raises(CorruptFile):
        decode(bytes(data), Path("x"), Row, run_id=RUN)


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
