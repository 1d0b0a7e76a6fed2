"""The verb `replay`: show a recorded step as it was trained, its groups, answers, verdicts and rewards.

Reads the recorded batch, from its own file or from an archive, by the same code as a resuming trainer.
Does not know: models, gradients. Invariant: reads only; a model's text is shown printable.
"""

import argparse
import json
from collections.abc import Sequence
from typing import Any

from grhpc.errors import StoreError
from grhpc.records import Trained
from grhpc.report.find import find_grpo_run
from grhpc.report.text import number, one_line, printable
from grhpc.store.atomic import to_json
from grhpc.store.ledger import read_ledger
from grhpc.store.recorded import read_batch
from grhpc.store.rundir import RunDir


def command(args: argparse.Namespace) -> int:
    """The verb."""
    step = replay(find_grpo_run(args.run), args.step)
    if args.group is not None and args.group not in step["groups"]:
        raise StoreError(f"step {args.step} has no group {args.group}", f"its groups: {_few(step['groups'])}")
    if args.json:
        print(json.dumps(json.loads(to_json(step)), indent=1))  # escapes what a terminal would obey
    else:
        print("\n".join(lines(step) if args.group is None else group_lines(step, args.group)))
    return 0


def replay(run: RunDir, step: int) -> dict[str, Any]:
    """The step's ledger entry and its rollouts. Raises StoreError where it was not recorded, CorruptFile."""
    ledger = read_ledger(run.ledger_dir, run_id=run.run_id)
    entry = ledger.steps.get(step)
    if entry is None:
        raise StoreError(f"step {step} is not recorded", f"recorded: 1 to {ledger.last_step}")
    rows = read_batch(run, entry)
    shown: dict[str, Any] = json.loads(
        to_json(
            {
                "step": step,
                "version": entry.version,
                "batch": entry.batch,
                "sha256": entry.sha256,
                "groups": list(entry.groups),
                "rollouts": [_rollout(row) for row in rows],
            }
        )
    )
    return shown


def lines(step: dict[str, Any]) -> list[str]:
    """One line a group."""
    text = [f"step {step['step']} at weights {step['version']}, {step['batch']} (sha256 {step['sha256'][:16]}...)"]
    for group in step["groups"]:
        rows = _of_group(step, group)
        rewards = " ".join(number(row["reward"], 2) for row in rows)
        text.append(
            f"group {group}: {rewards}  | {one_line(rows[0]['question'], 60)} | {one_line(rows[0]['answer'], 24)}"
        )
    text.append(f"one group whole: --group {step['groups'][0]}")
    return text


def group_lines(step: dict[str, Any], group: int) -> list[str]:
    """Everything about one group."""
    rows = _of_group(step, group)
    text = [f"group {group}, prompt {rows[0]['prompt_id']}", printable(rows[0]["question"])]
    text.append(f"reference: {printable(rows[0]['answer'])}")
    for row in rows:
        text.append(
            f"-- sample {row['sample']}: reward {number(row['reward'], 2)}, {row['decision']} by {row['layer']}, "
            f"weights {row['weight_version']}, {row['tokens']} tokens, ended by {row['finish_reason']}"
        )
        text.append(printable(row["response"]))
        text.append(f"   answer: {printable(row['extracted'] or '(none)')}; verifier: {printable(row['reason'])}")
    return text


def _rollout(row: Trained) -> dict[str, Any]:
    kept = ("group", "sample", "prompt_id", "question", "answer", "category", "weight_version", "finish_reason")
    judged = ("response", "extracted", "decision", "layer", "reason", "reward")
    return {name: getattr(row, name) for name in (*kept, *judged)} | {"tokens": len(row.response_ids)}


def _of_group(step: dict[str, Any], group: int) -> list[dict[str, Any]]:
    return [row for row in step["rollouts"] if row["group"] == group]


def _few(groups: Sequence[int]) -> str:
    return ", ".join(map(str, groups[:10])) + (" ..." if len(groups) > 10 else "")
