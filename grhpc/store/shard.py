"""Rows <-> one Parquet file that proves itself.

A shard is plain Parquet (zstd, page checksums): pandas, datasets and DuckDB open it. Page checksums do not cover the
footer, so between the last page and the footer, where readers do not look, stand 8 bytes of mark and the SHA-256 of
everything else: one flipped bit anywhere is found.

A field that has a default may be absent from a file, as it is from those written before there was that field.

Does not know: queues, what a row means. Invariant: `read_shard` returns exactly the rows that `write_shard` was given,
for the same run and the same row type, or raises.
"""

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from grhpc.errors import CorruptFile, ForeignFile, OtherVersion, StoreError
from grhpc.store.atomic import read_bytes, write_bytes

Row = TypeVar("Row")

_MARK = b"grhpcsha"
_TAIL = 8  # Parquet ends with the footer's length (4 bytes) and "PAR1"
_SEAL = len(_MARK) + hashlib.sha256().digest_size


def write_shard(path: Path, rows: Sequence[Any], *, run_id: str) -> str:
    """Write rows of one flat dataclass as `path`, whole or not at all. Returns the SHA-256 of the file, in hex."""
    data = encode(rows, run_id=run_id)
    write_bytes(path, data)
    return hashlib.sha256(data).hexdigest()


def read_shard(path: Path, row_type: type[Row], *, run_id: str) -> list[Row]:
    """The rows of `path`. Raises as `decode`, and StoreError (also where there is no such file)."""
    try:
        data = read_bytes(path)
    except FileNotFoundError:
        raise StoreError(f"no such shard: {path}", "it was consumed, moved or never written") from None
    return decode(data, path, row_type, run_id=run_id)


def encode(rows: Sequence[Any], *, run_id: str) -> bytes:
    """Rows, at least one, as the bytes of a sealed Parquet file. The same rows give the same bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = as_table(rows)
    metadata = {"grhpc.run_id": run_id, "grhpc.row_type": type(rows[0]).__name__}
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(metadata), sink, compression="zstd", write_page_checksum=True)
    return _seal(sink.getvalue().to_pybytes())


def as_table(rows: Sequence[Any]) -> Any:
    """Rows, at least one, as an Arrow table whose columns are the row type's fields."""
    import pyarrow as pa

    if not rows:
        raise ValueError("a shard holds at least one row")
    row_type: type = type(rows[0])
    schema = _schema(row_type)
    columns = [pa.array([getattr(row, field.name) for row in rows], type=field.type) for field in schema]
    for field, column in zip(schema, columns, strict=True):
        if column.null_count and not field.nullable:
            raise ValueError(f"{row_type.__name__}.{field.name} is None in a row")
    return pa.Table.from_arrays(columns, schema=schema)


def decode(data: bytes, path: Path, row_type: type[Row], *, run_id: str) -> list[Row]:
    """The rows in a shard's bytes; `path` is named in errors. Raises CorruptFile, ForeignFile, OtherVersion."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not _is_sealed(data):
        raise CorruptFile(f"{path} is damaged: its checksum does not match", "it is set aside; its rows are made again")
    try:
        with pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True) as file:
            table = file.read(use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise CorruptFile(f"{path} is not readable Parquet: {error}", "set it aside") from None
    metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    if metadata.get("grhpc.run_id") != run_id:
        owner = metadata.get("grhpc.run_id", "unknown")
        raise ForeignFile(f"{path} belongs to run {owner}, not {run_id}", "start the run in an empty directory")
    kind = metadata.get("grhpc.row_type", "unknown")
    if kind != row_type.__name__:
        raise CorruptFile(f"{path} holds rows of {kind}, not {row_type.__name__}", "set it aside")
    _refuse_other_columns(table.schema, row_type, path)
    columns = [_to_python(table.column(name).combine_chunks()) for name in table.schema.names]
    return [row_type(**dict(zip(table.schema.names, values, strict=True))) for values in zip(*columns, strict=True)]


def check_columns(path: Path, row_type: type) -> None:
    """Raise OtherVersion where `decode` would, by the footer alone. A file that is gone or damaged is passed over."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with contextlib.suppress(pa.ArrowException, OSError):
        _refuse_other_columns(pq.read_schema(path), row_type, path)


def _refuse_other_columns(there: Any, row_type: type, path: Path) -> None:
    ours = _schema(row_type)
    if there.equals(ours):
        return
    needed = {f.name for f in dataclasses.fields(row_type) if f.default is f.default_factory is dataclasses.MISSING}
    differences = {
        "unknown to this one": [name for name in there.names if name not in ours.names],
        "missing": [name for name in ours.names if name not in there.names and name in needed],
        "of another type": [n for n in there.names if n in ours.names and not there.field(n).equals(ours.field(n))],
    }
    told = [f"{how}: {', '.join(names)}" for how, names in differences.items() if names]
    if told:
        raise OtherVersion(
            f"{path} was written by another version of grhpc ({row_type.__name__} columns {'; '.join(told)})",
            "use the code that wrote it, for a run: PYTHONPATH=RUN/code PYTHONSAFEPATH=1 python -m grhpc.cli VERB ...; "
            "what is prepared: prepare it again",
        )


def _seal(data: bytes) -> bytes:
    start = _footer_start(data)
    return data[:start] + _MARK + hashlib.sha256(data).digest() + data[start:]


def _is_sealed(data: bytes) -> bool:
    start = _footer_start(data) - _SEAL
    if start < 0 or data[start : start + len(_MARK)] != _MARK:
        return False
    digest = hashlib.sha256(data[:start])
    digest.update(data[start + _SEAL :])
    return digest.digest() == data[start + len(_MARK) : start + _SEAL]


def _footer_start(data: bytes) -> int:
    return len(data) - _TAIL - int.from_bytes(data[-_TAIL:-4], "little")


@functools.cache
def _schema(row_type: type) -> Any:
    import pyarrow as pa

    plain = {int: pa.int64(), float: pa.float64(), str: pa.string(), bool: pa.bool_()}
    hints = typing.get_type_hints(row_type)
    fields = []
    for field in dataclasses.fields(row_type):
        hint, nullable = hints[field.name], False
        if isinstance(hint, types.UnionType):
            hint, nullable = next(a for a in typing.get_args(hint) if a is not type(None)), True
        is_list = typing.get_origin(hint) is list
        arrow_type = pa.list_(plain[typing.get_args(hint)[0]]) if is_list else plain[hint]
        fields.append(pa.field(field.name, arrow_type, nullable=nullable))
    return pa.schema(fields)


def _to_python(column: Any) -> list[Any]:
    """A column as Python values. Long lists of numbers go through numpy: element by element is 20 times slower."""
    import pyarrow as pa

    if not pa.types.is_list(column.type) or column.null_count or column.values.null_count:
        return list(column.to_pylist())
    values = column.flatten().to_numpy(zero_copy_only=False).tolist()
    offsets = column.offsets.to_numpy()
    ends = (offsets - offsets[0]).tolist()
    return [values[start:end] for start, end in itertools.pairwise(ends)]
