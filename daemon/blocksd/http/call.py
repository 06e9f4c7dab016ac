"""A call: one HTTP request as the routes see it, and how a route is made of a function of a call."""

from __future__ import annotations

import asyncio
import uuid
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from blocksd.client.agents_async import AsyncAgents
from blocksd.client.blocks_async import AsyncBlocks
from blocksd.client.client_async import AsyncClient
from blocksd.client.reading_async import block_named, block_of_agent, request_of
from blocksd.client.versions_async import AsyncVersions
from blocksd.http.answers import JSONAnswer, refusal
from blocksd.http.api.feed import Feed
from blocksd.http.arguments import Query, check_case, json_object
from blocksd.http.guard import body_of
from blocksd.http.guesses import Guesses
from blocksd.http.sessions import is_secure
from blocksd.model.revision import OPERATOR

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

    from starlette.routing import BaseRoute
    from starlette.types import Receive, Scope, Send

    from blocksd.client.transport_async import AsyncTransport
    from blocksd.http.connections import Repeats
    from blocksd.http.description import About
    from blocksd.http.tokens import Caller, Role, Tokens
    from blocksd.mirror.view import BlockView

READS: tuple[Role, ...] = ("operator", "reader")
WRITES: tuple[Role, ...] = ("operator",)
AGENTS: tuple[Role, ...] = ("agent",)
"""The roles for which a route is made; an agent's only where the route limits it to what the agent may see."""


class Gateway:
    """The parts that all requests share."""

    def __init__(self, transport: AsyncTransport, repeats: Repeats, tokens: Tokens) -> None:
        self.transport = transport
        self.tokens = tokens
        self.client = AsyncClient.over(transport)
        self.repeats = repeats
        self.guesses = Guesses()
        self.auditing = asyncio.Lock()
        """Held by an audit, which reads everything: they come one after the other."""
        self.comparing = asyncio.Lock()
        """Held by a comparison of two texts: a thread computes up to a second on it, beside the event loop."""
        self.stopping = asyncio.Event()
        """Set when the server begins to stop: an answer without an end, such as a stream, then ends."""
        self.feed = Feed(self.client, transport, self.stopping)


