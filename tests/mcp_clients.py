"""MCP clients for tests: the official one, on a server in this process or in another."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import ResourcesListChanged, ResourceUpdated
from mcp_types import ResourceListChangedNotification, ResourceUpdatedNotification

from blocksd.client.transport_async import AsyncTransport
from blocksd.mcp.memory import Access
from blocksd.mcp.server import Handlers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
    from typing import TypeVar

    from mcp.client.subscriptions import Subscription
    from mcp_types import CallToolResult

    T = TypeVar("T")

ERAS = {"2025-11-25": "legacy", "2026-07-28": "auto"}
"""The protocol's newest version of each era, and how the client is asked to speak it."""


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a test's coroutine."""
    return asyncio.run(asyncio.wait_for(work, 60))


@asynccontextmanager
async def inside(
    url: str, agent: str, era: str = "2026-07-28", *, creates: bool = True, **client: Any
) -> AsyncIterator[Client]:
    """A client of a server in this process."""
    access = Access(lambda: AsyncTransport(url, "blocks"), creates=creates)
    handlers = Handlers(access, lambda _context: agent)
    try:
        async with Client(handlers.server(), mode=ERAS[era], **client) as connected:
            yield connected
    finally:
        await handlers.close()
        await access.close()


def command(agent: str, *options: str) -> StdioServerParameters:
    """The server as a client starts it."""
    words = ["-m", "blocksd", "mcp", "--agent", agent, *options]
    return StdioServerParameters(command=sys.executable, args=words, env={**os.environ, "BLOCKSD_CONFIG": os.devnull})


def text_of(result: CallToolResult) -> str:
    (content,) = result.content
    assert content.type == "text"
    return content.text


async def done(client: Client, name: str, **arguments: Any) -> Any:
    """Call a tool, which must be done; its structured answer."""
    result = await client.call_tool(name, arguments)
    assert not result.is_error, text_of(result)
    return result.structured_content


async def refused(client: Client, name: str, **arguments: Any) -> str:
    """Call a tool, which must be refused; what the model is told."""
    result = await client.call_tool(name, arguments)
    assert result.is_error, text_of(result)
    return text_of(result)


class Ear:
    """What a client was told: URIs of resources, and `list`."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def options(self, era: str) -> dict[str, Any]:
        """The options of the client: of before 2026, it is told outside its requests."""
        return {"message_handler": self._hear} if era < "2026" else {}

    async def _hear(self, event: object) -> None:
        if isinstance(event, ResourceUpdatedNotification):
            self.heard.append(event.params.uri)
        elif isinstance(event, ResourceUpdated):
            self.heard.append(event.uri)
        elif isinstance(event, ResourceListChangedNotification | ResourcesListChanged):
            self.heard.append("list")

    @asynccontextmanager
    async def listening(self, client: Client, era: str, *uris: str) -> AsyncIterator[None]:
        """Have the client listen to these resources, and to the list."""
        if era < "2026":
            for uri in uris:
                await client.subscribe_resource(uri)
            yield
            return

        async def hear(events: Subscription) -> None:
            async for event in events:
                await self._hear(event)

        async with client.listen(resources_list_changed=True, resource_subscriptions=uris) as events:
            task = asyncio.create_task(hear(events))
            try:
                yield
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def until(self, *wanted: str) -> None:
        async def is_heard() -> bool:
            return set(wanted) <= set(self.heard)

        await soon(is_heard)


async def soon(condition: Callable[[], Awaitable[object]], seconds: float = 20.0) -> None:
    """Wait until a condition is true."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110  # it is of another process
            await asyncio.sleep(0.02)


@asynccontextmanager
async def over_http(
    url: str, era: str, token: str | None = None, headers: dict[str, str] | None = None, **client: Any
) -> AsyncIterator[Client]:
    """A client of a gateway."""
    given = {**(headers or {}), **({} if token is None else {"authorization": f"Bearer {token}"})}
    async with (
        httpx2.AsyncClient(headers=given, timeout=httpx2.Timeout(20, read=60)) as http,
        Client(streamable_http_client(url, http_client=http), mode=ERAS[era], **client) as connected,
    ):
        yield connected
