"""Show a run until it ends: a live display on a terminal, one line a step elsewhere; at the end its table and picture.

The wait is bounded by the jobs: it ends when the run is finished, when it was stopped, or when a role is gone, and then
says which and shows the end of its log. For a role that was never submitted it waits `store.wait_s`. Ctrl-C leaves the
run going.
Does not know: how events come. Invariant: reads the run, never changes it (the report at the end aside).
"""

import time
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from grhpc.cluster.sacct import JobState
from grhpc.records import DECISIONS
from grhpc.report import tuning
from grhpc.report.follow import Following
from grhpc.report.history import Event
from grhpc.report.logs import log_end
from grhpc.report.picture import Curve, as_characters
from grhpc.report.report import of_any_kind
from grhpc.report.text import duration, number, one_line, percent
from grhpc.store.rundir import RunDir

POLL_S = 0.5
STILL_HERE_S = 60.0  # without a terminal: how long without a word before one line says what is waited for
ROWS_SHOWN = 10
STEP_PARTS = ("wait_s", "train_s", "publish_s", "checkpoint_s")


def watch(run: RunDir) -> int:
    """Show the run to its end. 0 finished or stopped, 1 a role is gone, 130 Ctrl-C."""
    console = Console(highlight=False, soft_wrap=True)
    following = Following(run)
    in_place = console.is_terminal and run.kind == "grpo"
    try:
        ended = _on_terminal(console, following) if in_place else _on_lines(console, following)
    except KeyboardInterrupt:
        name = run.name
        console.print(
            f"\nThe run goes on. Look again: python submit.py status {name} --watch"
            f"\nStop it: python submit.py stop {name}",
            markup=False,
        )
        return 130
    if ended == "finished":
        return show_result(run)
    if ended == "stopped":
        at = "" if run.kind == "eval" else f" at step {following.last_step}"
        console.print(f"stopped{at}: {run.stop_reason()}", markup=False)
        return 0
    _explain_gone(console, following)
    return 1


def show_result(run: RunDir) -> int:
    """The table and picture of a finished run. Returns 0."""
    Console(highlight=False, soft_wrap=True).print(of_any_kind(run)[1], markup=False)
    return 0


def _on_terminal(console: Console, following: Following) -> str:
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        while True:
            following.poll()
            live.update(_display(following))
            ended = _ended(following)
            if ended:
                return ended
            time.sleep(POLL_S)


def _on_lines(console: Console, following: Following) -> str:
    said_s, progress, awaited, num_died = time.monotonic(), following.progress(), "", 0
    while True:
        ended = _ended(following)  # before the look: what came until the end is told
        lines = [line for event in following.poll() if (line := _line(event, following))]
        lines += [_died(job) for job in list(following.died.values())[num_died:]]
        num_died = len(following.died)
        if awaited != (awaited := _awaited(following)) and awaited:
            lines.append(awaited)
        if following.run.kind == "eval" and following.progress() != progress:
            progress = following.progress()
            lines.append(progress)
        for line in lines:
            console.print(line, markup=False)
        if lines:
            said_s = time.monotonic()
        elif time.monotonic() - said_s > STILL_HERE_S:
            said_s = time.monotonic()
            doing = "; ".join(f"{role}: {following.doing(role)}" for role in following.roles)
            console.print(f"{following.progress()}; {doing}", markup=False)
        if ended:
            return ended
        time.sleep(POLL_S)


def _ended(following: Following) -> str:
    """Empty while the run goes on."""
    if following.run.finished():
        return "finished"
    if following.run.stop_reason():  # its roles end one after the other
        return "stopped" if following.idle_roles() and not following.any_live() else ""
    return "gone" if following.gone_roles() else ""


def _awaited(following: Following) -> str:
    """Which roles nobody has submitted, how long that is waited for, and what to do; empty where all were."""
    roles, run = following.awaited_roles(), following.run
    if not roles:
        return ""
    queued = ", or waits in SLURM's queue from its batch script" if run.settings().cluster.executor == "slurm" else ""
    return (
        f"waits for {', '.join(roles)}: not submitted yet{queued}; looks for {duration(following.patience_s)} "
        f"(store.wait_s); how to submit: python submit.py status {run.name}"
    )


def _died(job: JobState) -> str:
    return f"{job.role} {job.name}: {job.words}"


