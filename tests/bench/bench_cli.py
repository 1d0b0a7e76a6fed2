"""How fast the command line answers: `--help`, and `status` of a run with 1,000 tasks. Prints JSON.

Bounds: --help under 0.3 s, status under 1 s, each as the best of several whole processes (start of Python included).
On a machine that does other things too, look at the CPU seconds beside them.
SLURM's answer comes from a stand-in `sacct` that prints 1,000 lines: what is measured is this project's own time.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

from grhpc.cluster.submissions import Submission, record  # noqa: E402
from grhpc.config_file import load  # noqa: E402
from grhpc.store.ledger import Ledger  # noqa: E402
from grhpc.store.rundir import RunDir  # noqa: E402

HELP_S, STATUS_S = 0.3, 1.0
NUM_TASKS, EVENTS_A_TASK, NUM_STEPS, TRIES = 1000, 50, 200, 5


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        run, env = make_run(Path(folder))
        figures = {
            **best_s("help", ["--help"], env),
            "help_bound_s": HELP_S,
            **best_s("status", ["status", str(run.root), "--json"], env),
            "status_bound_s": STATUS_S,
            "tasks": NUM_TASKS,
            "tries": TRIES,
        }
    figures["ok"] = figures["help_s"] < HELP_S and figures["status_s"] < STATUS_S
    print(json.dumps(figures))
    return 0 if figures["ok"] else 1


def best_s(name: str, words: list[str], env: dict[str, str]) -> dict[str, float]:
    """Wall-clock and CPU seconds of the quickest of several whole processes."""
    times = []
    for _ in range(TRIES):
        began, cpu = time.perf_counter(), children_cpu_s()
        subprocess.run([sys.executable, "submit.py", *words], cwd=ROOT, env=env, check=True, stdout=subprocess.DEVNULL)
        times.append((time.perf_counter() - began, children_cpu_s() - cpu))
    wall_s, cpu_s = min(times)
    return {f"{name}_s": round(wall_s, 3), f"{name}_cpu_s": round(cpu_s, 3)}


def children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def make_run(folder: Path) -> tuple[RunDir, dict[str, str]]:
    """A run with 1,000 tasks, half rollout and half verify, their event files, and a sacct that knows them."""
    config = load(ROOT / "configs" / "tiny.yaml", [f"run.dir={folder}/runs"])
    run = RunDir.create(config.run_dir, config)
    half = NUM_TASKS // 2
    record(run.jobs_dir, Submission("slurm", "train", "99"))
    lines = [sacct_line("99")]
    for role, job in (("rollout", "100"), ("verify", "101")):
        record(run.jobs_dir, Submission("slurm", role, job, half))
        for task in range(half):
            lines.append(sacct_line(f"{job}_{task}"))
            log = run.events(role, f"{job}_{task}")
            for i in range(EVENTS_A_TASK):
                log.emit("shard", shard=f"g{i:08d}-0008", groups=8, rollouts=64, tokens=9999, seconds=9.5, wait_s=0.1)
    make_history(run)
    answer = folder / "answer"
    answer.write_text("\n".join(lines) + "\n")
    sacct = folder / "sacct"
    sacct.write_text(f"#!/bin/sh\ncat {answer}\n")
    sacct.chmod(0o755)
    return run, {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


def make_history(run: RunDir) -> None:
    """A ledger of 200 steps with 768 groups each."""
    ledger, log = Ledger.open_next(run.ledger_dir, run_id=run.run_id), run.events("train", "99")
    for step in range(1, NUM_STEPS + 1):
        first = (step - 1) * 768
        groups = list(range(first, first + 768))
        ledger.append({"kind": "admit", "first": first, "count": 768, "version": step - 1})
        ledger.append(
            {"kind": "step", "step": step, "version": step - 1, "batch": "b", "sha256": "0" * 64, "groups": groups}
        )
        log.emit("step", step=step, reward_mean=0.5, accept_rate=0.5, staleness_mean=0.5, wait_s=1.0, train_s=1.0)


def sacct_line(job_id: str) -> str:
    now = int(time.time())
    return f"{job_id}|RUNNING|0:0|{now - 100}|{now - 90}|Unknown|n1|None"


if __name__ == "__main__":
    sys.exit(main())
