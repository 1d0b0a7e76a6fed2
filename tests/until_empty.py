"""A worker for tests: serves until its queue has nothing ready, then stops the run."""


class UntilEmpty:
    def __init__(self, run, source: str, worker) -> None:
        self._run, self._queue, self._worker = run, run.queue(source), worker
        self.work = worker.work

    def prepare(self) -> None:
        self._worker.prepare()
        if not self._queue.counts()["ready"]:
            self._run.request_stop("all done")
