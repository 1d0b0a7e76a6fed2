"""A task that puts the same shards to a judge as its twins do, at the same time; run as: asking_task.py FOLDER NAME.

Says "ready", begins at the first line it reads, and tells at the end how much it asked.
"""

import json
import random
import sys
import time
from pathlib import Path

from grhpc.config import VerifierConfig
from grhpc.judge.decide import Pair
from grhpc.judge.generative import GenerativeDecider
from grhpc.judge.judge import Reply
from grhpc.store.decisions import DecisionLog

SHARDS = 12


class SlowJudge:
    identity, running = "a judge", True
    asked = 0

    def ask(self, prompts, attempt, should_stop, heard):
        time.sleep(0.02)
        self.asked += len(prompts)
        replies = [Reply("Final Decision: Yes", True) for _ in prompts]
        heard(dict(zip(prompts, replies, strict=True)))
        return replies

    def usage(self):
        return {}


def shard(number: int) -> list[Pair]:
    """Groups of few questions, so that shards have some in common."""
    chance = random.Random(number)
    questions = [f"question {chance.randrange(30)}" for _ in range(8)]
    return list(dict.fromkeys(Pair(q, "right", f"answer {chance.randrange(4)}") for q in questions for _ in range(4)))


def main(folder: str, name: str) -> None:
    judge, memory = SlowJudge(), DecisionLog(Path(folder), run_id="r", task=name)
    decider = GenerativeDecider(judge, VerifierConfig("m"), memory)
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(SHARDS):
        decided = decider.decide(shard(number), lambda: False, f"g{number}")
        assert len(decided.decisions) == len(shard(number))
    print(json.dumps(judge.asked))


if __name__ == "__main__":
    main(*sys.argv[1:])
