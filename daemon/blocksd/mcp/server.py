"""The server as the SDK has it: which handler answers which method, for clients of both eras of the protocol."""

from __future__ import annotations

from contextlib import suppress
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TypeVar, cast

from mcp.server.lowlevel import NotificationOptions, Server
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INTERNAL_ERROR,
    CallToolRequestParams,
    CallToolResult,
    DiscoverResult,
    EmptyResult,
    GetPromptRequestParams,
    GetPromptResult,
    ListPromptsResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ListToolsResult,
    NotificationParams,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    ReadResourceResult,
    RequestParams,
    SubscribeRequestParams,
    SubscriptionsListenRequestParams,
    SubscriptionsListenResult,
    UnsubscribeRequestParams,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from blocksd.errors import NotFound
from blocksd.mcp import resources
from blocksd.mcp.calls import call
from blocksd.mcp.definitions import listed
from blocksd.mcp.memory import AgentMemory
from blocksd.mcp.places import name_in
from blocksd.mcp.updates import Updates, check_number

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp.server.connection import Connection
    from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
    from mcp.server.models import InitializationOptions

    from blocksd.mcp.memory import Access

    Context = ServerRequestContext[Any, Any]

T = TypeVar("T")

NAME = "blocksd"
FIXED_MS = 3_600_000
"""How long a client may keep what changes with the version of blocksd alone, in milliseconds."""
MOST_FOLLOWED = 500
"""How many agents are followed at once, each on a connection to Redis."""
_SCOPE: Any = "private"


class _Server(Server[Any]):
    """The SDK's server, which tells clients of before 2026 that it announces changes of the list of resources."""

    def create_initialization_options(
        self,
        notification_options: NotificationOptions | None = None,
        experimental_capabilities: dict[str, dict[str, Any]] | None = None,
        extensions: dict[str, dict[str, Any]] | None = None,
    ) -> InitializationOptions:
        options = notification_options or NotificationOptions(resources_changed=True)
        return super().create_initialization_options(options, experimental_capabilities, extensions)


