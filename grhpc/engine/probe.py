"""A small question to a server: does it answer at all, and how do small ones fare beside one that fails?

Does not know: the questions of others, tries. Invariant: each takes its turn of the requests a minute, counts as a
request, and has a minute at most.
"""

import asyncio
import time

from grhpc.engine.doubt import SMALL, Doubt
from grhpc.engine.pacing import Pace
from grhpc.engine.server import Asked, Server, refuses

PROBE = "What is 1 + 1?"
_TOKENS = 16
_LONGEST_S = 60.0


class Prober:
    """Asks `server`; `heard_s` is when the last answer came, of others too where they say so."""

    def __init__(self, server: Server, pace: Pace, timeout_s: float) -> None:
        self._server, self._pace = server, pace
        self.limit_s = min(_LONGEST_S, timeout_s)  # for what takes a server that is well no time
        self.heard_s = 0.0

    def heard(self) -> None:
        self.heard_s = time.monotonic()

    async def ask(self, order: asyncio.Lock) -> Exception | None:
        """Once: None where it is answered, or refused as a question, else the error."""
        import openai

        await self._pace.turn(order)
        self._server.usage.update(requests=1)
        try:
            async with asyncio.timeout(self.limit_s):
                await self._server.send(Asked(PROBE, _TOKENS))
        except (openai.OpenAIError, TimeoutError, ValueError) as error:
            if not refuses(error):
                return error
        self.heard()
        return None

    async def compare(self, doubt: Doubt, order: asyncio.Lock) -> Exception | None:
        """SMALL times, and count it in `doubt`; where the server answers none, or has no time, it is away: the error,
        and nothing is counted."""
        missed = 0
        for _ in range(SMALL):
            if error := await self.ask(order):
                missed += 1
                if missed == SMALL or isinstance(error, TimeoutError):
                    return error
        doubt.missed += missed
        doubt.passed += SMALL - missed
        return None
