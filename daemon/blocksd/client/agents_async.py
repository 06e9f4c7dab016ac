"""The agents of a namespace and of a block, and the blocks of an agent, as resources of the client."""

import uuid
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from blocksd.client.files_async import AsyncAgentFiles
from blocksd.client.letta import with_memory
from blocksd.client.reading_async import agent_named, agents_with, block_of_agent, blocks_with, resolve, resolve_all
from blocksd.client.transport_async import AsyncTransport
from blocksd.client.versions_async import AsyncPropertiesUndo
from blocksd.errors import NotFound
from blocksd.mirror.view import AgentView, BlockView, Page
from blocksd.model.label import parse_agent
from blocksd.model.properties import PROPERTIES
from blocksd.model.revision import OPERATOR
from blocksd.protocol import listing
from blocksd.protocol.fields import FIELDS, TERMS, UNCHANGED, AgentBlock, Unchanged, given
from blocksd.protocol.listing import Order, Span
from blocksd.protocol.wire import TIMEOUT_SECONDS, OnConflict, block_of

_NAMES = uuid.UUID("0b2f4c1e-6a53-5d0e-9d3a-7c1f0e5b8a42")
"""The namespace of the names that are made up for agents."""


class AsyncAgentBlocks:
    """The blocks attached to an agent."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def list(
        self,
        agent_id: str,
        *,
        limit: int | None = None,
        before: str | None = None,
        after: str | None = None,
        order: Order = "asc",
    ) -> Page[BlockView]:
        """The blocks attached to an agent, by the names it has for them; the cursors are such names.

        Hidden blocks and templates are attached like any other, and listed.

        Raises:
            NotFound: no such agent is known.
        """
        span = Span.of(after=after, before=before, order=order, limit=limit)
        agent = await agent_named(self._transport, agent_id)
        page = span.page(span.between(agent.blocks), str)
        blocks = await blocks_with(self._transport, [agent.blocks[name] for name in page.items])
        return Page(tuple(blocks), page.next)

    async def retrieve(self, agent_id: str, block_label: str) -> BlockView:
        """The block an agent knows by this name (or by this label or id): one round trip.

        Raises:
            NotFound: the agent is not known, or no such block is attached to it. Facts: `agent`, `names` it has.
            Damaged: the block is attached to it, and the mirror does not show it.
        """
        return await block_of_agent(self._transport, agent_id, block_label)

    async def attach(
        self,
        agent_id: str,
        block_id: str,
        *,
        expect_version: int | None = None,
        on_conflict: OnConflict | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        request_id: str | None = None,
    ) -> AgentView:
        """Attach a block to an agent.

        Raises:
            NotFound: there is no such block, or the agent is not known. `blocks.attach` makes agents known, too.
            LabelConflict: the agent has another block of this name.
        """
        terms = given(locals(), TERMS)
        await agent_named(self._transport, agent_id)
        return await self._change("attach", agent_id, block_id, terms)

    async def detach(
        self,
        agent_id: str,
        block_id: str,
        *,
        expect_version: int | None = None,
        on_conflict: OnConflict | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        request_id: str | None = None,
    ) -> AgentView:
        """Detach a block from an agent; the block stays. Raises NotAttached when it is not attached to it."""
        return await self._change("detach", agent_id, block_id, given(locals(), TERMS))

    async def _change(self, op: str, agent_id: str, block_id: str, terms: Mapping[str, Any]) -> AgentView:
        label = await resolve(self._transport, block_id)
        await self._transport.request(OPERATOR, op, {"agents": [agent_id]}, label=label, **terms)
        (agent,) = await agents_with(self._transport, [parse_agent(agent_id)])
        return agent

    async def update(
        self,
        agent_id: str,
        block_label: str,
        *,
        value: str | Unchanged | None = UNCHANGED,
        description: str | Unchanged | None = UNCHANGED,
        limit: int | Unchanged | None = UNCHANGED,
        read_only: bool | Unchanged | None = UNCHANGED,
        hidden: bool | Unchanged | None = UNCHANGED,
        tags: Collection[str] | Unchanged | None = UNCHANGED,
        metadata: Mapping[str, Any] | Unchanged | None = UNCHANGED,
        agents: Collection[str] | Unchanged | None = UNCHANGED,
        project_id: str | Unchanged | None = UNCHANGED,
        is_template: bool | Unchanged | None = UNCHANGED,
        template_name: str | Unchanged | None = UNCHANGED,
        template_id: str | Unchanged | None = UNCHANGED,
        base_template_id: str | Unchanged | None = UNCHANGED,
        deployment_id: str | Unchanged | None = UNCHANGED,
        entity_id: str | Unchanged | None = UNCHANGED,
        preserve_on_migration: bool | Unchanged | None = UNCHANGED,
        expect_version: int | None = None,
        on_conflict: OnConflict | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        request_id: str | None = None,
    ) -> BlockView:
        """Change fields of the block an agent knows by this name; a shared block changes for everyone it is attached to.

        The arguments and errors are those of `blocks.update`.
        """
        fields, terms = given(locals(), FIELDS), given(locals(), TERMS)
        block = await block_of_agent(self._transport, agent_id, block_label)
        return block_of(await self._transport.request(OPERATOR, "update", fields, label=block.label, **terms))

    modify = update


class AsyncBlockAgents:
    """The agents attached to a block."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def list(
        self,
        block_id: str,
        *,
        limit: int | None = None,
        before: str | None = None,
        after: str | None = None,
        order: Order = "asc",
    ) -> Page[AgentView]:
        """The agents attached to a block, by id; the cursors are ids of agents.

        Raises:
            NotFound: there is no such block.
        """
        span = _span_of_agents(after, before, order, limit)
        attached: list[str] = list(await self._ask("SMEMBERS", block_id))
        page = span.page(span.between(attached), str)
        return Page(tuple(await agents_with(self._transport, page.items)), page.next)

    async def ids(self, block_id: str) -> tuple[str, ...]:
        """The ids of the agents attached to a block, in order. Raises NotFound when there is no such block."""
        return tuple(sorted(await self._ask("SMEMBERS", block_id)))

    async def count(self, block_id: str) -> int:
        """How many agents are attached to a block."""
        return int(await self._ask("SCARD", block_id))

    async def _ask(self, word: str, block_id: str) -> Any:
        keys, label = self._transport.keys, await resolve(self._transport, block_id)
        answer, score = await self._transport.read((word, keys.attached(label)), ("ZSCORE", keys.labels, label))
        if score is None:
            raise NotFound(f"there is no block {label!r}", label=label)
        return answer

    async def counts(self, labels: Sequence[str]) -> dict[str, int]:
        """How many agents are attached to each of these blocks, by label; 0 for one that is not there."""
        counts: dict[str, int] = {}
        for some in listing.parts(labels, listing.PAGE):
            replies = await self._transport.read(*(("SCARD", self._transport.keys.attached(label)) for label in some))
            counts.update(zip(some, replies, strict=True))
        return counts


