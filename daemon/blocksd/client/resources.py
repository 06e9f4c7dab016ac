"""The blocks and agents of a namespace, as resources of a client: for blocking and for asyncio code."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from blocksd.client import agent_asking, asking, queries

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from blocksd.client.plan import Plan
    from blocksd.client.runner import Asyncio, Blocking
    from blocksd.mirror.keys import Keys

P = ParamSpec("P")
R = TypeVar("R")


# Each method below is a query or a request carried out in one way or the other: its parameters, its
# result and its description are the plan's.


def blocking(query: Callable[Concatenate[Keys, P], Plan[R]]) -> Callable[Concatenate[Resource, P], R]:
    """A query or a request as a method of a resource."""

    @wraps(query)
    def method(self: Resource, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._runner.run(query(self._runner.keys, *args, **kwargs))

    return method


def awaitable(
    query: Callable[Concatenate[Keys, P], Plan[R]],
) -> Callable[Concatenate[AsyncResource, P], Coroutine[Any, Any, R]]:
    """A query or a request as a method to be awaited."""

    @wraps(query)
    async def method(self: AsyncResource, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await self._runner.run(query(self._runner.keys, *args, **kwargs))

    return method


class Resource:
    """Something of a namespace that blocking code asks about or changes."""

    def __init__(self, runner: Blocking) -> None:
        self._runner = runner


class AsyncResource:
    """Something of a namespace that asyncio code asks about or changes."""

    def __init__(self, runner: Asyncio) -> None:
        self._runner = runner


class BlockAgents(Resource):
    """The agents attached to a block."""

    list = blocking(queries.list_agents_of_block)
    count = blocking(queries.count_agents_of_block)
    counts = blocking(queries.count_agents_by_block)


class AsyncBlockAgents(AsyncResource):
    """The agents attached to a block."""

    list = awaitable(queries.list_agents_of_block)
    count = awaitable(queries.count_agents_of_block)
    counts = awaitable(queries.count_agents_by_block)


class Blocks(Resource):
    """All blocks."""

    list = blocking(queries.list_blocks)
    count = blocking(queries.count_blocks)
    retrieve = blocking(queries.retrieve)
    create = blocking(asking.create)
    update = modify = blocking(asking.update)
    update_many = blocking(asking.update_many)
    append = blocking(asking.append)
    replace = blocking(asking.replace)
    insert = blocking(asking.insert)
    apply_patch = blocking(asking.apply_patch)
    rename = blocking(asking.rename)
    attach = blocking(asking.attach)
    detach = blocking(asking.detach)
    undo = blocking(asking.undo)
    redo = blocking(asking.redo)
    restore = blocking(asking.restore)
    delete = blocking(asking.delete)

    @property
    def agents(self) -> BlockAgents:
        return BlockAgents(self._runner)


class AsyncBlocks(AsyncResource):
    """All blocks."""

    list = awaitable(queries.list_blocks)
    count = awaitable(queries.count_blocks)
    retrieve = awaitable(queries.retrieve)
    create = awaitable(asking.create)
    update = modify = awaitable(asking.update)
    update_many = awaitable(asking.update_many)
    append = awaitable(asking.append)
    replace = awaitable(asking.replace)
    insert = awaitable(asking.insert)
    apply_patch = awaitable(asking.apply_patch)
    rename = awaitable(asking.rename)
    attach = awaitable(asking.attach)
    detach = awaitable(asking.detach)
    undo = awaitable(asking.undo)
    redo = awaitable(asking.redo)
    restore = awaitable(asking.restore)
    delete = awaitable(asking.delete)

    @property
    def agents(self) -> AsyncBlockAgents:
        return AsyncBlockAgents(self._runner)


class AgentBlocks(Resource):
    """The blocks attached to an agent."""

    list = blocking(queries.list_blocks_of_agent)
    retrieve = blocking(queries.retrieve_block_of_agent)
    attach = blocking(agent_asking.attach_to_agent)
    detach = blocking(agent_asking.detach_from_agent)
    update = modify = blocking(agent_asking.update_of_agent)


class AsyncAgentBlocks(AsyncResource):
    """The blocks attached to an agent."""

    list = awaitable(queries.list_blocks_of_agent)
    retrieve = awaitable(queries.retrieve_block_of_agent)
    attach = awaitable(agent_asking.attach_to_agent)
    detach = awaitable(agent_asking.detach_from_agent)
    update = modify = awaitable(agent_asking.update_of_agent)


class Agents(Resource):
    """All known agents."""

    list = blocking(queries.list_agents)
    count = blocking(queries.count_agents)
    retrieve = blocking(queries.retrieve_agent)
    create = blocking(agent_asking.create_agent)
    delete = blocking(agent_asking.delete_agent)

    @property
    def blocks(self) -> AgentBlocks:
        return AgentBlocks(self._runner)


class AsyncAgents(AsyncResource):
    """All known agents."""

    list = awaitable(queries.list_agents)
    count = awaitable(queries.count_agents)
    retrieve = awaitable(queries.retrieve_agent)
    create = awaitable(agent_asking.create_agent)
    delete = awaitable(agent_asking.delete_agent)

    @property
    def blocks(self) -> AsyncAgentBlocks:
        return AsyncAgentBlocks(self._runner)
