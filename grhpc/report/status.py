"""What a run does now: SLURM's view of its jobs joined with the run directory's.

One question to SLURM, the ends of the event files, the ledger, the queues' listings: a run of 1,000 tasks answers
within a second. Does not know: how a run is launched or trained. Invariant: reads only; the result is plain JSON.
"""

import argparse
import json
import shlex
import sys
import threading
import time
from collections import Counter
from dataclasses import asdict
from typing import Any

from grhpc.cluster import states
from grhpc.cluster.sacct import HIDDEN, JobState, missing_conf, tasks_of
from grhpc.cluster.submissions import read_target
from grhpc.eval_config import EvalConfig
from grhpc.report import evaluating, roles, tuning
from grhpc.report.alive import may_live
from grhpc.report.find import find_run
from grhpc.report.judging import judging, judging_line
from grhpc.report.text import change_lines, duration, number, one_line, percent
from grhpc.report.watch import watch
from grhpc.store.atomic import list_names, to_json
from grhpc.store.events import read_events
from grhpc.store.ledger import LedgerState, read_ledger
from grhpc.store.rundir import QUEUES, RunDir

TAIL_BYTES = 4096  # of each event file: the last handful of events
NOTICE_S = 3.0  # a busy SLURM takes its time; a person should know what is waited for
SHOWN = 8  # waits and failures listed for people; the JSON has all
Status = dict[str, Any]


def command(args: argparse.Namespace) -> int:
    """The verb."""
    run = find_run(args.run)
    if args.watch:
        return watch(run)
    notice = threading.Timer(NOTICE_S, print, ["asking SLURM ..."], {"file": sys.stderr, "flush": True})
    if run.settings().cluster.executor == "slurm":
        notice.start()
    try:
        found = status(run)
    finally:
        notice.cancel()
    print(json.dumps(found, indent=1) if args.json else "\n".join(lines(found)))
    return 0


def status(run: RunDir) -> Status:
    """Everything about the run now. Raises StoreError, CorruptFile for a run directory that cannot be read."""
    config, now = run.settings(), time.time()
    events = read_events(run.events_dir, tail_bytes=TAIL_BYTES)
    jobs = roles.told_ends(tasks_of(run, now), events)
    if run.finished():  # it ended, whether or not SLURM can be asked
        jobs = [job for job in jobs if job.kind != states.UNKNOWN]
    step = max((e for e in events if e["event"] == "step"), key=lambda e: e["step"], default={})
    found = {
        "run": run.name,
        "kind": run.kind,
        "path": str(run.root),
        "run_id": run.run_id,
        "state": _state(run, jobs, begun=bool(events)),
        "stop_reason": run.stop_reason(),
        "step": step.get("step", 0),
        "steps": 0 if isinstance(config, EvalConfig) else config.train.steps,
        "last_step": step,
        **_facts(run, events, now),
        "jobs": [asdict(job) for job in jobs],
        "roles": roles.roles(run, config, jobs, events, now),
        "waits": _waits(events, jobs, now),
        "failures": _failures(run, events),
        "changes": run.about.get("changes", []),
    }
    found["next"] = _next(found, jobs, run, config.cluster.executor)
    plain: Status = json.loads(to_json(found))
    return plain


def lines(found: Status) -> list[str]:
    """The status for people."""
    done = evaluating.head(found) if found["kind"] == "eval" else f"step {found['step']} of {found['steps']}"
    text = [f"{found['run']}: {found['state']}{_why(found)}, {done}"]
    text += {"grpo": _grpo_lines, "sft": tuning.lines, "eval": evaluating.lines}[found["kind"]](found)
    text += [roles.line(role, seen) for role, seen in found["roles"].items()]
    text += [
        f"waiting: {w['role']} {w['job']} for {w['for']}, {duration(w['seconds'])}" for w in found["waits"][:SHOWN]
    ]
    text += [f"failed: {f['what']}: {one_line(f['problem'], 160)}" for f in found["failures"][-SHOWN:]]
    return [*text, *change_lines(found["changes"]), f"next: {found['next']}"]


