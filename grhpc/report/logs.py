"""The ends of a run's logs, made safe for a terminal.

Does not know: what the logs mean. Invariant: a log's bytes never reach the terminal as control characters.
"""

import argparse
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from grhpc.errors import GrhpcError
from grhpc.report.find import find_run
from grhpc.report.text import duration, one_line, printable
from grhpc.store.events import read_events
from grhpc.store.rundir import RunDir

MOST_FILES = 8  # of one role: the newest
TAIL_BYTES = 64 * 1024
FOLLOW_S = 0.5
EVENTS_SHOWN = 8
LAUNCHER = "submitit "  # how its lines begin


def command(args: argparse.Namespace) -> int:
    """The verb."""
    run = find_run(args.run)
    known = run.settings().roles
    if args.role and args.role not in known:
        raise GrhpcError(f"no role {args.role!r}", f"roles: {', '.join(known)}")
    roles = (args.role,) if args.role else known
    seen = {path: path.stat().st_size for role in roles for path in log_files(run, role)}
    shown = [line for role in roles for line in _ends(run, role, args.lines)]
    print("\n".join(shown or [f"no log in {run.root} yet"]), flush=True)
    if args.follow:
        _follow(run, roles, seen)
    return 0


def _ends(run: RunDir, role: str, num_lines: int) -> list[str]:
    """The ends of the role's logs; where only the launcher wrote there, the role's last events too."""
    ends = [(path, lines) for path in log_files(run, role) if (lines := tail(path, num_lines))]
    shown = [line for path, lines in ends for line in (f"== {path}", *lines)]
    if all(line.startswith(LAUNCHER) for _, lines in ends for line in lines):
        events = read_events(run.events_dir, role, TAIL_BYTES)[-min(num_lines, EVENTS_SHOWN) :]
        shown += [f"== the last events of {role}", *map(_as_line, events)] if events else []
    return shown


def _as_line(event: dict[str, Any]) -> str:
    shown = {name: value for name, value in event.items() if name not in ("t", "event", "role", "run_id")}
    if isinstance(since_s := shown.pop("since_s", None), int | float):
        shown["already"] = duration(event["t"] - since_s)
    fields = [f"{name} {f'{value:.4g}' if isinstance(value, float) else value}" for name, value in shown.items()]
    when = datetime.fromtimestamp(event["t"]).strftime("%H:%M:%S")
    return one_line(f"{when} {event['event']}: {', '.join(fields)}", 300)


def log_files(run: RunDir, role: str) -> list[Path]:
    """The role's newest logs, the newest last."""
    folder = run.logs_dir / role
    found = [path for path in folder.rglob("*") if path.suffix in (".out", ".err", ".log")] if folder.is_dir() else []
    return sorted(found, key=lambda path: path.stat().st_mtime)[-MOST_FILES:]


def log_end(run: RunDir, role: str, num_lines: int = 20) -> list[str]:
    """The end of the role's newest log that is not empty."""
    for path in reversed(log_files(run, role)):
        lines = tail(path, num_lines)
        if lines:
            return [f"{path}:", *lines]
    return ["no log"]


def tail(path: Path, num_lines: int) -> list[str]:
    """The last lines of a file, printable."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - TAIL_BYTES))
        text = file.read().decode(errors="replace")
    return [printable(line) for line in text.splitlines()[-num_lines:]]


def _follow(run: RunDir, roles: tuple[str, ...], seen: dict[Path, int]) -> None:
    """Print what is added, until Ctrl-C or the run's end."""
    while True:
        finished = run.finished()  # before the look: what came until the end is printed
        for role in roles:
            for path in log_files(run, role):
                with path.open("rb") as file:
                    file.seek(seen.get(path, 0))
                    whole = file.read().rpartition(b"\n")[0]
                if whole:
                    seen[path] = seen.get(path, 0) + len(whole) + 1
                    for line in whole.decode(errors="replace").splitlines():
                        print(f"{role} {path.stem} | {printable(line)}", flush=True)
        if finished:
            return
        time.sleep(FOLLOW_S)