class Call:
    """One request: the caller, the arguments, and the client to answer it with."""

    def __init__(self, request: Request, gateway: Gateway, body: bytes, about: About) -> None:
        self._request = request
        self._about = about
        self._gateway = gateway
        self._body = body
        self.transport = gateway.transport
        self.caller: Caller = request.scope["caller"]

    @property
    def agent(self) -> str | None:
        """The agent that calls; None for operators and readers, who see all."""
        return self.caller.agent

    @property
    def actor(self) -> str:
        """The actor of the daemon's protocol: an agent, or the operator."""
        return self.caller.agent or OPERATOR

    @property
    def blocks(self) -> AsyncBlocks:
        """All blocks, as an operator's client has them."""
        return AsyncBlocks(self.transport)

    @property
    def agents(self) -> AsyncAgents:
        """All agents, as an operator's client has them."""
        return AsyncAgents(self.transport)

    @property
    def client(self) -> AsyncClient:
        """The namespace as a whole, as an operator's client has it."""
        return self._gateway.client

    @property
    def feed(self) -> Feed:
        """The changes, for streams."""
        return self._gateway.feed

    @property
    def tokens(self) -> Tokens:
        """The tokens that are in force."""
        return self._gateway.tokens

    def wrong_token(self, detail: str) -> Response:
        """Return the answer to a token in the body that is wrong."""
        return self._gateway.guesses.refused(self._request.scope, detail)

    @property
    def routes(self) -> Sequence[BaseRoute]:
        """All routes of the gateway."""
        routes: Sequence[BaseRoute] = self._request.app.routes
        return routes

    @property
    def auditing(self) -> asyncio.Lock:
        """Held while everything is read."""
        return self._gateway.auditing

    @property
    def comparing(self) -> asyncio.Lock:
        """Held while two texts are compared."""
        return self._gateway.comparing

    @property
    def is_secure(self) -> bool:
        """True if the caller's browser reached the gateway by TLS."""
        return is_secure(self._request.scope["scheme"], dict(self._request.scope["headers"]))

    @property
    def versions(self) -> AsyncVersions:
        """The versions of blocks, as this caller may see them."""
        return AsyncVersions(self.transport, self.agent)

    def path(self, name: str) -> str:
        """Return a part of the path, unquoted."""
        return unquote(self._request.path_params[name])

    @property
    def query(self) -> Query:
        """The query."""
        check_case(self._request.query_params, self._about.query)
        return Query(self._request.query_params)

    def body(self, *, with_nulls: bool = False) -> dict[str, Any]:
        """Return the body's keys, unless they are null. Raise InvalidField if it is no JSON object."""
        found = json_object(self._body, with_nulls=with_nulls)
        check_case(found, (self._about.body or {}).get("properties", ()))
        return found

    def header(self, name: str) -> str | None:
        """Return a header, or None."""
        return self._request.headers.get(name)

    @cached_property
    def request_id(self) -> str:
        """An id of this request: the same for one that an SDK repeats."""
        return self._repeated_id or str(uuid.uuid4())

    @cached_property
    def _repeated_id(self) -> str | None:
        """The id under which the daemon is asked, of a request that may be repeated; None: each has a new one."""
        scope, caller = self._request.scope, self.caller
        headers = dict(scope["headers"])
        named, count = headers.get(b"idempotency-key"), headers.get(b"x-stainless-retry-count")
        if not named and not count:
            return None
        path = f"{scope['path']}?{scope['query_string'].decode('latin-1')}"
        asked = (caller.role, caller.name or "", scope["method"], path)
        return self._gateway.repeats.request_id(named, count, *asked, self._body)

    async def block(self, name: str) -> BlockView:
        """Return a block by its id or label; to an agent only those that it has, also by its names for them.

        Raises:
            NotFound: there is no such block, or the caller may not see it.
        """
        if self.agent is not None:
            return await block_of_agent(self.transport, self.agent, name)
        return await block_named(self.transport, name)

    async def ask(self, op: str, args: Mapping[str, Any] | None = None, **terms: Any) -> dict[str, Any]:
        """Make a request of the daemon, as this caller; its reply."""
        return await self.transport.request(self.actor, op, args, **self._signed(terms))

    async def change(self, op: str, block: str, args: Mapping[str, Any] | None = None, **terms: Any) -> dict[str, Any]:
        """Make a request of an operator to change a block, named by its id or its label; the reply."""
        return await request_of(self.transport, op, block, args, **self._signed(terms))

    def _signed(self, terms: dict[str, Any]) -> dict[str, Any]:
        by = {"by": self.caller.name} if self.caller.role == "operator" and self.caller.name is not None else {}
        return {"request_id": self._repeated_id, **terms, **by}


class Described(Route):
    """A route with its description."""

    about: About
    roles: Collection[Role]


def route(
    path: str,
    method: str,
    function: Callable[[Call], Awaitable[Any]],
    gateway: Gateway,
    roles: Collection[Role],
    about: About,
) -> Described:
    """Return the route that answers with the JSON of what the function returns, to callers of these roles.

    Without roles it answers everyone, also without a token.
    """

    async def endpoint(request: Request) -> Response:
        caller = request.scope["caller"]
        if roles and caller.role not in roles:
            return refusal(403, f"this token is {_said(caller)}, which may not {method} {request.scope['path'][:200]}")
        body = b"" if method == "GET" else await body_of(request)
        if isinstance(body, Response):
            return body
        try:
            result = await function(Call(request, gateway, body, about))
        except asyncio.CancelledError:
            if not gateway.stopping.is_set():
                raise
            detail = "the gateway stops, and the daemon has not replied: whether this was done is not known"
            return refusal(503, detail, {"retry-after": "1"})
        answer = result if isinstance(result, Response) else JSONAnswer(result)
        if isinstance(answer, JSONAnswer) and answer.status_code < 300 and (method == "GET" or answer.version):
            return answer.tagged(request.headers.get("if-none-match") if method == "GET" else None)
        return answer

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        response = await endpoint(Request(scope, receive, send))
        await response(scope, receive, send)

    found = Described(path, endpoint, methods=[method])
    found.app = served  # errors are answered around all routes: Starlette would do so around each, too
    found.about, found.roles = about, roles
    return found


def _said(caller: Caller) -> str:
    return f"of the agent {caller.name}" if caller.role == "agent" else f"a {caller.role}'s"
