"""Plays the rollout and verify tasks in tests of the trainer: answers every prompt at once, by its number alone.

What it writes depends only on the group and the sample, so two trainers that are fed by it see the same bits whatever
happens to them on the way.
"""

import hashlib
import threading
import time

from grhpc.records import NO, YES, GroupPrompt, Verdict
from grhpc.store.rundir import RunDir

VOCABULARY = 64


def verdict_of(prompt: GroupPrompt, sample: int) -> Verdict:
    """One judged rollout of a prompt: 3 to 10 tokens, log-probabilities near uniform, about half accepted."""
    noise = hashlib.sha256(f"{prompt.kind}/{prompt.group}/{sample}".encode()).digest()
    length = 3 + noise[0] % 8
    accepted = noise[1] % 2 == 0
    return Verdict(
        **vars(prompt),
        sample=sample,
        response_ids=[2 + byte % (VOCABULARY - 2) for byte in noise[2 : 2 + length]],
        sampler_logprobs=[-4.0 - byte / 512 for byte in noise[12 : 12 + length]],
        response="",
        finish_reason="stop",
        weight_version=prompt.admitted_version,
        seed=sample,
        extracted="1",
        decision=YES if accepted else NO,
        layer="exact",
        reason="",
        answer_tokens=1,
        reference_tokens=1,
        reward=1.0 if accepted else 0.0,
        reused=False,
    )


class Feeder(threading.Thread):
    """Turns prompt shards into verdict shards until `close`; no more than `limit` of them while that is set."""

    def __init__(self, run: RunDir, group_size: int, limit: int | None = None) -> None:
        super().__init__(daemon=True)
        self.limit = limit
        self._prompts, self._verdicts = run.queue("prompts"), run.queue("verdicts")
        self._group_size, self._closing = group_size, threading.Event()
        self.num_shards = 0

    def run(self) -> None:
        while not self._closing.is_set():
            if not self.feed_once():
                time.sleep(0.01)

    def feed_once(self) -> bool:
        """Answer one prompts shard; False when there is none."""
        if self.limit is not None and self.num_shards >= self.limit:
            return False
        lease = self._prompts.claim("feeder")
        if lease is None:
            return False
        rows = [verdict_of(prompt, sample) for prompt in lease.rows for sample in range(self._group_size)]
        self._verdicts.put(lease.name, rows)
        lease.done()
        self.num_shards += 1
        return True

    def close(self) -> None:
        self._closing.set()
        self.join()
