"""The verbs of the cluster and of preparation: from parsed arguments to the room that does the work.

Does not know: how the work is done. Invariant: heavy work runs in a child process, whose words and exit code are ours.
"""

import argparse
import subprocess
import sys

from grhpc.cluster import control
from grhpc.cluster import doctor as cluster_doctor
from grhpc.cluster import plan as cluster_plan
from grhpc.config_file import load_any
from grhpc.report.find import find_run
from grhpc.start import PREPARE


def doctor(args: argparse.Namespace) -> int:
    return cluster_doctor.main(load_any(args.config), args.config) if args.config else cluster_doctor.main()


def plan(args: argparse.Namespace) -> int:
    print(cluster_plan.plan(load_any(args.config, args.overrides)))
    return 0


def scale(args: argparse.Namespace) -> int:
    print("\n".join(control.scale(find_run(args.run), args.role, args.tasks)))
    return 0


def stop(args: argparse.Namespace) -> int:
    run = find_run(args.run)
    print("\n".join(control.stop(run, now=args.now)))
    if run.finished():
        result = str(run.model_dir) if run.kind == "sft" else f"python submit.py report {args.run}"
        print(f"its result: {result}; to run again: start it by another name, --set run.name={run.name}-2")
    else:
        print(f"look: python submit.py status {args.run}; go on: python submit.py resume {args.run}")
    return 0


def prepare(args: argparse.Namespace) -> int:
    module, _ = PREPARE[type(load_any(args.config, args.overrides))]
    return _child(module, args.config, *(word for o in args.overrides for word in ("--set", o)))


def _child(module: str, *words: str) -> int:
    return subprocess.run([sys.executable, "-m", module, *words], check=False).returncode
