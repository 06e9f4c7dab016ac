"""The route `/mcp` of a gateway: whose memory a request is about, and the server, which is loaded at the first request."""

from __future__ import annotations

import asyncio
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from blocksd.errors import InvalidLabel
from blocksd.http.answers import refusal
from blocksd.http.guard import body_of
from blocksd.model.label import parse_agent

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

    from blocksd.http.call import Gateway
    from blocksd.http.tokens import Caller

PATH = "/mcp"
HEADER = b"blocksd-agent"
_HOW = "name it in the address, as in /mcp?agent=ID, or in the header Blocksd-Agent"


class OverHTTP:
    """An ASGI application behind the gateway's guard, which has checked token, host, origin and size."""

    def __init__(self, gateway: Gateway) -> None:
        self.routes = [Route(PATH, self)]
        self._gateway = gateway
        self._starting = asyncio.Lock()
        self._hosted: Any = None
        self._ending: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if find_spec("mcp") is None:
            refused: Response | None = refusal(501, "MCP needs the package mcp: pip install 'blocksd[mcp]'")
        else:
            agent, refused = agent_of(scope["caller"], scope)
        if refused is not None:
            await refused(scope, receive, send)
            return
        body = await body_of(Request(scope, receive))
        if isinstance(body, Response):
            await body(scope, receive, send)
            return
        hosted = await self._begun()
        await hosted.serve(agent, scope, _with(body, receive), send)

    async def _begun(self) -> Any:
        async with self._starting:
            if self._hosted is None:
                # In a thread, as it takes a second: other requests are answered meanwhile.
                module = await asyncio.to_thread(import_module, "blocksd.mcp.hosted")
                self._hosted = module.Hosted(self._gateway)
                await self._hosted.begin()
        return self._hosted

    def end_streams(self) -> None:
        """End all sessions and streams: clients begin anew, if they still may."""
        if self._hosted is not None:
            task = asyncio.create_task(self._hosted.end())
            self._hosted = None
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    async def close(self) -> None:
        """End everything."""
        self.end_streams()
        await asyncio.gather(*self._ending)


def _with(body: bytes, receive: Receive) -> Receive:
    """Return what receives a body that was read, and then what follows: the SDK takes a caller that hangs up for a fault."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def received() -> Message:
        return messages.pop() if messages else await receive()

    return received


def agent_of(caller: Caller, scope: Scope) -> tuple[str, Response | None]:
    """Return the agent that a request is about, or why there is none: an agent's is itself, an operator names one."""
    query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
    header = dict(scope["headers"]).get(HEADER)
    named = query.get("agent", [])[-1:] + ([] if header is None else [unquote(header.decode("latin-1"))])
    if caller.role == "reader":
        return "", refusal(403, "this token is a reader's: MCP needs one of an agent, or an operator's")
    if caller.agent is not None:
        if any(name != caller.agent for name in named):
            return "", refusal(403, f"this token is of the agent {caller.agent}, which has no other agent's memory")
        return caller.agent, None
    if not named:
        return "", refusal(400, f"whose memory? An operator names the agent: {_HOW}")
    try:
        (agent,) = {parse_agent(name) for name in named}
    except InvalidLabel as error:
        return "", refusal(422, error.message)
    except ValueError:
        return "", refusal(400, "the address and the header name two agents")
    return agent, None
