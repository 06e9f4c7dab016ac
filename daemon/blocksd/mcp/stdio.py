"""The server over standard input and output, for one agent: what a client starts as `blocksd mcp --agent ID`."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

from blocksd.mcp.lines import Lines
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
    handlers, lines = Handlers(access, lambda _context: agent), Lines(*_own_handles())
    server = handlers.server()
    serving = asyncio.create_task(server.run(lines, lines, server.create_initialization_options()))
    ends = [serving, *(asyncio.create_task(one.wait()) for one in (stopping, lines.broken))]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    for waiting in ends[1:]:
        waiting.cancel()
    await handlers.close()
    await access.close()
    error = lines.error
    if error is not None and not isinstance(error, BrokenPipeError):  # as it is when the client has ended
        raise OSError(error.errno, error.strerror, "standard input or output")
    if not serving.done():
        os._exit(0)  # an answer that nobody reads cannot be taken back, and would be waited for
    await serving


def _own_handles() -> tuple[int, int]:
    """Return standard input and output, in whose places nothing can be read, and what is written goes to standard error."""
    handles = os.dup(0), os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    os.close(nowhere)
    os.dup2(2, 1)
    return handles