class AsyncAgents(AsyncPropertiesUndo):
    """All known agents."""

    @property
    def blocks(self) -> AsyncAgentBlocks:
        """The blocks attached to an agent."""
        return AsyncAgentBlocks(self._transport)

    @property
    def files(self) -> AsyncAgentFiles:
        """The files that an agent sees beside its blocks."""
        return AsyncAgentFiles(self._transport)

    async def list(
        self,
        *,
        limit: int | None = None,
        before: str | None = None,
        after: str | None = None,
        order: Order = "asc",
    ) -> Page[AgentView]:
        """The known agents, by id; the cursors are ids."""
        span = _span_of_agents(after, before, order, limit)
        agents: list[str] = []
        while not span.is_done and (limit is None or len(agents) <= limit):
            size = listing.NAMES if limit is None else limit + 1 - len(agents)
            (found,) = await self._transport.read(span.command(self._transport.keys.agents, size))
            agents += span.take(found, size)
        page = span.page(agents, str)
        return Page(tuple(await agents_with(self._transport, page.items)), page.next)

    async def count(self) -> int:
        """How many agents are known."""
        (count,) = await self._transport.read(("ZCARD", self._transport.keys.agents))
        return int(count)

    async def retrieve(self, agent_id: str) -> AgentView:
        """One agent, with what it is attached to.

        Raises:
            NotFound: no such agent is known.
            InvalidLabel: it cannot be the id of one.
        """
        return with_memory(await agent_named(self._transport, agent_id), self._transport)

    async def create(
        self,
        *,
        name: str | None = None,
        description: str | None = None,
        agent_type: str | None = None,
        system: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        memory_blocks: Collection[AgentBlock] | None = None,
        block_ids: Collection[str] = (),
        tags: Collection[str] | None = None,
        model: str | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        request_id: str | None = None,
    ) -> AgentView:
        """Make an agent with private blocks, attached to shared ones: all of it, or nothing.

        `name` is its id; None makes one up. Without `memory_blocks` it has an empty `persona` and `human`; `tags` are put
        on its own blocks that have none given. `description`, `agent_type`, `system` and `metadata` are properties of the
        agent, as `update` has them. `model` is accepted for programs that give it, and not kept: blocksd runs no
        models.

        Raises:
            AlreadyExists: there is such an agent.
            NotFound: one of `block_ids` is no block.
            LabelConflict: two of its blocks would have one name.
        """
        # A request that is repeated under its id is the same one: with the same name.
        made_up = uuid.uuid4() if request_id is None else uuid.uuid5(_NAMES, request_id)
        agent = parse_agent(name) if name is not None else f"agent-{made_up.hex[:8]}"
        labels = await resolve_all(self._transport, list(block_ids))
        args: dict[str, Any] = {"agent": agent, "attach": labels, "tags": tags}
        said = {"description": description, "agent_type": agent_type, "system": system, "metadata": metadata}
        args["properties"] = {key: value for key, value in said.items() if value is not None} or None
        if memory_blocks is not None:
            args["blocks"] = [given(one, one) for one in memory_blocks]
        terms = {"timeout_seconds": timeout_seconds, "request_id": request_id}
        reply = await self._transport.request(OPERATOR, "create_agent", args, **terms)
        (made,) = await agents_with(self._transport, [reply["agent"]])
        return with_memory(made, self._transport)

    async def update(
        self,
        agent_id: str,
        *,
        name: str | Unchanged | None = UNCHANGED,
        description: str | Unchanged | None = UNCHANGED,
        agent_type: str | Unchanged | None = UNCHANGED,
        system: str | Unchanged | None = UNCHANGED,
        tags: Collection[str] | Unchanged | None = UNCHANGED,
        metadata: Mapping[str, Any] | Unchanged | None = UNCHANGED,
        timeout_seconds: float = TIMEOUT_SECONDS,
        request_id: str | None = None,
    ) -> AgentView:
        """Change properties of an agent, which its `agent.yaml` says; the others stay. None stands for no such property.

        An agent without a `name` is called by its id. `agent_type` decides the style in which `memory.compile` shows blocks.

        Raises:
            NotFound: no such agent is known.
            InvalidField: a property cannot be so.
            ProblemFile: the file has a problem.
        """
        properties = given(locals(), PROPERTIES)
        terms = {"timeout_seconds": timeout_seconds, "request_id": request_id}
        args = {"agent": parse_agent(agent_id), **properties}
        reply = await self._transport.request(OPERATOR, "update_agent", args, **terms)
        return with_memory(await agent_named(self._transport, reply["agent"]), self._transport)

    modify = update

    async def delete(
        self, agent_id: str, *, timeout_seconds: float = TIMEOUT_SECONDS, request_id: str | None = None
    ) -> None:
        """Delete an agent with its private blocks, and detach it from the shared ones that name it."""
        terms = {"timeout_seconds": timeout_seconds, "request_id": request_id}
        await self._transport.request(OPERATOR, "delete_agent", {"agent": parse_agent(agent_id)}, **terms)


def _span_of_agents(after: str | None, before: str | None, order: Order, limit: int | None) -> Span:
    """The span between two agent ids. Raises InvalidLabel when a cursor is none."""
    after, before = (None if cursor is None else parse_agent(cursor) for cursor in (after, before))
    return Span.of(after=after, before=before, order=order, limit=limit)
