"""The server over standard input and output, for one agent: what a client starts as `blocksd mcp --agent ID`."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

from mcp.server.stdio import stdio_server

from blocksd.mcp.memory import Access
from blocksd.mcp.server import Handlers

if TYPE_CHECKING:
    from collections.abc import Callable

    from blocksd.client.transport_async import AsyncTransport


def serve(agent: str, connect: Callable[[], AsyncTransport], *, creates: bool) -> None:
    """Serve one agent's memory until standard input is closed, or SIGTERM or SIGINT comes.

    Raises:
        OSError: standard input cannot be read, or standard output not written.
    """
    asyncio.run(_serve(agent, Access(connect, creates=creates)))


async def _serve(agent: str, access: Access) -> None:
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    handlers = Handlers(access, lambda _context: agent)
    serving = asyncio.create_task(_talk(handlers))
    waiting = asyncio.create_task(stopping.wait())
    await asyncio.wait((serving, waiting), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    await handlers.close()
    await access.close()
    if not serving.done():
        # The SDK reads standard input in a thread, which nothing can interrupt and for which Python would wait.
        os._exit(0)
    await serving


async def _talk(handlers: Handlers) -> None:
    server = handlers.server()
    try:
        async with stdio_server() as (reading, writing):
            await server.run(reading, writing, server.create_initialization_options())
    except ExceptionGroup as group:
        matching, others = group.split(OSError)
        if matching is None or others is not None:
            raise
        error: BaseException = matching
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        assert isinstance(error, OSError)
        if not isinstance(error, BrokenPipeError):  # as it is when the client has ended without closing the input first
            raise OSError(error.errno, error.strerror, "standard input or output") from None
