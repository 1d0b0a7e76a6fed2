"""What a run of fine-tuning has to tell: losses, pace, and where its model is.

Does not know: how a run is found or followed. Invariant: reads only.
"""

from typing import Any

from grhpc.report.text import number, percent
from grhpc.store.atomic import list_names
from grhpc.store.events import read_events
from grhpc.store.rundir import RunDir

Event = dict[str, Any]


def facts(run: RunDir) -> dict[str, Any]:
    """`model` is its folder, None before the end; `heldout` the newest measurement."""
    measured = [event for event in read_events(run.events_dir, "sft") if event["event"] == "heldout"]
    made = run.model_dir.name in list_names(run.root)
    return {
        "model": str(run.model_dir) if made else None,
        "heldout": max(measured, key=lambda event: int(event["step"]), default={}),
    }


def lines(found: dict[str, Any]) -> list[str]:
    """The facts and the last step for people."""
    text = [f"model: {found['model']}"] if found["model"] else []
    if found["last_step"]:
        text.append(f"last step: {step_text(found['last_step'])}")
    return text + ([heldout_text(found["heldout"])] if found["heldout"] else [])


def step_text(step: Event) -> str:
    """One step in a few words."""
    refused = ", REFUSED: its gradient was not finite" if step.get("refused") else ""
    return (
        f"loss {number(step.get('loss'))}, gradient {number(step.get('grad_norm'))}, lr {float(step['lr']):.2e}, "
        f"{number(step.get('tokens_per_s'), 0)} tokens/s, padding {percent(step.get('padding'))}{refused}"
    )


def heldout_text(event: Event) -> str:
    return f"held-out loss {number(event.get('loss'))} after step {event['step']} ({event.get('examples')} examples)"
