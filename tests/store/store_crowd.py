"""A crowd of claimers on one machine, and a count of what they ask of the file server.

Each claimer is a thread with its own `Queue`; between two system calls any other may run, as machines would.
"""

import contextlib
import os
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from store_rows import Row, open_queue, rows_of

from grhpc.store import atomic
from grhpc.store.polling import Backoff

# What costs a network filesystem a round trip or more; writes, reads and closes go with the open that they belong to.
OPERATIONS = ("listdir", "open", "fsync", "utime", "rename", "link", "unlink", "mkdir")


@contextlib.contextmanager
def counting() -> Iterator[Counter[str]]:
    """Count this process's filesystem operations, of this thread and of those that begin meanwhile together."""
    counts: Counter[str] = Counter()
    lock, others = threading.Lock(), set(threading.enumerate()) - {threading.current_thread()}

    def counted(name, real):
        def call(*args, **kwargs):
            if threading.current_thread() not in others:
                with lock:
                    counts[name] += 1
            return real(*args, **kwargs)

        return call

    with contextlib.ExitStack() as stack:
        for name in OPERATIONS:
            stack.enter_context(mock.patch.object(os, name, counted(name, getattr(os, name))))
        stack.enter_context(mock.patch.object(atomic, "open", counted("open", open), create=True))
        yield counts


def crowd(directory: Path, num_claimers: int, num_shards: int) -> dict:
    """`num_claimers` take `num_shards` from one queue and hand them to the next queue.

    They start as badly as can be: all list the folder before the first takes anything, so all want the same file.
    Returns the operations of each kind, in all, and who got what.
    """
    source, rows = open_queue(directory / "a"), rows_of(0)
    for n in range(num_shards):
        source.put(f"g{n:08d}-0001", [Row(**{**vars(row), "group": n}) for row in rows])
    open_queue(directory / "b")
    queues = [(open_queue(directory / "a"), open_queue(directory / "b")) for _ in range(num_claimers)]
    barrier, lock = threading.Barrier(num_claimers), threading.Lock()
    taken: list[str] = []
    empty_looks = 0

    def after_all_have_listed(queue):
        def ready():
            del queue._ready  # the next listings are its own
            files = queue._ready()
            barrier.wait()
            return files

        return ready

    def work(number: int) -> None:
        nonlocal empty_looks
        mine, onward = queues[number]
        backoff = Backoff(0.01, 1.0)
        mine._ready = after_all_have_listed(mine)
        while len(taken) < num_shards:
            lease = mine.claim(f"claimer{number}")
            if lease is None:
                with lock:
                    empty_looks += 1
                backoff.wait()
                continue
            onward.put(lease.name, lease.rows)
            lease.done()
            with lock:
                taken.append(lease.name)

    with counting() as counts:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(num_claimers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(taken) == sorted(set(taken)) and len(taken) == num_shards
    assert source.counts() == {"ready": 0, "leased": 0, "failed": 0}
    return {"operations": dict(counts), "empty_looks": empty_looks, "shards": num_shards, "claimers": num_claimers}
