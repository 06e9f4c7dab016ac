"""What agents and operators program against: the same client for blocking and for asyncio code."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Concatenate, ParamSpec, Self, TypeVar
from weakref import WeakSet, finalize

from blocksd import asking, queries
from blocksd import config as configuration
from blocksd import memory as memories
from blocksd.errors import Unavailable
from blocksd.record import running_daemon
from blocksd.runner import Asyncio, AsyncWatch, Blocking, Watch
from blocksd.tools import AsyncTools, Tools
from blocksd.watching import Watching

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from types import TracebackType
    from typing import Any

    from blocksd.keys import Keys
    from blocksd.plan import Plan
    from blocksd.watching import Item

P = ParamSpec("P")
R = TypeVar("R")


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
    return daemon["redis"], config.namespace


# Each method below is a query or a request (or one of a memory) carried out in one way or the other: its parameters, its
# result and its description are the plan's.


def _blocking(query: Callable[Concatenate[Keys, P], Plan[R]]) -> Callable[Concatenate[_Resource, P], R]:
    @wraps(query)
    def method(self: _Resource, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._runner.run(query(self._runner.keys, *args, **kwargs))

    return method


def _asyncio(
    query: Callable[Concatenate[Keys, P], Plan[R]],
) -> Callable[Concatenate[_AsyncResource, P], Coroutine[Any, Any, R]]:
    @wraps(query)
    async def method(self: _AsyncResource, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await self._runner.run(query(self._runner.keys, *args, **kwargs))

    return method


class _Resource:
    def __init__(self, runner: Blocking) -> None:
        self._runner = runner


class _AsyncResource:
    def __init__(self, runner: Asyncio) -> None:
        self._runner = runner


class BlockAgents(_Resource):
    """The agents attached to a block."""

    list = _blocking(queries.list_agents_of_block)
    count = _blocking(queries.count_agents_of_block)
    counts = _blocking(queries.count_agents_by_block)


class AsyncBlockAgents(_AsyncResource):
    """The agents attached to a block."""

    list = _asyncio(queries.list_agents_of_block)
    count = _asyncio(queries.count_agents_of_block)
    counts = _asyncio(queries.count_agents_by_block)


class Blocks(_Resource):
    """All blocks."""

    list = _blocking(queries.list_blocks)
    count = _blocking(queries.count_blocks)
    retrieve = _blocking(queries.retrieve)
    create = _blocking(asking.create)
    update = modify = _blocking(asking.update)
    update_many = _blocking(asking.update_many)
    append = _blocking(asking.append)
    replace = _blocking(asking.replace)
    insert = _blocking(asking.insert)
    apply_patch = _blocking(asking.apply_patch)
    rename = _blocking(asking.rename)
    attach = _blocking(asking.attach)
    detach = _blocking(asking.detach)
    undo = _blocking(asking.undo)
    redo = _blocking(asking.redo)
    restore = _blocking(asking.restore)
    delete = _blocking(asking.delete)

    @property
    def agents(self) -> BlockAgents:
        return BlockAgents(self._runner)


class AsyncBlocks(_AsyncResource):
    """All blocks."""

    list = _asyncio(queries.list_blocks)
    count = _asyncio(queries.count_blocks)
    retrieve = _asyncio(queries.retrieve)
    create = _asyncio(asking.create)
    update = modify = _asyncio(asking.update)
    update_many = _asyncio(asking.update_many)
    append = _asyncio(asking.append)
    replace = _asyncio(asking.replace)
    insert = _asyncio(asking.insert)
    apply_patch = _asyncio(asking.apply_patch)
    rename = _asyncio(asking.rename)
    attach = _asyncio(asking.attach)
    detach = _asyncio(asking.detach)
    undo = _asyncio(asking.undo)
    redo = _asyncio(asking.redo)
    restore = _asyncio(asking.restore)
    delete = _asyncio(asking.delete)

    @property
    def agents(self) -> AsyncBlockAgents:
        return AsyncBlockAgents(self._runner)


class AgentBlocks(_Resource):
    """The blocks attached to an agent."""

    list = _blocking(queries.list_blocks_of_agent)
    retrieve = _blocking(queries.retrieve_block_of_agent)
    attach = _blocking(asking.attach_to_agent)
    detach = _blocking(asking.detach_from_agent)
    update = modify = _blocking(asking.update_of_agent)


class AsyncAgentBlocks(_AsyncResource):
    """The blocks attached to an agent."""

    list = _asyncio(queries.list_blocks_of_agent)
    retrieve = _asyncio(queries.retrieve_block_of_agent)
    attach = _asyncio(asking.attach_to_agent)
    detach = _asyncio(asking.detach_from_agent)
    update = modify = _asyncio(asking.update_of_agent)


class Agents(_Resource):
    """All known agents."""

    list = _blocking(queries.list_agents)
    count = _blocking(queries.count_agents)
    retrieve = _blocking(queries.retrieve_agent)
    create = _blocking(asking.create_agent)
    delete = _blocking(asking.delete_agent)

    @property
    def blocks(self) -> AgentBlocks:
        return AgentBlocks(self._runner)


class AsyncAgents(_AsyncResource):
    """All known agents."""

    list = _asyncio(queries.list_agents)
    count = _asyncio(queries.count_agents)
    retrieve = _asyncio(queries.retrieve_agent)
    create = _asyncio(asking.create_agent)
    delete = _asyncio(asking.delete_agent)

    @property
    def blocks(self) -> AsyncAgentBlocks:
        return AsyncAgentBlocks(self._runner)


# Whoever asks a memory has it follow the agent; whoever writes need not.


def _of_memory(
    question: Callable[Concatenate[memories.MemoryState, P], Plan[R]],
) -> Callable[Concatenate[Memory, P], R]:
    @wraps(question)
    def method(self: Memory, /, *args: P.args, **kwargs: P.kwargs) -> R:
        if self._follower is None:
            self._follow()
        return self._runner.run(question(self._state, *args, **kwargs))

    return method


def _of_async_memory(
    question: Callable[Concatenate[memories.MemoryState, P], Plan[R]],
) -> Callable[Concatenate[AsyncMemory, P], Coroutine[Any, Any, R]]:
    @wraps(question)
    async def method(self: AsyncMemory, /, *args: P.args, **kwargs: P.kwargs) -> R:
        if self._follower is None:
            await self._follow()
        return await self._runner.run(question(self._state, *args, **kwargs))

    return method


def _by_memory(
    request: Callable[Concatenate[memories.MemoryState, P], Plan[R]],
) -> Callable[Concatenate[Memory, P], R]:
    @wraps(request)
    def method(self: Memory, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._runner.run(request(self._state, *args, **kwargs))

    return method


def _by_async_memory(
    request: Callable[Concatenate[memories.MemoryState, P], Plan[R]],
) -> Callable[Concatenate[AsyncMemory, P], Coroutine[Any, Any, R]]:
    @wraps(request)
    async def method(self: AsyncMemory, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await self._runner.run(request(self._state, *args, **kwargs))

    return method


class Memory:
    """The blocks of one agent, under its own names for them, and the text they make in its context window.

    What it writes is written as the agent, and is seen at once. From the first question on the agent is followed by a thread, on a connection of its own: while nothing that
    concerns it changes, nothing is asked again. Whenever the connection is interrupted, every answer is fetched anew.
    Should it be cut without a sign, that is noticed within a quarter of a minute.
    """

    def __init__(self, runner: Blocking, agent_id: str, opened: WeakSet[Watch]) -> None:
        self._runner = runner
        self._opened = opened
        self._watching = Watching(runner.keys, agent=agent_id)
        self._state = memories.MemoryState(runner.keys, agent_id, self._watching)
        self._follower: Watch | None = None

    @property
    def agent_id(self) -> str:
        return self._state.agent

    get_blocks = _of_memory(memories.get_blocks)
    get_block = _of_memory(memories.get_block)
    list_block_labels = _of_memory(memories.list_block_labels)
    compile = _of_memory(memories.compile_memory)

    append = _by_memory(memories.append)
    replace = _by_memory(memories.replace)
    insert = _by_memory(memories.insert)
    apply_patch = _by_memory(memories.apply_patch)
    rethink = _by_memory(memories.rethink)
    update_block_value = _by_memory(memories.update_block_value)
    set_block = _by_memory(memories.set_block)
    create_block = _by_memory(memories.create_block)
    delete_block = _by_memory(memories.delete_block)
    rename_block = _by_memory(memories.rename_block)
    core_memory_append = _by_memory(memories.core_memory_append)
    core_memory_replace = _by_memory(memories.core_memory_replace)

    def tools(self) -> Tools:
        """What a language model needs to write here by itself: definitions of tools, and a way to call them."""
        return Tools(self._state, self._runner.run)

    def watch(self, *, since: int | Item | None = None, callback: Callable[[Item], object] | None = None) -> Watch:
        """Every change to what the agent is attached to, as that changes; like `Client.watch`."""
        watch = Watch(self._runner, Watching(self._runner.keys, since=since, agent=self.agent_id), callback)
        self._opened.add(watch)
        return watch

    def _follow(self) -> None:
        self._follower = Watch(self._runner, self._watching, self._state.forget)
        self._opened.add(self._follower)
        finalize(self, self._follower.stop)  # a memory that nobody has any more follows nobody

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stop following."""
        if self._follower is not None:
            self._follower.close()


