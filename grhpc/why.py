"""The verb `why`: how one sample came by its reward, from its text to its advantage.

    why RUN 17.3        sample 3 of training group 17
    why RUN h10.17      the greedy answer to held-out question 17 under weights 10
    why EVAL gsm8k.17   the response to question 17 of an evaluation's benchmark: `report/graded.py`

A sample is looked for in the recorded step that its group was trained in, else among the verdicts still on their way.
Does not know: models. Invariant: reads only; a model's text is shown printable.
"""

import argparse
import json
import re
from typing import Any

from grhpc.errors import StoreError
from grhpc.grpo.advantage import group_advantages
from grhpc.records import NO_VERDICT, Verdict
from grhpc.report import graded
from grhpc.report.find import find_run
from grhpc.report.text import number, printable
from grhpc.store import names
from grhpc.store.atomic import list_names, to_json
from grhpc.store.folders import STATES
from grhpc.store.groups import groups_of
from grhpc.store.ledger import LedgerState, read_ledger
from grhpc.store.recorded import read_batch
from grhpc.store.rundir import RunDir
from grhpc.store.shard import read_shard
from grhpc.verify.reward import arithmetic

_SAMPLE = re.compile(r"(?:h(?P<version>\d+)\.(?P<question>\d+))|(?P<group>\d+)\.(?P<sample>\d+)")
_SHOWN = ("question", "answer", "response", "finish_reason", "extracted", "decision", "layer", "reason", "judged_by")
_MEASURED = ("audit", "answer_tokens", "reference_tokens", "reward", "weight_version", "prompt_id")


def command(args: argparse.Namespace) -> int:
    """The verb."""
    run = find_run(args.run)
    if run.kind == "eval":
        found, text = graded.graded(run, args.sample), graded.lines
    else:
        found, text = why(run, args.sample), lines
    print(json.dumps(found, indent=1) if args.json else "\n".join(text(found)))
    return 0


def why(run: RunDir, sample: str) -> dict[str, Any]:
    """Everything about one sample, as plain JSON. Raises StoreError where there is none of that name, ConfigError for a
    run that has no verdicts."""
    run.config()
    match = _SAMPLE.fullmatch(sample)
    if match is None:
        raise StoreError(
            f"{sample!r} names no sample", "give GROUP.SAMPLE, e.g. 17.3, or hVERSION.QUESTION, e.g. h10.17"
        )
    if match["version"]:
        group, rows, fate = _heldout(run, int(match["version"]), int(match["question"]))
        wanted = 0
    else:
        group, wanted = int(match["group"]), int(match["sample"])
        rows, fate = _trained_on(run, group)
    row = next((row for row in rows if row.sample == wanted), None)
    if row is None:
        raise StoreError(
            f"group {group} has no sample {wanted}", f"its samples: {', '.join(str(r.sample) for r in rows)}"
        )
    found = {name: getattr(row, name) for name in (*_SHOWN, *_MEASURED)}
    found |= {"sample": sample, "arithmetic": arithmetic(row.decision, row.answer_tokens, row.reference_tokens)}
    found |= {"fate": fate, **_among_siblings(rows, row)}
    plain: dict[str, Any] = json.loads(to_json(found))
    return plain


def lines(found: dict[str, Any]) -> list[str]:
    """The same for people."""
    by = f", judged before by {found['judged_by']}" if found["judged_by"] else ""
    text = [
        f"sample {found['sample']}, prompt {found['prompt_id']}, weights {found['weight_version']}",
        f"question: {printable(found['question'])}",
        f"reference: {printable(found['answer'])}",
        f"response, ended by {found['finish_reason']}:",
        *(f"  | {line}" for line in printable(found["response"]).split("\n")),
        f"extracted: {'(nothing)' if found['extracted'] is None else printable(found['extracted'])}",
        f"decided: {found['decision']} by {found['layer']}{by}",
        f"in its words: {printable(found['reason'])}",
        f"lengths: {found['answer_tokens']} tokens, the reference {found['reference_tokens']}",
        f"reward: {found['arithmetic']}",
    ]
    if found["audit"]:
        text.insert(-2, f"audit: the judge says {found['audit']}")
    if found["rewards"] is not None:
        text.append(f"rewards of the group: {' '.join(number(reward, 2) for reward in found['rewards'])}")
        text.append(f"advantage: {number(found['advantage'])}")
    return [*text, f"fate: {found['fate']}"]


def _heldout(run: RunDir, version: int, question: int) -> tuple[int, list[Verdict], str]:
    known = run.heldout_versions()
    if version not in known:
        listing = ", ".join(map(str, known)) or "none yet"
        raise StoreError(f"there is no held-out evaluation of weights {version}", f"evaluated: {listing}")
    rows = [r for r in read_shard(run.heldout_path(version), Verdict, run_id=run.run_id) if r.group == question]
    if not rows:
        raise StoreError(f"the held-out evaluation of weights {version} has no question {question}", "count from 0")
    return question, rows, f"held-out: measured under weights {version}, never trained on"


def _trained_on(run: RunDir, group: int) -> tuple[list[Verdict], str]:
    """The group's verdicts and its fate in words."""
    ledger = read_ledger(run.ledger_dir, run_id=run.run_id)
    if group >= ledger.next_group:
        raise StoreError(f"group {group} was not admitted yet", f"admitted: 0 to {ledger.next_group - 1}")
    fate = ledger.fates.get(group, "open")
    kind, _, detail = fate.partition(":")
    if kind == "trained":
        rows: list[Verdict] = [row for row in read_batch(run, ledger.steps[int(detail)]) if row.group == group]
        return rows, f"trained in step {detail}"
    rows = _on_their_way(run, group)
    if not rows:
        raise StoreError(*_absent(ledger, group, detail))
    return rows, f"dropped: {detail}" if detail else "waits for its step"


def _absent(ledger: LedgerState, group: int, reason: str) -> tuple[str, str]:
    if group in ledger.fates:
        return f"group {group} was dropped ({reason}), and its verdicts are not kept", "see `report` for how many were"
    return f"group {group} has no verdicts yet", "wait for the rollout and verify tasks: see `status`"


def _on_their_way(run: RunDir, group: int) -> list[Verdict]:
    queue = run.queue("verdicts")
    for state in STATES:
        for name in list_names(queue.directory / state):
            file = names.parse(name)
            if file is not None and group in groups_of(file.name):
                rows = read_shard(queue.directory / state / name, Verdict, run_id=run.run_id)
                return [row for row in rows if row.group == group]
    return []


def _among_siblings(rows: list[Verdict], row: Verdict) -> dict[str, Any]:
    """The group's rewards and this sample's advantage; None where it has no siblings, or no advantage."""
    if len(rows) < 2:
        return {"rewards": None, "advantage": None}
    rewards = [sibling.reward for sibling in rows]
    whole = all(sibling.decision != NO_VERDICT for sibling in rows)
    return {"rewards": rewards, "advantage": float(group_advantages(rewards)[rows.index(row)]) if whole else None}
