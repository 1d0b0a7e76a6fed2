"""Prove that every admitted group is accounted for once, and that every recorded batch is as it was trained.

Joins the ledger (what was admitted, what became of it) with the queues' listings and reads every batch, archived or
not, against the ledger's SHA-256. A group without a fate that stands in no queue is lost. One that stands in more than
one place is named, with why it still counts once.
While the trainer runs, a group may be between two places for a moment: audit again, or after a stop.
Does not know: what a group says. Invariant: reads only.
"""

import argparse
import json
from collections import Counter
from typing import Any

from grhpc.errors import CorruptFile
from grhpc.report.find import find_grpo_run
from grhpc.report.text import change_lines
from grhpc.store.groups import groups_of
from grhpc.store.ledger import read_ledger
from grhpc.store.ledger_state import StepEntry
from grhpc.store.recorded import batch_bytes
from grhpc.store.rundir import RunDir

QUEUES = ("prompts", "rollouts", "verdicts")
SHOWN = 10
WRONG = {
    "lost": "lost: no fate, in no queue (a running trainer may be moving them; a resume puts them again)",
    "left_at_the_end": "without a fate although the run is finished",
    "never_admitted": "have a fate but were never admitted",
    "damaged_batches": "steps whose batch is not as it was trained",
}
HARMLESS = {
    "twice_in_queues": "in two queues at once: between the two halves of a hand-over, or delivered twice. The ledger "
    "takes the first that arrives, and the trainer removes the other",
    "fated_but_queued": "have their fate and still stand in a queue: late deliveries, or part of a shard whose other "
    "groups are open. The trainer removes such a shard when it comes by, and counts none of it again",
    "fated_in_failed": "have their fate and stand in failed/, where a shard stays as evidence; nothing takes it out",
    "left_behind": "still stand in a queue of the finished run; nobody takes them any more",
}


def command(args: argparse.Namespace) -> int:
    """The verb; 1 if something is not in order."""
    result = audit(find_grpo_run(args.run))
    print(json.dumps(result, indent=1) if args.json else "\n".join(lines(result)))
    return 0 if result["in_order"] else 1


def audit(run: RunDir) -> dict[str, Any]:
    """The counts, and every group and step that is not as it should be. Raises CorruptFile for a damaged ledger.

    `in_order`: nothing is wrong (WRONG); `once_each`: and no group stands in a second place either (HARMLESS).
    """
    ledger = read_ledger(run.ledger_dir, run_id=run.run_id)
    places = group_places(run)
    open_groups, fated = ledger.open_groups(), set(places) & set(ledger.fates)
    evidence = {g for g in fated if all(place.endswith("/failed") for place in places[g])}
    fates = Counter(fate if fate.startswith("dropped") else "trained" for fate in ledger.fates.values())
    damaged = _damaged(run, ledger.steps)
    result: dict[str, Any] = {
        "run": run.root.name,
        "admitted": ledger.next_group,
        "steps": len(ledger.steps),
        "fates": dict(sorted(fates.items())),
        "in_flight": dict(Counter(_nearest_end(places[g]) for g in open_groups if g in places)),
        "lost": sorted(open_groups - set(places)),
        "left_at_the_end": sorted(open_groups) if ledger.finished else [],
        "never_admitted": sorted(set(ledger.fates) - set(range(ledger.next_group))),
        "damaged_batches": sorted(damaged),
        "problems": list(damaged.values()),
        "twice_in_queues": sorted(g for g in open_groups if len(places.get(g, ())) > 1),
        "fated_in_failed": sorted(evidence),
        "fated_but_queued": [] if ledger.finished else sorted(fated - evidence),
        "left_behind": sorted(fated - evidence) if ledger.finished else [],
        "changes": run.about.get("changes", []),
    }
    counted = sum(fates.values()) + sum(result["in_flight"].values()) + len(result["lost"])
    result["in_order"] = counted == ledger.next_group and not any(result[name] for name in WRONG)
    result["once_each"] = result["in_order"] and not any(result[name] for name in HARMLESS)
    return result


def lines(result: dict[str, Any]) -> list[str]:
    """The audit for people."""
    text = [f"{result['run']}: {result['admitted']} groups admitted, {result['steps']} steps recorded"]
    for name, num in {**result["fates"], **{f"in flight: {k}": v for k, v in result["in_flight"].items()}}.items():
        text.append(f"{num:>8}  {name}")
    for name, note in (WRONG | HARMLESS).items():
        if result[name]:
            few = ", ".join(map(str, result[name][:SHOWN])) + (" ..." if len(result[name]) > SHOWN else "")
            text.append(f"{len(result[name]):>8}  {note}: {few}")
    text += [f"          {problem}" for problem in result["problems"][:SHOWN]]
    return [*text, *change_lines(result["changes"]), _verdict(result)]


def _verdict(result: dict[str, Any]) -> str:
    if not result["in_order"]:
        return "NOT in order"
    if result["once_each"]:
        return "every admitted group is in exactly one place, and every recorded batch is as it was trained"
    several = len(set().union(*(result[name] for name in HARMLESS)))
    return (
        f"in order: no group is lost and none counts twice, but {several} stand in a second place, as said above; "
        "every recorded batch is as it was trained"
    )


def group_places(run: RunDir) -> dict[int, list[str]]:
    """Training group -> the queues and states it stands in, by the shards' names."""
    places: dict[int, list[str]] = {}
    for queue in QUEUES:
        for state, names in run.queue(queue).names().items():
            for name in names:
                for group in groups_of(name):
                    places.setdefault(group, []).append(f"{queue}/{state}")
    return places


def _nearest_end(places: list[str]) -> str:
    """Of several places the one furthest along."""
    return max(places, key=lambda place: QUEUES.index(place.split("/")[0]))


def _damaged(run: RunDir, steps: dict[int, StepEntry]) -> dict[int, str]:
    """Step -> what is wrong with its batch, read in full wherever it stands."""
    problems = {}
    for number, entry in steps.items():
        try:
            batch_bytes(run, entry)
        except CorruptFile as error:
            problems[number] = error.problem
    return problems
