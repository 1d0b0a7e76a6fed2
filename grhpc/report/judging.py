"""What the judge was asked, how much of it was known before, and where rules and judge differ, by the tasks' events.

Does not know: what a verdict says. Invariant: what a task did in an earlier life of its job counts too, as far as the
events given reach back.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from grhpc.report.text import percent


def judging(events: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Sums over the tasks that ask a judge (`events` in the order of time); {} where nothing was judged yet.

    `saved` is the share of the judge's verdicts that needed no question of their own: 1 - `asked` / `judged`. Audits
    are counted apart (`asked_to_audit`), and so are questions that the judge could not take. `audited` are the rule
    verdicts of a shard on which the judge decided too, `audit_differs` those of them that it decided otherwise, and on
    `audit_no_verdict` more it decided nothing. Of shards that were delivered; `requests` and `cost` are of all.
    """
    ended, last = Counter[str](), dict[str, dict[str, float]]()
    for event in events:
        if event.get("role") not in ("verify", "evaluate"):
            continue
        if event["event"] == "start":
            ended.update(last.pop(event.get("job", ""), {}))
        elif event["event"] == "shard" and isinstance(event.get("so_far"), dict):
            last[event.get("job", "")] = event["so_far"]
    for so_far in last.values():
        ended.update(so_far)
    if not ended:
        return {}
    return {**ended, "saved": 1 - ended["asked"] / ended["judged"]} if ended["judged"] else dict(ended)


def judging_line(found: dict[str, float]) -> str:
    """The same for people."""
    text = f"judge: {found['asked']:.0f} questions for {found['judged']:.0f} verdicts"
    text += f" ({percent(found.get('saved'))} saved), {found['asked_twice']:.0f} asked twice"
    if found["audited"] or found.get("audit_no_verdict"):
        text += f"; audit: {found['audit_differs']:.0f} of {found['audited']:.0f} rule verdicts differ from the judge's"
        if found.get("audit_no_verdict"):
            text += f", no verdict on {found['audit_no_verdict']:.0f} more"
    if found.get("retries"):
        text += f"; {found['retries']:.0f} of {found['requests']:.0f} requests were tried again"
    if found.get("given_up"):
        text += f"; {found['given_up']:.0f} questions given up, which alone failed each time"
    return text + (f"; cost {found['cost']:.2f}" if found.get("cost") else "")