def _facts(run: RunDir, events: list[dict[str, Any]], now: float) -> Status:
    """What this kind of run has to tell."""
    if run.kind == "eval":
        return evaluating.facts(run, events, now)
    return _grpo(run, events) if run.kind == "grpo" else tuning.facts(run)


def _grpo(run: RunDir, events: list[dict[str, Any]]) -> Status:
    ledger = read_ledger(run.ledger_dir, run_id=run.run_id)
    return {
        "step": ledger.last_step,
        "version": _newest_version(run),
        "groups": _groups(ledger),
        "queues": {name: run.queue(name).counts() for name in QUEUES[run.kind]},
        "evaluations": evaluating.of_run(run),
        "judging": judging(events),
    }


def _grpo_lines(found: Status) -> list[str]:
    step, groups = found["last_step"], found["groups"]
    text = [
        "no weights yet" if found["version"] is None else f"weights: version {found['version']}",
        f"groups: {groups['admitted']} admitted, {groups['in_flight']} in flight, {groups['trained']} trained, "
        + (", ".join(f"{num} dropped ({reason})" for reason, num in groups["dropped"].items()) or "none dropped"),
    ]
    for name, counts in found["queues"].items():
        text.append(f"queue {name}: " + ", ".join(f"{num} {state}" for state, num in counts.items()))
    if step:
        text.append(
            f"last step: reward {number(step.get('reward_mean'))}, accepted {percent(step.get('accept_rate'))}, "
            f"staleness {number(step.get('staleness_mean'), 2)} (at most {step.get('staleness_max', '–')}), "
            f"waited {duration(step.get('wait_s') or 0)}, trained {duration(step.get('train_s') or 0)}, "
            f"duplicates {step.get('duplicates', 0)}"
        )
    if found["judging"]:
        text.append(judging_line(found["judging"]))
    text += [f"evaluation {name}: {state}" for name, state in found["evaluations"].items()]
    return text


def _why(found: Status) -> str:
    asked = found["stop_reason"] and found["state"] in ("stopping", "stopped")
    return f" ({one_line(found['stop_reason'], 60)})" if asked else ""


def _state(run: RunDir, jobs: list[JobState], begun: bool) -> str:
    if run.finished():
        return "finished"
    live = any(may_live(job) for job in jobs)
    if run.stop_reason():
        return "stopping" if live else "stopped"
    if not jobs and not begun and _scripts(run):
        return "not submitted yet"
    if not live:
        return "broken off"
    if all(job.kind == states.UNKNOWN for job in jobs if may_live(job)):
        return "unknown"
    return "queued" if all(job.kind != states.RUNNING for job in jobs) else "running"


def _newest_version(run: RunDir) -> int | None:
    newest = run.weights.newest()
    return None if newest is None else newest.version


def _groups(ledger: LedgerState) -> dict[str, Any]:
    fates = Counter(
        fate.partition(":")[2] if fate.startswith("dropped") else "trained" for fate in ledger.fates.values()
    )
    trained = fates.pop("trained", 0)
    open_groups = ledger.next_group - len(ledger.fates)
    return {"admitted": ledger.next_group, "in_flight": open_groups, "trained": trained, "dropped": dict(fates)}


def _waits(events: list[dict[str, Any]], jobs: list[JobState], now: float) -> list[dict[str, Any]]:
    """Who waits: jobs in SLURM's queue with its reason, tasks whose newest event is that they wait."""
    waits = [
        {"role": j.role, "job": j.job_id, "for": f"SLURM ({j.reason or j.state})", "seconds": now - j.since_s}
        for j in jobs
        if j.kind in (states.WAITING, states.RETURNING)
    ]
    newest = {(e.get("role"), e.get("job")): e for e in events}
    for (role, job), event in newest.items():
        if event["event"] == "waiting":
            since = event.get("since_s") or event["t"]
            waits.append({"role": role, "job": job, "for": event.get("for", "?"), "seconds": max(0.0, now - since)})
    return sorted(waits, key=lambda wait: -wait["seconds"])


