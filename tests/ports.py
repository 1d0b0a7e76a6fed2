"""Ports for servers of tests: below those that the kernel gives to connections, which could take a dead server's port,
or come to be connected to themselves there."""

import random
import socket


def free_port() -> int:
    """One that nobody listens on at this moment."""
    for port in random.SystemRandom().sample(range(12_000, 17_000), 1000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no free port between 12000 and 17000")
