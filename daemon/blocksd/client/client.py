"""What agents and operators program against: the same client for blocking and for asyncio code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self
from weakref import WeakSet

from blocksd.client import asking, queries
from blocksd.client.agent_memory import AsyncMemory, Memory
from blocksd.client.resources import (
    Agents,
    AsyncAgents,
    AsyncBlocks,
    AsyncResource,
    Blocks,
    Resource,
    awaitable,
    blocking,
)
from blocksd.client.runner import Asyncio, Blocking
from blocksd.client.watch import AsyncWatch, Watch
from blocksd.client.watching import Watching
from blocksd.errors import Unavailable
from blocksd.settings import config as configuration
from blocksd.settings.record import FoundUrl, running_daemon

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from blocksd.client.watching import Item


def connect(url: str | None = None, namespace: str | None = None) -> Client:
    """A client for blocking code. Nothing is sent yet; an unreachable Redis shows at the first question.

    `url` is a Redis URL; None stands for what the settings say (`BLOCKSD_REDIS`, `blocksd.toml`), and else for the
    server of the daemon that runs on this machine. `namespace` None is the one set, and else `blocks`.

    Raises:
        Unavailable: no URL is given, nor set, and no daemon runs.
        Misconfigured: `url` or `namespace` is none.
    """
    return Client(*_place(url, namespace))


def aconnect(url: str | None = None, namespace: str | None = None) -> AsyncClient:
    """A client for asyncio code; else like `connect`."""
    return AsyncClient(*_place(url, namespace))


def _place(url: str | None, namespace: str | None) -> tuple[str, str]:
    """Where the mirror is: URL and namespace."""
    if url is not None and namespace is not None:
        return url, namespace
    config = configuration.load({"namespace": namespace})
    url = url or config.redis
    if url is not None:
        return url, config.namespace
    daemon = running_daemon(config.state)
    if daemon is None:
        raise Unavailable(f"no daemon is running for the namespace {config.namespace!r} (state in {config.state})")
    return FoundUrl(daemon["redis"], config.state), config.namespace


class Client(Resource):
    """Reads and writes one namespace. Every method raises Unavailable when Redis does not serve, or the mirror is being
    mended; those that write, also when there was no reply in time.

    Blocks are named by id or label. Threads may share a client; a watch or a memory belongs to one at a time.
    """

    def __init__(self, url: str, namespace: str = "blocks") -> None:
        super().__init__(Blocking(url, namespace))
        self._opened: WeakSet[Watch] = WeakSet()

    @property
    def blocks(self) -> Blocks:
        return Blocks(self._runner)

    @property
    def agents(self) -> Agents:
        return Agents(self._runner)

    meta = blocking(queries.meta)
    is_kept = blocking(queries.is_kept)
    counts = blocking(queries.counts)
    problems = blocking(queries.problems)
    edit = blocking(asking.edit)

    def memory(self, agent_id: str) -> Memory:
        """What one agent sees.

        Raises:
            InvalidLabel: it cannot be the id of an agent.
        """
        return Memory(self._runner, agent_id, self._opened)

    def watch(
        self,
        *,
        label: str | None = None,
        agent: str | None = None,
        since: int | tuple[str, int] | Item | None = None,
        callback: Callable[[Item], object] | None = None,
    ) -> Watch:
        """Every change once, in order: from now on, or after `since`: a seq (of whatever epoch the mirror
        has), an epoch and a seq, or the last item received.

        With `label`, that block's changes only; with `agent`, those of whatever is attached to it, as that changes.
        A `Reset` among them tells that changes were missed which cannot be had any more, or that `since` is of another
        epoch; its `blocks` are the present state. A `repaired` tells which blocks the mirror showed wrongly until now. A
        lost connection is made again, and what was missed is caught up with. Problems of files (`rejected`, `cleared`)
        are passed on by a watch of everything, and only while it is connected.

        The watch is an iterator. With `callback`, a thread passes every item to that instead, until the watch is closed.

        Raises:
            Unavailable: Redis does not serve.
        """
        watch = Watch(self._runner, Watching(self._runner.keys, since=since, label=label, agent=agent), callback)
        self._opened.add(watch)
        return watch

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close it, with its watches and memories."""
        opened = list(self._opened)
        for one in opened:
            one.stop()
        for one in opened:
            one.close()
        self._runner.close()


class AsyncClient(AsyncResource):
    """Reads and writes one namespace, in asyncio code: like `Client`, with every method to be awaited, `watch` and `memory` aside."""

    def __init__(self, url: str, namespace: str = "blocks") -> None:
        super().__init__(Asyncio(url, namespace))
        self._opened: WeakSet[AsyncWatch] = WeakSet()

    @property
    def blocks(self) -> AsyncBlocks:
        return AsyncBlocks(self._runner)

    @property
    def agents(self) -> AsyncAgents:
        return AsyncAgents(self._runner)

    meta = awaitable(queries.meta)
    is_kept = awaitable(queries.is_kept)
    counts = awaitable(queries.counts)
    problems = awaitable(queries.problems)
    edit = awaitable(asking.edit)

    def memory(self, agent_id: str) -> AsyncMemory:
        """What one agent sees.

        Raises:
            InvalidLabel: it cannot be the id of an agent.
        """
        return AsyncMemory(self._runner, agent_id, self._opened)

    def watch(
        self,
        *,
        label: str | None = None,
        agent: str | None = None,
        since: int | tuple[str, int] | Item | None = None,
        callback: Callable[[Item], Awaitable[object] | object] | None = None,
    ) -> AsyncWatch:
        """Every change once, in order: like `Client.watch`.

        The watch is an asynchronous iterator; what happens after it was entered with `async with` is in it. With
        `callback`, which may be a coroutine function, a task passes every item to that instead.
        """
        watch = AsyncWatch(self._runner, Watching(self._runner.keys, since=since, label=label, agent=agent), callback)
        self._opened.add(watch)
        return watch

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close it, with its watches and memories."""
        for one in list(self._opened):
            await one.close()
        await self._runner.close()