def _failures(run: RunDir, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Errors that tasks reported, shards that were given up, files that were set aside."""
    failures = [
        {"what": f"{e.get('role')} {e.get('job')}", "problem": str(e.get("problem", ""))}
        for e in events
        if e["event"] == "error"
    ]
    for name in QUEUES[run.kind]:
        for shard in run.queue(name).failed():
            failures.append(
                {"what": f"shard {name}/{shard.name}", "problem": f"attempt {shard.attempts}: {shard.reason}"}
            )
    failures += [{"what": f"quarantine/{name}", "problem": "set aside"} for name in list_names(run.quarantine_dir)]
    return failures


def _scripts(run: RunDir) -> list[str]:
    """The batch scripts that `start --no-launch` wrote, the trainer's last."""
    names = [name for name in list_names(run.jobs_dir) if name.endswith(".sbatch")]
    return [str(run.jobs_dir / name) for name in sorted(names, key=lambda name: (name == "train.sbatch", name))]


def _next(found: Status, jobs: list[JobState], run: RunDir, executor: str) -> str:
    """The one thing a person would do now."""
    name, state = found["run"], found["state"]
    if state == "finished":
        left = [name for name, state in found.get("evaluations", {}).items() if state == evaluating.NOT_SUBMITTED]
        if left:
            return "; ".join(f"python submit.py resume {evaluation}" for evaluation in left)
        return f"use {found['model']}" if found["kind"] == "sft" else f"python submit.py report {name}"
    if state == "not submitted yet":
        submit = "; ".join(f"sbatch {shlex.quote(script)}" for script in _scripts(run))
        return f"{submit} (what was submitted so, and waits, shows in squeue)"
    if state in ("broken off", "stopped"):
        return f"python submit.py logs {name}, then python submit.py resume {name}"
    if state == "unknown":
        return _ask_elsewhere(jobs)
    missing = [role for role in found["roles"] if not any(may_live(j) for j in jobs if j.role == role)]
    unwanted = [role for role in missing if read_target(run.jobs_dir, role) == 0]
    if unwanted and state == "running":
        return f"somebody wanted no {unwanted[0]} task: python submit.py scale {name} {unwanted[0]} 1"
    if missing and state == "running":
        return f"no {' and no '.join(missing)} task is there: python submit.py resume {name}"
    if state == "running" and (gone := roles.gone(found["roles"], name)):
        return gone
    if state == "queued" and executor == "slurm":
        return "wait for SLURM, or look at the reason with squeue"
    if any(counts["failed"] for counts in found.get("queues", {}).values()):
        roles_with_shards = " rollout, and verify" if found["kind"] == "grpo" else ""
        return f"shards failed: python submit.py logs {name}{roles_with_shards}"
    return f"nothing; to watch: python submit.py status {name} --watch"


def _ask_elsewhere(jobs: list[JobState]) -> str:
    """What to do where nothing is known of any task that may live."""
    elsewhere = next((job.node for job in jobs if job.kind == states.UNKNOWN and job.executor == "local"), "")
    if elsewhere:
        return f"its tasks were started on {elsewhere}: look there"
    if hidden := next((job for job in jobs if job.state == HIDDEN), None):
        return f"SLURM answers and does not show {hidden.by}'s jobs: ask {hidden.by} whether they live"
    if conf := missing_conf():
        return f"SLURM cannot be asked: SLURM_CONF names {conf}, which is not there; mend it, or unset SLURM_CONF"
    return "SLURM says nothing of its tasks: does `squeue` answer here? is this a login node, is SLURM_CONF right?"
