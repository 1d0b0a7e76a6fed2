"""Does GRPO learn in the tiny world? Whole runs through the real roles, seed by seed and verifier by verifier.

    python tests/bench/bench_learning.py [--modes generative exact oracle] [--seeds 0 1 2] [--dir FOLDER]

Prints one JSON object: for each mode and seed the true held-out accuracy (greedy, by the oracle) before and after, by
domain too, and how often the verifier was right about the policy's samples of the last five steps. The modes differ
only in who judges: the generative verifier, an exact match with the reference, or (no shipped configuration can ask
for) the oracle itself. About four minutes a run on two quiet cores.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from grhpc.cluster import control, launch
from grhpc.config import Config
from grhpc.config_file import load, with_absolute_paths
from grhpc.data.tiny import oracle
from grhpc.judge.decide import Decided, Decision, Pair
from grhpc.lifetime import Lifetime
from grhpc.records import NO, YES, Verdict
from grhpc.store.ledger import read_ledger
from grhpc.store.recorded import read_batch
from grhpc.store.rundir import RunDir
from grhpc.store.serving import serve
from grhpc.store.shard import read_shard
from grhpc.verify.worker import VerifyWorker

ROOT = Path(__file__).parents[2]
MODES = ("generative", "exact", "oracle")
RUN_LIMIT_S = 3600.0
LAST_STEPS = 5


class OracleDecider:
    """Judges by the truth."""

    running = True

    def start(self) -> None:
        pass

    def decide(self, pairs: Sequence[Pair], should_stop: Callable[[], bool], shard: str = "") -> Decided:
        decisions = {p: Decision(YES if oracle(p.question, p.answer) else NO, "oracle", "") for p in pairs}
        return Decided(decisions, 0)

    def close(self) -> None:
        pass


def run_one(mode: str, seed: int, folder: Path, overrides: Sequence[str]) -> dict[str, Any]:
    begun_s = time.monotonic()
    verify_mode = "exact" if mode == "oracle" else mode
    chosen = [f"run.name={mode}-{seed}", f"run.seed={seed}", f"run.dir={folder}", f"data.prepared={folder}/prepared"]
    chosen += [f"verify.mode={verify_mode}", *overrides]
    words = [word for override in chosen for word in ("--set", override)]
    subprocess.run(
        [sys.executable, "-m", "grhpc.data.prepare", "configs/tiny.yaml", *words],
        cwd=ROOT,
        check=True,
        stdout=sys.stderr,
    )
    config = with_absolute_paths(load(ROOT / "configs/tiny.yaml", chosen))
    run = RunDir.create(folder / f"{mode}-{seed}", config)
    roles = {"train": 1, "rollout": 1} if mode == "oracle" else {"train": 1, "rollout": 1, "verify": 1}
    launch.submit(run, config, roles)
    try:
        if mode == "oracle":
            judge_by_truth(run, config)
        while not run.finished():
            if time.monotonic() - begun_s > RUN_LIMIT_S:
                raise SystemExit(f"{run.root} is not finished after {RUN_LIMIT_S:.0f} s")
            time.sleep(1.0)
    finally:
        control.stop(run, now=True)
    return {"mode": mode, "seed": seed, **measure(run), "seconds": round(time.monotonic() - begun_s)}


def judge_by_truth(run: RunDir, config: Config) -> None:
    life = Lifetime(job="oracle")
    events = run.events("verify", life.job)
    worker = VerifyWorker(run, config, life, events, decider=OracleDecider())
    serve(run, "rollouts", worker, life, events)


def measure(run: RunDir) -> dict[str, Any]:
    versions = run.heldout_versions()
    curve = {v: read_shard(run.heldout_path(v), Verdict, run_id=run.run_id) for v in versions}
    steps = read_ledger(run.ledger_dir, run_id=run.run_id).steps
    last = [row for step in sorted(steps)[-LAST_STEPS:] for row in read_batch(run, steps[step])]
    samples = [row for row in last if row.extracted is not None]
    said = [(row.decision == YES, truth(row)) for row in samples]
    accepted, right = sum(yes for yes, _ in said), sum(true for _, true in said)
    both = sum(yes and true for yes, true in said)
    return {
        "steps": max(versions),
        "before": accuracy(curve[min(versions)]),
        "after": accuracy(curve[max(versions)]),
        "gain_points": round(100 * (accuracy(curve[max(versions)]) - accuracy(curve[min(versions)])), 1),
        "curve": {v: accuracy(rows) for v, rows in curve.items()},
        "by_domain": {
            name: [accuracy(rows) for rows in pair]
            for name, pair in by_category(curve[min(versions)], curve[max(versions)]).items()
        },
        "verifier_precision": round(both / accepted, 4) if accepted else None,
        "verifier_recall": round(both / right, 4) if right else None,
    }


def truth(row: Verdict) -> bool:
    return row.extracted is not None and oracle(row.question, row.extracted)


def accuracy(rows: Sequence[Verdict]) -> float:
    return round(sum(map(truth, rows)) / len(rows), 4)


def by_category(before: Sequence[Verdict], after: Sequence[Verdict]) -> dict[str, tuple[list[Verdict], list[Verdict]]]:
    found: dict[str, tuple[list[Verdict], list[Verdict]]] = defaultdict(lambda: ([], []))
    for place, rows in enumerate((before, after)):
        for row in rows:
            found[f"{row.category} ({row.answer_type})"][place].append(row)
    return dict(sorted(found.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--dir", type=Path, default=None, help="keep the runs here")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    args = parser.parse_args()
    folder = (args.dir or Path(tempfile.mkdtemp(prefix="grhpc-learning-"))).absolute()
    runs = []
    for seed in args.seeds:
        for mode in args.modes:
            runs.append(run_one(mode, seed, folder, args.overrides))
            print(json.dumps(runs[-1]), file=sys.stderr, flush=True)
    print(json.dumps({"bench": "learning", "machine": platform.machine(), "runs": runs}, indent=1))


if __name__ == "__main__":
    main()
