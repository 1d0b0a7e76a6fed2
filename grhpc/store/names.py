"""What a shard's file name says: its name, its attempt, its turn and, while it is leased, its holder.

    ready/g00000032-0008.a1-0.parquet
    leased/g00000032-0008.a1-0.4711_2-9f86d081.parquet
    failed/g00000032-0008.a5-4.parquet  and, beside it, .json with the reason

Does not know: directories, files' contents. Invariant: every return to `ready` takes the next turn, so no file name is
ever used twice for one put, and no memory of a name's absence (NFS) can hide it.
"""

import re
from dataclasses import dataclass, replace

_PATTERN = re.compile(r"([A-Za-z0-9_-]+)\.a(\d+)-(\d+)(?:\.([A-Za-z0-9_-]+)-([0-9a-f]{8}))?\.parquet")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")


@dataclass(frozen=True)
class ShardFile:
    """`attempt` counts tries from 1; `turn` counts returns to `ready`; `holder` and `nonce` are empty unless leased."""

    name: str
    attempt: int = 1
    turn: int = 0
    holder: str = ""
    nonce: str = ""

    @property
    def file(self) -> str:
        lease = f".{self.holder}-{self.nonce}" if self.nonce else ""
        return f"{self.name}.a{self.attempt}-{self.turn}{lease}.parquet"

    @property
    def reason_file(self) -> str:
        return f"{self.name}.a{self.attempt}-{self.turn}.json"

    def leased_by(self, holder: str, nonce: str) -> "ShardFile":
        return replace(self, holder=re.sub(r"[^A-Za-z0-9_-]", "_", holder) or "unknown", nonce=nonce)

    def returned(self, *, next_attempt: bool) -> "ShardFile":
        attempt = self.attempt + 1 if next_attempt else self.attempt
        return ShardFile(name=self.name, attempt=attempt, turn=self.turn + 1)

    def freed(self) -> "ShardFile":
        return replace(self, holder="", nonce="")


def parse(file: str) -> ShardFile | None:
    """What a file name says; None for a file that is not a shard's (a sidecar, another program's)."""
    match = _PATTERN.fullmatch(file)
    if match is None:
        return None
    name, attempt, turn, holder, nonce = match.groups()
    return ShardFile(name, int(attempt), int(turn), holder or "", nonce or "")


def check_name(name: str) -> str:
    """A shard's name: letters, digits, `_` and `-`. Raises ValueError."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"not a shard name: {name!r}")
    return name
