"""Updates: follows an agent's changes while clients listen, and tells each which resources changed.

Clients of 2026 listen by `subscriptions/listen`, one stream for each request. Those of before subscribe to a resource, and
hear of a changed list without asking. An update says only that something changed, and the client reads it again.

Invariant: every change after the answer that confirms a subscription leads to an update. While Redis does not serve there are
none; afterwards there is one of everything.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ResourcesListChanged, ResourceUpdated
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS

from blocksd.errors import BlocksdError, NotFound
from blocksd.mcp.places import name_in
from blocksd.model.label import is_properties, name_for_agent
from blocksd.model.revision import Change

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mcp.server.connection import Connection
    from mcp.server.context import ServerRequestContext
    from mcp.server.subscriptions import ServerEvent
    from mcp_types import SubscriptionsListenRequestParams, SubscriptionsListenResult

    from blocksd.mcp.memory import Access
    from blocksd.protocol.reset import Item

_LOG = logging.getLogger("blocksd.mcp")
RETRY_SECONDS = 1.0
MOST_URIS = 10_000
"""How many resources a client may listen to: each costs time and memory before a change comes."""
_PATIENCE_SECONDS = 2.0
"""How long a client waits at most until its agent's changes are followed, before its subscription is confirmed."""
_WITHOUT_BLOCKS = frozenset(("source", "opened", "closed", "file"))


def check_number(uris: int) -> None:
    """Raise MCPError if a client wants to hear of more resources than it may."""
    if uris > MOST_URIS:
        raise MCPError(INVALID_PARAMS, f"a client may listen to {MOST_URIS} resources: read the others now and then")


