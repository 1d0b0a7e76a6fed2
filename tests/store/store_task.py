"""A run with prompts, and a task that `serve` drives through them."""

import dataclasses

from prompts import prompt
from store_rows import small_config

from grhpc.config import StoreConfig
from grhpc.lifetime import Lifetime
from grhpc.store.events import read_events
from grhpc.store.rundir import RunDir
from grhpc.store.serving import serve

STORE = StoreConfig(poll_min_s=0.01, poll_max_s=0.02, idle_s=300.0, max_attempts=3)


class Task:
    """A run with prompts, and a task that works on them as told."""

    def __init__(self, folder, work=None, prepare=None, idle_s=0.0) -> None:
        store = dataclasses.replace(STORE, idle_s=idle_s or STORE.idle_s)
        self.run = RunDir.create(folder / "r", dataclasses.replace(small_config(), store=store))
        self.queue = self.run.queue("prompts")
        self.life = Lifetime(job="local-1")
        self.worked: list[str] = []
        self._work, self._prepare = work, prepare

    def put(self, *names: str) -> "Task":
        for name in names:
            self.queue.put(name, [prompt()])
        return self

    def serve(self) -> str:
        return serve(self.run, "prompts", self, self.life, self.run.events("rollout", "local-1"))

    def work(self, lease, more) -> None:
        self.worked.append(lease.name)
        if self._work:
            self._work(self, lease)
        lease.done()

    def prepare(self) -> None:
        if self._prepare:
            self._prepare(self)
        if not self.queue.counts()["ready"] and self.run.config().store.idle_s == STORE.idle_s:
            self.run.request_stop("all done")

    def told(self, event: str) -> list[dict]:
        return [e for e in read_events(self.run.events_dir) if e["event"] == event]
