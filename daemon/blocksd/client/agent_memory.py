"""An agent's memory, as agents program against it: for blocking and for asyncio code."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Concatenate, ParamSpec, Self, TypeVar
from weakref import finalize

from blocksd.client import memory as memories
from blocksd.client.tools import AsyncTools, Tools
from blocksd.client.watch import AsyncWatch, Watch
from blocksd.client.watching import Watching

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from types import TracebackType
    from typing import Any
    from weakref import WeakSet

    from blocksd.client.plan import Plan
    from blocksd.client.runner import Asyncio, Blocking
    from blocksd.client.watching import Item

P = ParamSpec("P")
R = TypeVar("R")


# Each method below is a question or a request of a memory carried out in one way or the other: its parameters, its result
# and its description are the plan's. Whoever asks a memory has it follow the agent; whoever writes need not.


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

    What it writes is written as the agent, and is seen at once. From the first question on the agent is followed by a
    thread, on a connection of its own: while nothing that concerns it changes, nothing is asked again. Whenever the
    connection is interrupted, every answer is fetched anew. Should it be cut without a sign, that is noticed within a
    quarter of a minute.
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
