"""The server in a gateway: the SDK's sessions for clients of before 2026, and single requests of those since."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import TYPE_CHECKING

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

from blocksd.http.guard import MAX_BODY
from blocksd.mcp.memory import Access
from blocksd.mcp.server import Handlers

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

    from blocksd.http.call import Gateway
    from blocksd.mcp.server import Context

MOST_SESSIONS = 1000
_SESSION = b"mcp-session-id"
_AGENT = "blocksd.agent"
_ENDING_SECONDS = 1.0
"""How long answers in hand may take when the gateway stops."""


class Hosted:
    """One server for all agents. A session is of one caller for one agent: others do not find it."""

    def __init__(self, gateway: Gateway) -> None:
        self._stopping = gateway.stopping
        self._handlers = Handlers(Access(lambda: gateway.transport), _agent_of)
        self._manager = StreamableHTTPSessionManager(
            self._handlers.server(), json_response=True, max_request_body_size=MAX_BODY, max_sessions=None
        )
        self._sessions: dict[str, tuple[str, str]] = {}
        """The caller and the agent of each session, in the order of their last use; also of some that have ended."""
        logging.getLogger("mcp").setLevel(logging.ERROR)  # a warning for each wrong request would fill the log
        self._is_begun, self._ending = asyncio.Event(), asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def begin(self) -> None:
        """Begin to serve."""
        self._tasks = [asyncio.create_task(self._run()), asyncio.create_task(self._end_in_time())]
        await self._is_begun.wait()

    async def serve(self, agent: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request about an agent's memory."""
        caller = f"{scope['caller'].role} {scope['caller'].name}"
        session = dict(scope["headers"]).get(_SESSION, b"").decode("latin-1")
        owner = caller, agent
        if self._sessions.get(session) == owner:
            del self._sessions[session]
            if scope["method"] != "DELETE":
                self._sessions[session] = owner

        async def send_on(message: Message) -> None:
            nonlocal session
            if message["type"] == "http.response.start" and not session and message["status"] < 400:
                session = dict(message.get("headers", ())).get(_SESSION, b"").decode("latin-1")
                if session:
                    self._sessions[session] = owner
            await send(message)

        await self._handle(owner, scope, receive, send_on)
        if len(self._sessions) > MOST_SESSIONS:
            await self._end_oldest(scope)

    async def _handle(self, owner: tuple[str, str], scope: Scope, receive: Receive, send: Send) -> None:
        token = AccessToken(token="", client_id=" ".join(owner), scopes=[])
        await self._manager.handle_request({**scope, "user": AuthenticatedUser(token), _AGENT: owner[1]}, receive, send)

    async def _end_oldest(self, scope: Scope) -> None:
        """End a session as its client would: of the caller with the most, the one that was used longest ago.

        Few clients end theirs. So nobody takes the place of others, and who connects again and again finds room.
        """
        counts = Counter(caller for caller, _ in self._sessions.values())
        most = max(counts.values())
        oldest = next(one for one, (caller, _) in self._sessions.items() if counts[caller] == most)

        async def nothing() -> Message:
            return {"type": "http.request"}

        async def nowhere(_message: Message) -> None: ...

        ending = {**scope, "method": "DELETE", "headers": [(_SESSION, oldest.encode("latin-1"))]}
        await self._handle(self._sessions.pop(oldest), ending, nothing, nowhere)

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