class Updates:
    """The updates of one agent. Ends by itself when no client listens any more."""

    def __init__(self, access: Access, agent: str, on_end: Callable[[], object]) -> None:
        self._access = access
        self._agent = agent
        self._on_end = on_end
        self._bus = InMemorySubscriptionBus()
        self._streams = ListenHandler(self._bus)
        self._wanted: dict[str, dict[str, int]] = {}
        """The URIs that clients listen to, and how many do, by the name of the block: a URI can be written in several ways."""
        self._clients = 0
        self._sessions: dict[Connection, _Session] = {}
        self._task: asyncio.Task[None] | None = None
        self._is_live = asyncio.Event()
        self._is_behind = False
        """True if a subscription was confirmed while changes were not followed."""

    async def listen(
        self, context: ServerRequestContext[Any, Any], params: SubscriptionsListenRequestParams
    ) -> SubscriptionsListenResult:
        """Answer `subscriptions/listen`: the answer is the end of the stream. What is confirmed are URIs of the agent alone."""
        wanted = params.notifications
        uris = [uri for uri in wanted.resource_subscriptions or () if self._is_own(uri)]
        honored = wanted.model_copy(update={"resource_subscriptions": uris or None})
        self._want(uris)
        try:
            await self._begin()
            return await self._streams(context, params.model_copy(update={"notifications": honored}))
        finally:
            self._want_not(uris)
            self._leave()

    async def join(self, connection: Connection) -> _Session:
        """Tell a client of before 2026 of changed lists from now on, until its connection ends; its session."""
        if connection not in self._sessions:
            session = self._sessions[connection] = _Session(connection, self._bus)
            connection.exit_stack.push_async_callback(self._end_session, connection)
            try:
                await self._begin()
            except BaseException:
                await self._end_session(connection)
                raise
            return session
        return self._sessions[connection]

    async def subscribe(self, connection: Connection, uri: str) -> None:
        """Tell the client when this resource changes, too."""
        session = await self.join(connection)
        if uri not in session.uris:
            check_number(len(session.uris) + 1)
            session.uris.add(uri)
            self._want([uri])

    async def unsubscribe(self, connection: Connection, uri: str) -> None:
        """Tell it no longer."""
        session = await self.join(connection)
        if uri in session.uris:
            session.uris.discard(uri)
            self._want_not([uri])

    def end_streams(self) -> None:
        """End all streams in order: their clients come again."""
        self._streams.close()

    async def close(self) -> None:
        """End everything."""
        self.end_streams()
        for connection in list(self._sessions):
            await self._end_session(connection)
        await self._stop()

    async def _end_session(self, connection: Connection) -> None:
        session = self._sessions.pop(connection, None)
        if session is not None:
            self._want_not(session.uris)
            await session.close()
            self._leave()

    # --- who listens ---

    def _is_own(self, uri: str) -> bool:
        try:
            name_in(uri, self._agent)
        except NotFound:
            return False
        return True

    def _want(self, uris: Iterable[str]) -> None:
        for uri in uris:
            wanted = self._wanted.setdefault(name_in(uri, self._agent), {})
            wanted[uri] = wanted.get(uri, 0) + 1

    def _want_not(self, uris: Iterable[str]) -> None:
        for uri in uris:
            name = name_in(uri, self._agent)
            self._wanted[name][uri] -= 1
            if not self._wanted[name][uri]:
                del self._wanted[name][uri]
            if not self._wanted[name]:
                del self._wanted[name]

    async def _begin(self) -> None:
        """Count a client, and wait until changes are followed, if that can be soon."""
        self._clients += 1
        if self._task is None:
            self._task = asyncio.create_task(self._follow())
        try:
            await asyncio.wait_for(self._is_live.wait(), _PATIENCE_SECONDS)
        except TimeoutError:
            self._is_behind = True

    def _leave(self) -> None:
        self._clients -= 1
        if self._clients <= 0 and self._task is not None:
            self._task.cancel()
            self._on_end()

    async def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    # --- what happens ---

    async def _follow(self) -> None:
        while True:
            try:
                async with self._access.client.watch(agent=self._agent) as watch:
                    self._is_live.set()
                    if self._is_behind:
                        self._is_behind = False
                        await self._tell(list(self._wanted), is_list=True)
                    async for item in watch:
                        await self._hear(item)
            except BlocksdError as error:
                _LOG.debug("updates of %s are interrupted: %s", self._agent, error.message)
            self._is_behind = True
            await asyncio.sleep(RETRY_SECONDS)

    async def _hear(self, item: Item) -> None:
        if not isinstance(item, Change):
            await self._tell(list(self._wanted), is_list=True)
            return
        if item.kind in _WITHOUT_BLOCKS:
            return
        labels = [label for label in (*item.labels, item.renamed_from) if label and not is_properties(label)]
        is_list = item.kind != "updated" or self._agent in (*item.attached, *item.detached)
        if labels and (is_list or item.fields):
            names = map(name_for_agent, labels) if is_list or "value" in item.fields else ()
            await self._tell(names, is_list=is_list or item.fields != ("value",))

    async def _tell(self, names: Iterable[str], *, is_list: bool) -> None:
        for name in names:
            for uri in list(self._wanted.get(name, ())):
                await self._bus.publish(ResourceUpdated(uri))
        if is_list:
            await self._bus.publish(ResourcesListChanged())


class _Session:
    """A connection of a client of before 2026: its updates that are not sent yet, and a task that sends them."""

    def __init__(self, connection: Connection, bus: InMemorySubscriptionBus) -> None:
        self.uris: set[str] = set()
        self._connection = connection
        self._pending: dict[ServerEvent, None] = {}
        self._wake = asyncio.Event()
        self._unsubscribe = bus.subscribe(self._hear)
        self._task = asyncio.create_task(self._tell())

    def _hear(self, event: ServerEvent) -> None:
        if not isinstance(event, ResourceUpdated) or event.uri in self.uris:
            self._pending[event] = None
            self._wake.set()

    async def _tell(self) -> None:
        """Send what is pending, each thing once: a client that does not read holds up no other."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._pending:
                event = next(iter(self._pending))
                del self._pending[event]
                if isinstance(event, ResourceUpdated):
                    await self._connection.send_resource_updated(event.uri)
                else:
                    await self._connection.send_resource_list_changed()

    async def close(self) -> None:
        self._unsubscribe()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
