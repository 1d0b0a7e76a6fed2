"""What the store's tests put into shards, and the queue they put it in."""

from dataclasses import dataclass
from pathlib import Path

from grhpc.config import Config, DataConfig, ModelConfig, RunConfig, TrainConfig, VerifierConfig
from grhpc.store.queue import Queue

RUN = "run-1"


@dataclass(frozen=True, kw_only=True)
class Row:
    group: int
    text: str
    ids: list[int]
    score: float | None
    ok: bool = True


def rows_of(*groups: int) -> list[Row]:
    """Two rows a group, the second without a score."""
    return [
        Row(group=group, text=f"group {group} ∀", ids=list(range(group, group + 5)), score=None if odd else 0.5 + group)
        for group in groups
        for odd in (False, True)
    ]


def open_queue(
    directory: Path, *, run_id: str = RUN, lease_s: float = 1000.0, max_attempts: int = 3, first: str = ""
) -> Queue[Row]:
    return Queue(directory, Row, run_id=run_id, lease_s=lease_s, max_attempts=max_attempts, first=first)


def small_config() -> Config:
    return Config(
        run=RunConfig(name="small"),
        policy=ModelConfig(model="policy"),
        verifier=VerifierConfig(model="verifier"),
        data=DataConfig(prepared="prepared"),
        train=TrainConfig(steps=2),
    )
