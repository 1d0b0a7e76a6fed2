"""Lines that prove themselves: JSON with its own CRC, one entry a line.

Does not know: what an entry means. Invariant: a line that parses is the line that was written. Only the end of a file
may be torn: its one writer never writes again after a failed write.
"""

import json
import zlib
from pathlib import Path
from typing import Any, NamedTuple

from grhpc.errors import CorruptFile

_CRC = b',"crc":"'
_CRC_LENGTH = len(_CRC) + 8 + len(b'"}')


class Line(NamedTuple):
    """An entry and the offset in bytes just after its line."""

    end: int
    entry: dict[str, Any]


def encode_line(entry: dict[str, Any]) -> bytes:
    """One line, with its newline. `entry` is not empty and holds plain JSON values; NaN raises ValueError."""
    body = json.dumps(entry, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    return body[:-1] + _CRC + b'%08x"}\n' % zlib.crc32(body)


def parse_line(line: bytes) -> dict[str, Any] | None:
    """The entry of a line without its newline; None if it is not exactly what `encode_line` made."""
    body, tail = line[:-_CRC_LENGTH] + b"}", line[-_CRC_LENGTH:]
    if tail != _CRC + b'%08x"}' % zlib.crc32(body):
        return None
    entry = json.loads(body)
    return entry if isinstance(entry, dict) else None


def parse_journal(data: bytes, path: Path, limit: int | None = None) -> list[Line]:
    """The lines of a journal, of its first `limit` bytes only if given (a place where a whole line ended).

    A torn end is dropped: a line without its newline, or with holes (a machine that crashed before its last write was
    all on disk leaves zeros). Any other damage raises CorruptFile, since an entry that counts may be lost in it.
    """
    if limit is not None and limit > len(data):
        raise CorruptFile(f"{path} has lost its end: {len(data)} bytes of {limit}", "restore it from a backup")
    lines: list[Line] = []
    torn, end = False, 0
    for raw in data[:limit].split(b"\n")[:-1]:
        end += len(raw) + 1
        entry = parse_line(raw)
        if torn or (entry is None and b"\0" not in raw):
            raise CorruptFile(f"{path} is damaged before byte {end}", "restore it from a backup")
        if entry is None:
            torn = True
        else:
            lines.append(Line(end, entry))
    if limit is not None and limit != (lines[-1].end if lines else 0):
        raise CorruptFile(f"{path} is damaged before byte {limit}", "restore it from a backup")
    return lines
