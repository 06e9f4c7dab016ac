"""An agent's memory as the server reads and writes it, by a client that is made when it is needed."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from blocksd.client.client_async import AsyncClient
from blocksd.client.reading_async import block_of_agent, look
from blocksd.client.versions_async import AsyncVersions
from blocksd.errors import AlreadyExists, BlocksdError, Misconfigured
from blocksd.mcp.refusals import is_unknown_agent, refusal
from blocksd.model.prompt import compile_prompt, style_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from blocksd.client.transport_async import AsyncTransport
    from blocksd.mirror.view import BlockView, Page, VersionView
    from blocksd.protocol.sight import Sight

T = TypeVar("T")
_LOG = logging.getLogger("blocksd.mcp")

PATIENCE_SECONDS = 3.0
"""How long a client waits for the memory when it connects: some give a server 10 seconds to start."""
_HEAD = """\
The memory of the agent '{agent}': labelled texts (blocks) that last from one conversation to the next. Some are shared with \
other agents, and people edit them. They follow as they were when this connection began; a client may cut them short. \
memory_list names all of them, and memory_view reads one as it is now. Write down with the memory_ tools what is worth knowing \
later, as soon as you learn it."""
_NO_BLOCKS = "(There are no blocks yet: memory_create makes one.)"


class Access:
    """The connection to the mirror, which is made when it is first needed, and the agents' memories."""

    def __init__(self, connect: Callable[[], AsyncTransport], *, creates: bool = False) -> None:
        """`connect` may raise Unavailable, and is asked again then. With `creates`, an agent that is not known is made."""
        self._connect = connect
        self._creates = creates
        self._client: AsyncClient | None = None
        self._transport: AsyncTransport | None = None
        self._last_logged = ""

    @property
    def transport(self) -> AsyncTransport:
        """The connection. Raises Unavailable if there is no address for it yet."""
        if self._transport is None:
            self._transport = self._connect()
            self._client = AsyncClient.over(self._transport)
        return self._transport

    @property
    def client(self) -> AsyncClient:
        """The client. Raises as `transport`."""
        _ = self.transport
        assert self._client is not None
        return self._client

    async def act(self, agent: str, action: Callable[[], Awaitable[T]]) -> T:
        """Do something with an agent's memory; an agent that is not known is made first, if that is asked for."""
        try:
            return await self._logged(action)
        except BlocksdError as error:
            if not self._creates or not is_unknown_agent(error, agent):
                raise
        with suppress(AlreadyExists):  # made meanwhile
            await self._logged(lambda: self.client.agents.create(name=agent))
        return await self._logged(action)

    async def _logged(self, action: Callable[[], Awaitable[T]]) -> T:
        """Do something. Log once what Redis refuses to its user, since a model is not told addresses and users."""
        try:
            return await action()
        except Misconfigured as error:
            kind = str(error.facts.get("lacks", error.message))  # a message may name a request
            if kind != self._last_logged:
                self._last_logged = kind
                _LOG.error("%s", error.message)
            raise

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.close()


class AgentMemory:
    """One agent's memory. All methods raise as the client does."""

    def __init__(self, access: Access, agent: str) -> None:
        self.access = access
        self.agent = agent

    async def sight(self) -> Sight:
        """Read all that the agent sees."""
        return await self.access.act(self.agent, lambda: look(self.access.transport, self.agent))

    async def block(self, name: str) -> BlockView:
        """Read one block, by the agent's name for it."""
        return await self.access.act(self.agent, lambda: block_of_agent(self.access.transport, self.agent, name))

    async def version(self, name: str, version: int) -> VersionView:
        """Read one version of a block."""
        return await self.access.act(self.agent, lambda: self._versions.retrieve(name, version))

    async def versions(self, name: str, limit: int) -> Page[VersionView]:
        """Read the newest versions of a block, without their texts."""
        return await self.access.act(self.agent, lambda: self._versions.list(name, limit=limit))

    async def write(self, method: str, arguments: dict[str, object]) -> BlockView | None:
        """Call a method of `AsyncMemory` that changes a block; None: it is deleted."""

        async def call() -> BlockView | None:
            found: BlockView | None = await getattr(self.access.client.memory(self.agent), method)(**arguments)
            return found

        return await self.access.act(self.agent, call)

    async def compiled(self) -> str:
        """Return the text for the agent's context window, in the style of its type."""
        sight = await self.sight()
        return compile_prompt(sight.blocks.values(), style=style_of(sight.agent_type), sources=sight.sources)

    async def instructions(self) -> str:
        """Return what a client is told at the beginning: how to use the memory, and the memory, if it can be read."""
        try:
            text = await asyncio.wait_for(self.compiled(), PATIENCE_SECONDS)
        except TimeoutError:
            text = (
                "(The memory cannot be read for now: Redis or the daemon does not answer. memory_list reads it later.)"
            )
        except BlocksdError as error:
            text = f"(The memory cannot be read for now. {refusal(error, agent=self.agent)})"
        return f"{_HEAD.format(agent=self.agent)}\n\n{text or _NO_BLOCKS}"

    @property
    def _versions(self) -> AsyncVersions:
        return AsyncVersions(self.access.transport, self.agent)
