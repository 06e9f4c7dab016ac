"""The client's connection to Redis that all requests share, with bounds on what is sent at once.

Without them a burst of requests would open as many connections at one moment, and most would fail: Redis and redis-py have
limits, and a connection is given one second. With them the rest of a burst waits for its turn.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from blocksd.client.transport_async import AsyncTransport
from blocksd.errors import Unavailable

if TYPE_CHECKING:
    from blocksd.protocol.wire import Command

READING = 32
"""How many requests read at once: one event loop does not profit from more."""
ASKING = 64
"""How many wait for a reply of the daemon at once, each on a connection. They take nothing from those that read."""
WAITING = 2000
"""How many wait for their turn. More are refused at once: their callers would have given up before."""


class SharedTransport(AsyncTransport):
    """One namespace of one server, for all requests of a gateway."""

    def __init__(self, url: str, namespace: str, by: str | None = None) -> None:
        """Nothing is sent yet."""
        super().__init__(url, namespace, by)
        self._reading = asyncio.Semaphore(READING)
        self._asking = asyncio.Semaphore(ASKING)
        self._waiting = 0

    async def ask(self, *commands: Command, together: bool = False) -> list[Any]:
        """Send commands as `AsyncTransport.ask` does, when it is their turn. Raises Unavailable when too many wait."""
        turns = self._asking if any(command[0] == "BLPOP" for command in commands) else self._reading
        if self._waiting >= WAITING:
            raise Unavailable("too many requests wait for their turn: try again", waiting=self._waiting)
        self._waiting += 1
        try:
            async with turns:
                return await super().ask(*commands, together=together)
        finally:
            self._waiting -= 1
