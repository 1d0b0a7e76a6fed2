"""What status and report say of the judge."""

from grhpc.report import report, status
from grhpc.report.judging import judging, judging_line

SO_FAR = {"rollouts": 20, "judged": 10, "asked": 6, "audited": 2, "audit_differs": 1, "asked_twice": 1, "cost": 0.5}


def event(name: str, job: str, **fields) -> dict:
    return {"event": name, "role": "verify", "job": job, "t": 0.0, **fields}


def shard(job: str, **changes) -> dict:
    return event("shard", job, so_far=SO_FAR | changes)


def test_tasks_and_their_earlier_lives_are_added_up():
    first_life = [event("start", "1"), shard("1", asked=2), shard("1")]
    second_life = [event("start", "1"), shard("1", judged=30)]
    told = judging([*first_life, event("start", "2"), shard("2"), *second_life])
    assert (told["judged"], told["asked"], told["asked_twice"], told["cost"]) == (10 + 10 + 30, 18, 3, 1.5)
    assert told["saved"] == 1 - 18 / 50


def test_one_line_for_people():
    assert judging_line(judging([shard("1")])) == (
        "judge: 6 questions for 10 verdicts (40 % saved), 1 asked twice; "
        "audit: 1 of 2 rule verdicts differ from the judge's; cost 0.50"
    )
    more = {"audit_no_verdict": 3, "requests": 9, "retries": 4, "cost": 0}
    assert judging_line(judging([shard("1", **more)])).endswith(
        "1 of 2 rule verdicts differ from the judge's, no verdict on 3 more; 4 of 9 requests were tried again"
    )
    assert judging_line(judging([shard("1", given_up=2, cost=0)])).endswith(
        "; 2 questions given up, which alone failed each time"
    )
    assert judging_line(judging([shard("1", audited=0, cost=0, judged=0)])).startswith(
        "judge: 6 questions for 0 verdicts (– saved), 1 asked twice"
    )


def test_other_roles_and_older_events_count_for_nothing():
    assert (
        judging([{"event": "shard", "role": "rollout", "so_far": SO_FAR}, event("shard", "1"), event("start", "1")])
        == {}
    )


def test_status_and_report_say_it(small):
    wanted = "judge: 6 questions for 12 verdicts (50 % saved), 1 asked twice; audit: 2 of 2 rule verdicts differ"
    assert any(line.startswith(wanted) for line in status.lines(status.status(small.run)))
    assert wanted in report.as_text(report.make(small.run))
