"""The server as the SDK has it: which handler answers which method, for clients of both eras of the protocol."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from mcp.server.lowlevel import Server
from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    DiscoverResult,
    ListToolsResult,
    PaginatedRequestParams,
    RequestParams,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from blocksd.mcp.calls import call
from blocksd.mcp.definitions import listed
from blocksd.mcp.memory import AgentMemory

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp.server.context import CallNext, HandlerResult, ServerRequestContext

    from blocksd.mcp.memory import Access

    Context = ServerRequestContext[Any, Any]

NAME = "blocksd"
FIXED_MS = 3_600_000
"""How long a client may keep what changes with the version of blocksd alone, in milliseconds."""


class Handlers:
    """Answers the methods. `agent_of` says whose memory a request is about."""

    def __init__(self, access: Access, agent_of: Callable[[Context], str]) -> None:
        self._access = access
        self._agent_of = agent_of

    def memory(self, context: Context) -> AgentMemory:
        """Return the memory a request is about."""
        return AgentMemory(self._access, self._agent_of(context))

    async def discover(self, context: Context, _params: RequestParams) -> DiscoverResult:
        """Answer `server/discover` (2026): what there is, and the memory as instructions."""
        server = self._server
        return DiscoverResult(
            supported_versions=list(MODERN_PROTOCOL_VERSIONS),
            capabilities=server.get_capabilities(protocol_version=context.protocol_version),
            instructions=await self.memory(context).instructions(),
        )

    async def initialize(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        """Put the memory, as instructions, into the answer to `initialize` (until 2025)."""
        result = await call_next(ctx)
        if ctx.method == "initialize" and isinstance(result, dict):
            return {**result, "instructions": await self.memory(ctx).instructions()}
        return result

    async def list_tools(self, _context: Context, _params: PaginatedRequestParams | None) -> ListToolsResult:
        """Answer `tools/list`."""
        return ListToolsResult(tools=listed(), ttl_ms=FIXED_MS, cache_scope="private")

    async def call_tool(self, context: Context, params: CallToolRequestParams) -> CallToolResult:
        """Answer `tools/call`."""
        return await call(self.memory(context), params.name, params.arguments or {})

    def server(self) -> Server[Any]:
        """Return the server."""
        server = self._server = Server[Any](
            NAME,
            version=version("blocksd"),
            title="blocksd: memory blocks",
            on_list_tools=self.list_tools,
            on_call_tool=self.call_tool,
        )
        server.add_request_handler("server/discover", RequestParams, self.discover)
        server.middleware.append(self.initialize)
        return server