class AsyncMemory:
    """The blocks of one agent, for asyncio code: like `Memory`, with a task instead of the thread."""

    def __init__(self, runner: Asyncio, agent_id: str, opened: WeakSet[AsyncWatch]) -> None:
        self._runner = runner
        self._opened = opened
        self._watching = Watching(runner.keys, agent=agent_id)
        self._state = memories.MemoryState(runner.keys, agent_id, self._watching)
        self._follower: AsyncWatch | None = None

    @property
    def agent_id(self) -> str:
        return self._state.agent

    get_blocks = _of_async_memory(memories.get_blocks)
    get_block = _of_async_memory(memories.get_block)
    list_block_labels = _of_async_memory(memories.list_block_labels)
    compile = _of_async_memory(memories.compile_memory)

    append = _by_async_memory(memories.append)
    replace = _by_async_memory(memories.replace)
    insert = _by_async_memory(memories.insert)
    apply_patch = _by_async_memory(memories.apply_patch)
    rethink = _by_async_memory(memories.rethink)
    update_block_value = _by_async_memory(memories.update_block_value)
    set_block = _by_async_memory(memories.set_block)
    create_block = _by_async_memory(memories.create_block)
    delete_block = _by_async_memory(memories.delete_block)
    rename_block = _by_async_memory(memories.rename_block)
    core_memory_append = _by_async_memory(memories.core_memory_append)
    core_memory_replace = _by_async_memory(memories.core_memory_replace)

    def tools(self) -> AsyncTools:
        """What a language model needs to write here by itself: definitions of tools, and a way to call them."""
        return AsyncTools(self._state, self._runner.run)

    def watch(
        self,
        *,
        since: int | Item | None = None,
        callback: Callable[[Item], Awaitable[object] | object] | None = None,
    ) -> AsyncWatch:
        """Every change to what the agent is attached to, as that changes; like `AsyncClient.watch`."""
        watch = AsyncWatch(self._runner, Watching(self._runner.keys, since=since, agent=self.agent_id), callback)
        self._opened.add(watch)
        return watch

    async def _follow(self) -> None:
        follower = self._follower = AsyncWatch(self._runner, self._watching)
        self._opened.add(follower)
        finalize(self, follower.stop)  # a memory that nobody has any more follows nobody
        try:
            await follower.start()
        except BaseException:
            self._follower = None
            raise
        follower.call(self._state.forget)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop following."""
        if self._follower is not None:
            await self._follower.close()


class Client(_Resource):
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

    meta = _blocking(queries.meta)
    is_kept = _blocking(queries.is_kept)
    counts = _blocking(queries.counts)
    problems = _blocking(queries.problems)
    edit = _blocking(asking.edit)

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
        since: int | Item | None = None,
        callback: Callable[[Item], object] | None = None,
    ) -> Watch:
        """Every change once, in order: from now on, or after `since` (a seq, or the last item received).

        With `label`, that block's changes only; with `agent`, those of whatever is attached to it, as that changes.
        A `Reset` among them, with the present state, tells that changes were missed which cannot be had any more. A
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


class AsyncClient(_AsyncResource):
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

    meta = _asyncio(queries.meta)
    is_kept = _asyncio(queries.is_kept)
    counts = _asyncio(queries.counts)
    problems = _asyncio(queries.problems)
    edit = _asyncio(asking.edit)

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
        since: int | Item | None = None,
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