def _line(event: Event, following: Following) -> str:
    """An event as one line, or nothing where it is not worth one."""
    who = f"{event.get('role', '')} {event.get('job', '')}".strip()
    match event["event"]:
        case "resume" if not event.get("step") and event.get("generation") == 1:
            return f"{who}: begins"
        case "start" | "drain" | "stop" | "resume" | "finish":
            return f"{who}: {event['event']} {one_line(str(event.get('reason', '')))}".rstrip()
        case "ready":
            took_s = following.loading_s.get((str(event.get("role", "")), str(event.get("job", ""))))
            return f"{who}: ready" + ("" if took_s is None else f" after {duration(took_s)}")
        case "error":
            return f"{who}: error: {one_line(str(event.get('problem', '')), 300)}"
        case "step" if following.run.kind == "sft":
            return f"step {event['step']:>4} of {following.total_steps}: {tuning.step_text(event)}"
        case "heldout" if following.run.kind == "sft":
            return tuning.heldout_text(event)
        case "step":
            return _step_line(event, following.total_steps)
        case "heldout":
            judged = following.heldout[event["version"]]
            true = "" if judged.true is None else f", true {percent(judged.true)}"
            return f"held-out at weights {event['version']}: accepted {percent(judged.accepted)}{true}"
    return ""


def _step_line(event: Event, total: int) -> str:
    decisions = event.get("decisions") or {}
    verdicts = ", ".join(f"{decisions.get(d, 0)} {d}" for d in DECISIONS)
    return (
        f"step {event['step']:>4} of {total}: reward {number(event.get('reward_mean'))}, "
        f"accepted {percent(event.get('accept_rate'))} ({verdicts}), "
        f"{number(event.get('response_tokens_mean'), 1)} tokens, staleness {number(event.get('staleness_mean'), 2)}, "
        f"waited {number(event.get('wait_s'), 1)} s, trained {number(event.get('train_s'), 1)} s"
    )


def _display(following: Following) -> RenderableType:
    done, total = following.last_step, following.total_steps
    elapsed = time.time() - following.began_s
    head = Table.grid(padding=(0, 1))
    head.add_row(
        Text(f"{following.run.name}: step {done} of {total}", style="bold"),
        ProgressBar(total=total, completed=done, width=40),
        Text(f"{duration(elapsed)} watched{_remaining(following)}"),
    )
    parts: list[RenderableType] = [head, _role_table(following)]
    if awaited := _awaited(following):
        parts.append(Text(awaited, style="yellow"))
    if following.steps:
        parts += [_step_table(following), Text("\n".join(as_characters(_curves(following), height=9)))]
    if following.died:
        parts.append(Text(_died(list(following.died.values())[-1]), style="red"))
    if following.errors:
        parts.append(Text(f"error: {one_line(str(following.errors[-1].get('problem', '')), 200)}", style="red"))
    parts.append(Text("Ctrl-C leaves the run going.", style="dim"))
    return Group(*parts)


def _remaining(following: Following) -> str:
    """An estimate from what the newest steps took, without the pauses between a stop and a resume."""
    newest = [event for _, event in sorted(following.steps.items())][-6:]
    if len(newest) < 2:
        return ""
    spent = sum(float(event.get(part) or 0.0) for event in newest for part in STEP_PARTS)
    pace = spent / len(newest)
    return f", about {duration(pace * (following.total_steps - following.last_step))} to go"


def _role_table(following: Following) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    spent = following.seconds()
    for role in following.roles:
        time_by_part = ", ".join(f"{part} {duration(s)}" for part, s in spent.get(role, {}).items())
        table.add_row(
            Text(role, style="cyan"), Text(one_line(following.doing(role), 60)), Text(time_by_part, style="dim")
        )
    return table


def _step_table(following: Following) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("step", "reward", "accepted", "held-out true", "held-out accepted", *DECISIONS, "tokens", "stale"):
        table.add_column(name, justify="right")
    for step, event in sorted(following.steps.items())[-ROWS_SHOWN:]:
        heldout, verdicts = following.heldout.get(step), event.get("decisions") or {}
        table.add_row(
            str(step),
            number(event.get("reward_mean")),
            percent(event.get("accept_rate")),
            percent(heldout.true if heldout else None),
            percent(heldout.accepted if heldout else None),
            *(str(verdicts.get(d, 0)) for d in DECISIONS),
            number(event.get("response_tokens_mean"), 1),
            number(event.get("staleness_mean"), 2),
        )
    return table


def _curves(following: Following) -> list[Curve]:
    rewards: dict[int, Any] = {step: event.get("reward_mean") for step, event in following.steps.items()}
    return [
        Curve("reward", rewards),
        Curve("held-out accepted", {v: judged.accepted for v, judged in following.heldout.items()}),
        Curve("held-out true", {v: judged.true for v, judged in following.heldout.items()}),
    ]


def _explain_gone(console: Console, following: Following) -> None:
    """Which role is gone, what it said last, and what to do."""
    run = following.run
    for role in following.gone_roles():
        states = sorted({job.words for job in following.jobs if job.role == role}) or ["no job"]
        console.print(f"error: no {role} task is left ({', '.join(states)}); the run is not finished", markup=False)
        for line in log_end(run, role):
            console.print(f"  | {line}", markup=False)
    console.print(f"  do: mend what the log says, then: python submit.py resume {run.name} --watch", markup=False)
