"""A run's history from its events: steps, held-out evaluations, and where each role's time went.

Does not know: how it is shown, SLURM. Invariant: a step that was replayed after a resume counts once, as it was last.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from grhpc.data import tiny
from grhpc.errors import CorruptFile
from grhpc.records import DECISIONS, YES, Verdict
from grhpc.report.judging import judging
from grhpc.store.events import read_events
from grhpc.store.ledger import LedgerState
from grhpc.store.recorded import read_batch
from grhpc.store.rundir import RunDir
from grhpc.store.shard import read_shard

Event = dict[str, Any]
Oracle = Callable[[str, str], bool]
ORACLES: dict[str, Oracle] = {"tiny": tiny.oracle}


@dataclass
class Judged:
    """Verdicts beside the truth. `true_*` need an oracle and are None without one; shares are of `num`."""

    num: int
    accepted: float
    true: float | None = None
    precision: float | None = None  # of the accepted, how many are right
    recall: float | None = None  # of the right, how many were accepted
    decisions: dict[str, int] = field(default_factory=dict)
    by_category: dict[str, tuple[int, float, float | None]] = field(default_factory=dict)  # num, accepted, true


@dataclass
class History:
    """`steps` by step, `heldout` by weight version, `seconds` by role and part."""

    steps: dict[int, Event]
    heldout: dict[int, Judged]
    seconds: dict[str, dict[str, float]]
    tokens: dict[str, int]
    judging: dict[str, float]
    began_s: float | None
    ended_s: float | None


def read_history(run: RunDir) -> History:
    """Everything the events and held-out files say; files that are not there yet are simply not in it."""
    events = read_events(run.events_dir)
    oracle = ORACLES.get(run.config().evaluate.oracle)
    times = [e["t"] for e in events if "t" in e]
    return History(
        steps=last_steps(events),
        heldout={version: judged(read_heldout(run, version), oracle) for version in run.heldout_versions()},
        seconds=seconds_by_role(events),
        tokens={role: sum(e.get("tokens") or 0 for e in shards_of(events, role)) for role in ("rollout",)},
        judging=judging(events),
        began_s=min(times, default=None),
        ended_s=max(times, default=None),
    )


def last_steps(events: list[Event]) -> dict[int, Event]:
    """The newest `step` event of each step."""
    steps = sorted((e for e in events if e.get("event") == "step"), key=lambda e: (e["step"], e.get("t", 0)))
    return {e["step"]: e for e in steps}


def thinned(rows: list[Event], always: Callable[[Event], bool], most: int = 40) -> list[Event]:
    """For a table: the rows that `always` are shown, the last, and of the others as many as fit."""
    every = -(-len(rows) // most)
    return [row for i, row in enumerate(rows) if i % every == 0 or row is rows[-1] or always(row)]


def shards_of(events: list[Event], role: str) -> list[Event]:
    return [e for e in events if e.get("event") == "shard" and e.get("role") == role]


def seconds_by_role(events: list[Event]) -> dict[str, dict[str, float]]:
    """Task-seconds of each role, by what they were spent on."""
    spent: dict[str, defaultdict[str, float]] = {role: defaultdict(float) for role in ("train", "rollout", "verify")}
    for event in events:
        kind, role = event.get("event"), event.get("role", "")
        if kind == "step":
            for part in ("wait_s", "train_s", "publish_s", "checkpoint_s"):
                spent["train"][part.removesuffix("_s")] += event.get(part) or 0.0
        elif kind == "shard" and role in spent:
            spent[role]["work"] += event.get("seconds") or 0.0
            spent[role]["wait"] += event.get("wait_s") or 0.0
            spent[role]["load weights"] += event.get("load_s") or 0.0
    return {role: {part: s for part, s in parts.items() if s} for role, parts in spent.items()}


def read_heldout(run: RunDir, version: int) -> list[Verdict]:
    return read_shard(run.heldout_path(version), Verdict, run_id=run.run_id)


def last_judged_batch(run: RunDir, ledger: LedgerState) -> Judged | None:
    """The newest step's recorded batch against the truth; None without an oracle, or where `audit` finds it damaged."""
    oracle = ORACLES.get(run.config().evaluate.oracle)
    if oracle is None or not ledger.steps:
        return None
    try:
        return judged(read_batch(run, ledger.steps[ledger.last_step]), oracle)
    except CorruptFile:
        return None


def judged(verdicts: Sequence[Verdict], oracle: Oracle | None) -> Judged:
    """Count decisions and, given an oracle, hold them against the truth."""
    truths = [oracle(v.question, v.extracted or "") for v in verdicts] if oracle else [None] * len(verdicts)
    accepted = [v.decision == YES for v in verdicts]
    counts = Counter(v.decision for v in verdicts)
    result = Judged(
        num=len(verdicts),
        accepted=_share(sum(accepted), len(verdicts)),
        decisions={decision: counts[decision] for decision in DECISIONS},
    )
    if oracle:
        both = sum(a and bool(t) for a, t in zip(accepted, truths, strict=True))
        result.true = _share(sum(map(bool, truths)), len(verdicts))
        result.precision = _share(both, sum(accepted))
        result.recall = _share(both, sum(map(bool, truths)))
    for category in sorted({v.category for v in verdicts}):
        rows = [(a, t) for v, a, t in zip(verdicts, accepted, truths, strict=True) if v.category == category]
        true = _share(sum(bool(t) for _, t in rows), len(rows)) if oracle else None
        result.by_category[category] = (len(rows), _share(sum(a for a, _ in rows), len(rows)), true)
    return result


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