class Handlers:
    """Answers the methods. `agent_of` says whose memory a request is about."""

    def __init__(self, access: Access, agent_of: Callable[[Context], str]) -> None:
        self._access = access
        self._agent_of = agent_of
        self._updates: dict[str, Updates] = {}

    def server(self) -> Server[Any]:
        """Return the server."""
        server = self._server = _Server(
            NAME,
            version=version("blocksd"),
            title="blocksd: memory blocks",
            on_list_tools=self.list_tools,
            on_call_tool=self.call_tool,
            on_list_resources=self.list_resources,
            on_list_resource_templates=self.list_resource_templates,
            on_read_resource=self.read_resource,
            on_subscribe_resource=self.subscribe,
            on_unsubscribe_resource=self.unsubscribe,
            on_subscriptions_listen=self.listen,
            on_list_prompts=self.list_prompts,
            on_get_prompt=self.get_prompt,
        )
        server.add_request_handler("server/discover", RequestParams, self.discover)
        server.add_notification_handler("notifications/initialized", NotificationParams, self.initialized)
        server.middleware.append(self.answer)
        return server

    def end_streams(self) -> None:
        """End the streams of clients that listen: they come again."""
        for one in self._updates.values():
            one.end_streams()

    async def close(self) -> None:
        """End all that follows changes."""
        for one in list(self._updates.values()):
            await one.close()

    def _memory(self, context: Context) -> AgentMemory:
        return AgentMemory(self._access, self._agent_of(context))

    def _updates_for(self, context: Context) -> Updates:
        """Return the updates of the agent, which the caller joins at once. Raises MCPError."""
        agent = self._agent_of(context)
        if agent not in self._updates:
            if len(self._updates) >= MOST_FOLLOWED:
                raise MCPError(INTERNAL_ERROR, f"{MOST_FOLLOWED} agents are followed already: read again now and then")
            self._updates[agent] = Updates(self._access, agent, lambda: self._updates.pop(agent, None))
        return self._updates[agent]

    # --- the beginning ---

    async def discover(self, context: Context, _params: RequestParams) -> DiscoverResult:
        """Answer `server/discover` (2026): what there is, and the memory as instructions."""
        return DiscoverResult(
            supported_versions=list(MODERN_PROTOCOL_VERSIONS),
            capabilities=self._server.get_capabilities(protocol_version=context.protocol_version),
            instructions=await self._memory(context).instructions(),
            ttl_ms=0,
            cache_scope=_SCOPE,
        )

    async def answer(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        """Put the memory, as instructions, into the answer to `initialize` (until 2025), and make each answer sendable."""
        result = await call_next(ctx)
        if ctx.method == "initialize" and isinstance(result, dict):
            result = {**result, "instructions": await self._memory(ctx).instructions()}
        return sendable(result)

    async def initialized(self, context: Context, _params: NotificationParams) -> None:
        """Follow changes for a client that does not ask for it (until 2025)."""
        connection = _connection_of(context)
        if connection.protocol_version not in MODERN_PROTOCOL_VERSIONS:
            with suppress(MCPError):  # it has not asked for it
                await self._updates_for(context).join(connection)

    # --- tools ---

    async def list_tools(self, _context: Context, _params: PaginatedRequestParams | None) -> ListToolsResult:
        """Answer `tools/list`."""
        return ListToolsResult(tools=listed(), ttl_ms=FIXED_MS, cache_scope=_SCOPE)

    async def call_tool(self, context: Context, params: CallToolRequestParams) -> CallToolResult:
        """Answer `tools/call`."""
        return await call(self._memory(context), params.name, params.arguments or {})

    # --- resources and the prompt ---

    async def list_resources(self, context: Context, _params: PaginatedRequestParams | None) -> ListResourcesResult:
        """Answer `resources/list`."""
        found = await resources.resources(self._memory(context))
        return ListResourcesResult(resources=found, ttl_ms=0, cache_scope=_SCOPE)

    async def list_resource_templates(
        self, context: Context, _params: PaginatedRequestParams | None
    ) -> ListResourceTemplatesResult:
        """Answer `resources/templates/list`."""
        template = resources.template(self._agent_of(context))
        return ListResourceTemplatesResult(resource_templates=[template], ttl_ms=FIXED_MS, cache_scope=_SCOPE)

    async def read_resource(self, context: Context, params: ReadResourceRequestParams) -> ReadResourceResult:
        """Answer `resources/read`."""
        return await resources.read(self._memory(context), params.uri)

    async def subscribe(self, context: Context, params: SubscribeRequestParams) -> EmptyResult:
        """Answer `resources/subscribe` (until 2025)."""
        agent = self._agent_of(context)
        try:
            name_in(params.uri, agent)
        except NotFound as error:
            raise resources.failed(error, agent) from None
        await self._updates_for(context).subscribe(_connection_of(context), params.uri)
        return EmptyResult()

    async def unsubscribe(self, context: Context, params: UnsubscribeRequestParams) -> EmptyResult:
        """Answer `resources/unsubscribe` (until 2025)."""
        await self._updates_for(context).unsubscribe(_connection_of(context), params.uri)
        return EmptyResult()

    async def listen(self, context: Context, params: SubscriptionsListenRequestParams) -> SubscriptionsListenResult:
        """Answer `subscriptions/listen` (2026)."""
        check_number(len(params.notifications.resource_subscriptions or ()))
        return await self._updates_for(context).listen(context, params)

    async def list_prompts(self, _context: Context, _params: PaginatedRequestParams | None) -> ListPromptsResult:
        """Answer `prompts/list`."""
        return ListPromptsResult(prompts=[resources.MEMORY], ttl_ms=FIXED_MS, cache_scope=_SCOPE)

    async def get_prompt(self, context: Context, params: GetPromptRequestParams) -> GetPromptResult:
        """Answer `prompts/get`."""
        return await resources.prompt(self._memory(context), params.name)


def sendable(value: T) -> T:
    r"""Return an answer that can be written in UTF-8. Bytes that are not, as a damaged mirror may show, become `\udcff`.

    The SDK's server would end otherwise.
    """
    found: Any = value
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            found = value.encode("utf-8", "backslashreplace").decode()
    elif isinstance(value, dict):
        found = {key: sendable(one) for key, one in value.items()}
    elif isinstance(value, list):
        found = [sendable(one) for one in value]
    return cast("T", found)


def _connection_of(context: Context) -> Connection:
    """Return the connection, which lasts longer than the request; the SDK gives it to handlers in no other way."""
    return context.session._connection  # noqa: SLF001
