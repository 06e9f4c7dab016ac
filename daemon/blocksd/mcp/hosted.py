"""The server in a gateway: the SDK's sessions for clients of before 2026, and single requests of those since."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

from blocksd.http.guard import MAX_BODY
from blocksd.mcp.memory import Access
from blocksd.mcp.server import Handlers

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from blocksd.http.call import Gateway
    from blocksd.mcp.server import Context

MOST_SESSIONS = 1000
_AGENT = "blocksd.agent"
_ENDING_SECONDS = 1.0
"""How long answers in hand may take when the gateway stops."""


class Hosted:
    """One server for all agents. A session is of one caller for one agent: others do not find it."""

    def __init__(self, gateway: Gateway) -> None:
        self._stopping = gateway.stopping
        self._handlers = Handlers(Access(lambda: gateway.transport), _agent_of)
        self._manager = StreamableHTTPSessionManager(
            self._handlers.server(), json_response=True, max_request_body_size=MAX_BODY, max_sessions=MOST_SESSIONS
        )
        logging.getLogger("mcp").setLevel(logging.ERROR)  # a warning for each wrong request would fill the log
        self._is_begun, self._ending = asyncio.Event(), asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def begin(self) -> None:
        """Begin to serve."""
        self._tasks = [asyncio.create_task(self._run()), asyncio.create_task(self._end_in_time())]
        await self._is_begun.wait()

    async def serve(self, agent: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request about an agent's memory."""
        caller = scope["caller"]
        token = AccessToken(token="", client_id=f"{caller.role} {caller.name} {agent}", scopes=[])
        await self._manager.handle_request({**scope, "user": AuthenticatedUser(token), _AGENT: agent}, receive, send)

    async def end(self) -> None:
        """End all sessions and streams."""
        self._handlers.end_streams()
        await self._handlers.close()
        self._ending.set()
        self._tasks[1].cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self) -> None:
        async with self._manager.run():  # must be left by the task that entered it
            self._is_begun.set()
            await self._ending.wait()

    async def _end_in_time(self) -> None:
        await self._stopping.wait()
        self._handlers.end_streams()
        await asyncio.sleep(_ENDING_SECONDS)
        self._ending.set()


def _agent_of(context: Context) -> str:
    assert context.request is not None
    return str(context.request.scope[_AGENT])
