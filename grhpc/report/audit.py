"""Prove that every admitted group is in exactly one place: it has one fate, or stands in one queue, or is on its way.

Joins the ledger (what was admitted, what became of it) with the queues' listings. A group without a fate that stands
in no queue is lost; one with a fate that still stands in a queue is a duplicate delivery, which the ledger will drop.
While the trainer runs, a group may be between two places for a moment: audit again, or after a stop.
Does not know: what a group says. Invariant: reads only.
"""

import argparse
import json
import re
from collections import Counter
from typing import Any

from grhpc.records import Trained
from grhpc.report.find import find_run
from grhpc.store.atomic import list_names
from grhpc.store.ledger import read_ledger
from grhpc.store.rundir import RunDir
from grhpc.store.shard import read_shard

QUEUES = ("prompts", "rollouts", "verdicts")
SHOWN = 10


def command(args: argparse.Namespace) -> int:
    """The verb; 1 if something is not in order."""
    result = audit(find_run(args.run))
    print(json.dumps(result, indent=1) if args.json else "\n".join(lines(result)))
    return 0 if result["in_order"] else 1


def audit(run: RunDir) -> dict[str, Any]:
    """The counts, and every group that is not where it should be. Raises CorruptFile for a ledger that is damaged."""
    ledger = read_ledger(run.ledger_dir, run_id=run.run_id)
    places = group_places(run)
    open_groups = ledger.open_groups()
    fates = Counter(fate if fate.startswith("dropped") else "trained" for fate in ledger.fates.values())
    result: dict[str, Any] = {
        "run": run.root.name,
        "admitted": ledger.next_group,
        "fates": dict(sorted(fates.items())),
        "in_flight": dict(Counter(_nearest_end(places[g]) for g in open_groups if g in places)),
        "lost": sorted(open_groups - set(places)),
        "twice_in_queues": sorted(g for g in open_groups if len(places.get(g, ())) > 1),
        "fated_but_queued": sorted(set(places) & set(ledger.fates)),
        "never_admitted": sorted(set(ledger.fates) - set(range(ledger.next_group))),
        "steps_without_right_groups": _wrong_batches(run, ledger.steps),
        "steps": len(ledger.steps),
    }
    counted = sum(fates.values()) + sum(result["in_flight"].values()) + len(result["lost"])
    bad = ("lost", "never_admitted", "steps_without_right_groups")
    result["in_order"] = counted == ledger.next_group and not any(result[name] for name in bad)
    return result


def lines(result: dict[str, Any]) -> list[str]:
    """The audit for people."""
    text = [f"{result['run']}: {result['admitted']} groups admitted, {result['steps']} steps recorded"]
    for name, num in {**result["fates"], **{f"in flight: {k}": v for k, v in result["in_flight"].items()}}.items():
        text.append(f"{num:>8}  {name}")
    notes = {
        "lost": "lost: no fate, in no queue (a running trainer may be moving them; a resume puts them again)",
        "never_admitted": "have a fate but were never admitted",
        "steps_without_right_groups": "steps whose recorded batch does not hold the ledger's groups",
        "twice_in_queues": "in two queues at once (delivered twice; the ledger will take each once)",
        "fated_but_queued": "have their fate and still stand in a queue (late deliveries; the trainer drops them)",
    }
    for name, note in notes.items():
        if result[name]:
            few = ", ".join(map(str, result[name][:SHOWN])) + (" ..." if len(result[name]) > SHOWN else "")
            text.append(f"{len(result[name]):>8}  {note}: {few}")
    text.append("every admitted group is in exactly one place" if result["in_order"] else "NOT in order")
    return text


def group_places(run: RunDir) -> dict[int, list[str]]:
    """Training group -> the queues and states it stands in, by the shards' names."""
    places: dict[int, list[str]] = {}
    for queue in QUEUES:
        for state, names in run.queue(queue).names().items():
            for name in names:
                for group in groups_of(name):
                    places.setdefault(group, []).append(f"{queue}/{state}")
    return places


def groups_of(name: str) -> range:
    """The training groups in a shard "g<first>-<count>"; none in a held-out shard."""
    match = re.fullmatch(r"g(\d+)-(\d+)", name)
    return range(int(match[1]), int(match[1]) + int(match[2])) if match else range(0)


def _nearest_end(places: list[str]) -> str:
    """Of several places the one furthest along."""
    return max(places, key=lambda place: QUEUES.index(place.split("/")[0]))


def _wrong_batches(run: RunDir, steps: dict[int, Any]) -> list[int]:
    """Steps whose batch file is still there and does not hold exactly the groups that the ledger names."""
    there = set(list_names(run.batches_dir))
    wrong = []
    for number, entry in sorted(steps.items()):
        if entry.batch in there:
            rows = read_shard(run.named_batch(entry.batch), Trained, run_id=run.run_id)
            if sorted({row.group for row in rows}) != sorted(entry.groups):
                wrong.append(number)
    return wrong
