"""A thousand claimers on one queue, simulated on one machine: what a shard costs the file server. Prints JSON.

    python tests/bench/bench_queue.py [--claimers 1000] [--shards 1000]

Exits 1 when a bound that docs/queue.md states is broken. Times are this machine's and bound nothing.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "store"), str(Path(__file__).parents[2])]

from store_crowd import counting, crowd  # noqa: E402
from store_rows import open_queue, rows_of  # noqa: E402

MOST_OPERATIONS_A_SHARD = {"alone": 14, "crowd": 30}
MOST_FILES_A_FOLDER = 1000

# The paper's step, configs/general-reasoner-14b.yaml: 768 groups in flight twice (max_staleness 1), 8 a shard.
GROUPS_A_STEP, GROUPS_A_SHARD, MAX_STALENESS, WEIGHT_FILES = 768, 8, 1, 16 + 5


def alone(directory: Path, num_shards: int) -> dict[str, float]:
    """Operations a shard by one worker without rivals: put, claim, put onward, done, less the first put."""
    a, b = open_queue(directory / "a"), open_queue(directory / "b")
    for n in range(num_shards):
        a.put(f"g{n:08d}-0001", rows_of(n))
    started = time.monotonic()
    with counting() as counts:
        while (lease := a.claim("w")) is not None:
            b.put(lease.name, lease.rows)
            lease.done()
    seconds = time.monotonic() - started
    return {"operations_a_shard": counts.total() / num_shards, "shards_a_second": num_shards / seconds}


def files_a_step() -> dict[str, int]:
    shards = GROUPS_A_STEP // GROUPS_A_SHARD
    return {
        "shards_a_step": shards,
        "files_made_a_step": 3 * shards + 1 + WEIGHT_FILES,
        "files_left_a_step_before_archiving": 1,
        "most_files_in_one_folder": shards * (MAX_STALENESS + 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--claimers", type=int, default=1000)
    parser.add_argument("--shards", type=int, default=1000)
    options = parser.parse_args()
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        single = alone(Path(folder) / "alone", 200)
        started = time.monotonic()
        told = crowd(Path(folder) / "crowd", options.claimers, options.shards)
        seconds = time.monotonic() - started
    # A look that finds nothing is one listing; how many there are depends on this machine's speed, so they stand apart.
    total = sum(told["operations"].values()) - told["empty_looks"]
    report = {
        "alone": {name: round(value, 2) for name, value in single.items()},
        "crowd": {
            "claimers": options.claimers,
            "shards": options.shards,
            "operations_a_shard": round(total / options.shards, 2),
            "by_kind_a_shard": {name: round(n / options.shards, 2) for name, n in sorted(told["operations"].items())},
            "empty_looks_a_shard": round(told["empty_looks"] / options.shards, 2),
            "seconds": round(seconds, 1),
        },
        "files": files_a_step(),
        "bounds": {"operations_a_shard": MOST_OPERATIONS_A_SHARD, "files_in_one_folder": MOST_FILES_A_FOLDER},
    }
    print(json.dumps(report, indent=1))
    kept = (
        single["operations_a_shard"] <= MOST_OPERATIONS_A_SHARD["alone"]
        and total / options.shards <= MOST_OPERATIONS_A_SHARD["crowd"]
        and report["files"]["most_files_in_one_folder"] <= MOST_FILES_A_FOLDER
    )
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
