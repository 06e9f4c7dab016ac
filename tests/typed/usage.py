"""How programs use the client, for the type checker alone: this is checked, and never run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, assert_type

import blocksd
from blocksd import (
    AgentView,
    AsyncClient,
    AsyncMemory,
    AsyncTools,
    AsyncWatch,
    BlockView,
    Change,
    Client,
    Item,
    Memory,
    Page,
    Reset,
    Style,
    ToolResult,
    Tools,
    ToolUsageRules,
    Watch,
)

if TYPE_CHECKING:
    from blocksd.protocol.listing import Order


def blocking(order: Order, seen: list[Item]) -> None:
    client = blocksd.connect()
    assert_type(client, Client)
    assert_type(blocksd.connect("redis://localhost", namespace="team"), Client)

    assert_type(client.blocks.list(), Page[BlockView])
    assert_type(
        client.blocks.list(
            label="human",
            label_search="hum",
            description_search="who",
            value_search="name",
            tags=["a"],
            match_all_tags=True,
            connected_to_agents_count_gt=1,
            connected_to_agents_count_lt=9,
            connected_to_agents_count_eq={2, 3},
            templates_only=False,
            show_hidden_blocks=True,
            limit=10,
            before="z",
            after="a",
            order=order,
        ),
        Page[BlockView],
    )
    assert_type(client.blocks.count(tags=("a",), connected_to_agents_count_eq=1), int)
    block = client.blocks.retrieve("notes")
    assert_type(block, BlockView)
    assert_type(client.blocks.retrieve(block_id=block.id), BlockView)
    assert_type(client.blocks.agents.list(block.id, limit=10, order="asc"), Page[AgentView])
    assert_type(client.blocks.agents.count(block.label), int)
    assert_type(client.blocks.agents.counts([block.label]), dict[str, int])
    assert_type(client.agents.list(limit=10, after="a"), Page[AgentView])
    assert_type(client.agents.count(), int)
    assert_type(client.agents.retrieve("ann"), AgentView)
    assert_type(client.agents.blocks.list(agent_id="ann"), Page[BlockView])
    assert_type(client.agents.blocks.retrieve(agent_id="ann", block_label="human"), BlockView)
    assert_type(client.meta(), dict[str, str])
    assert_type(client.is_kept(), bool)
    assert_type(client.counts(), dict[str, int])
    assert_type(client.problems(), list[dict[str, Any]])

    for item in client.watch(since=7):
        assert_type(item, Change | Reset)
        if isinstance(item, Reset):
            assert_type(item.blocks, Mapping[str, BlockView])
        else:
            assert_type(item.label, str | None)
    with client.watch(label="notes", callback=seen.append) as watch:
        assert_type(watch, Watch)

    with client.memory("ann") as memory:
        assert_type(memory, Memory)
        assert_type(memory.get_blocks(), list[BlockView])
        assert_type(memory.get_block("human"), BlockView)
        assert_type(memory.list_block_labels(), list[str])
        assert_type(memory.compile(), str)
        assert_type(memory.watch(since=seen[-1]), Watch)
    with client as same:
        assert_type(same, Client)


async def asyncio(order: Order, seen: list[Item]) -> None:
    client = blocksd.aconnect()
    assert_type(client, AsyncClient)

    assert_type(await client.blocks.list(label="human", limit=10, order=order), Page[BlockView])
    assert_type(await client.blocks.count(value_search="name"), int)
    block = await client.blocks.retrieve("notes")
    assert_type(block, BlockView)
    assert_type(await client.blocks.agents.list(block_id=block.id), Page[AgentView])
    assert_type(await client.blocks.agents.count(block.label), int)
    assert_type(await client.blocks.agents.counts([block.label]), dict[str, int])
    assert_type(await client.agents.list(before="z"), Page[AgentView])
    assert_type(await client.agents.count(), int)
    assert_type(await client.agents.retrieve("ann"), AgentView)
    assert_type(await client.agents.blocks.list("ann"), Page[BlockView])
    assert_type(await client.agents.blocks.retrieve("ann", "human"), BlockView)
    assert_type(await client.meta(), dict[str, str])
    assert_type(await client.is_kept(), bool)
    assert_type(await client.counts(), dict[str, int])
    assert_type(await client.problems(), list[dict[str, Any]])

    async with client.watch(agent="ann") as watch:
        assert_type(watch, AsyncWatch)
        async for item in watch:
            assert_type(item, Change | Reset)

    async def keep(item: Item) -> None:
        seen.append(item)

    assert_type(client.watch(callback=keep), AsyncWatch)
    assert_type(client.watch(callback=seen.append), AsyncWatch)

    async with client.memory("ann") as memory:
        assert_type(memory, AsyncMemory)
        assert_type(await memory.get_blocks(), list[BlockView])
        assert_type(await memory.get_block("human"), BlockView)
        assert_type(await memory.list_block_labels(), list[str])
        assert_type(await memory.compile(style="line-numbered"), str)
    async with client as same:
        assert_type(same, AsyncClient)


def writing(client: Client, memory: Memory) -> None:
    block = client.blocks.create(label="notes", value="one", limit=4000, tags={"a"}, metadata={"n": 1}, agents=["ann"])
    assert_type(block, BlockView)
    assert_type(client.blocks.update(block.id, value="two", description=None, expect_version=block.version), BlockView)
    assert_type(client.blocks.modify(block.id, read_only=True, on_conflict="merge"), BlockView)
    assert_type(client.blocks.append("notes", "x", timeout_seconds=5, request_id="one"), BlockView)
    assert_type(client.blocks.replace("notes", old_content="x", new_content="y"), BlockView)
    assert_type(client.blocks.insert("notes", "x", line=0), BlockView)
    assert_type(client.blocks.apply_patch("notes", patch="@@\n+x\n"), BlockView)
    assert_type(client.blocks.rename("notes", to="other"), BlockView)
    assert_type(client.blocks.attach("notes", "ann"), BlockView)
    assert_type(client.blocks.detach("notes", ["ann", "bob"]), BlockView)
    assert_type(client.blocks.undo("notes"), BlockView | None)
    assert_type(client.blocks.redo("notes"), BlockView | None)
    assert_type(client.blocks.restore("notes", 3), BlockView)
    assert_type(client.blocks.merge("notes"), BlockView)
    assert_type(client.blocks.merge("notes", version=3), BlockView)
    assert_type(client.blocks.update_many([{"block_id": "notes", "value": "x"}]), list[BlockView])
    assert_type(client.edit("notes", str.upper), BlockView)
    client.blocks.delete(block_id="notes")

    made = client.agents.create(memory_blocks=[{"label": "human", "limit": 5000}], block_ids=[block.id], model="any")
    assert_type(made, AgentView)
    assert_type(client.agents.create(name="ann"), AgentView)
    assert_type(client.agents.blocks.attach(agent_id="ann", block_id=block.id), AgentView)
    assert_type(client.agents.blocks.detach(agent_id="ann", block_id=block.id), AgentView)
    assert_type(client.agents.blocks.update(agent_id="ann", block_label="human", value="Bob"), BlockView)
    assert_type(client.agents.blocks.modify("ann", "human", value="Bob"), BlockView)
    client.agents.delete("ann")

    assert_type(memory.append("human", "x"), BlockView)
    assert_type(memory.replace("human", "x", "y", expect_version=2), BlockView)
    assert_type(memory.insert("human", "x", line=-1), BlockView)
    assert_type(memory.apply_patch("human", "@@\n+x\n"), BlockView)
    assert_type(memory.rethink("human", new_value="x"), BlockView)
    assert_type(memory.update_block_value(label="human", value="x"), BlockView)
    assert_type(memory.set_block("plan", "x", description="y"), BlockView)
    assert_type(memory.create_block("plan"), BlockView)
    assert_type(memory.rename_block("plan", to="done"), BlockView)
    memory.delete_block("done")
    memory.core_memory_append(label="human", content="x")
    memory.core_memory_replace(label="human", old_content="x", new_content="y")

    tools = memory.tools()
    assert_type(tools, Tools)
    assert_type(tools.definitions, list[dict[str, Any]])
    assert_type(tools.openai() + tools.openai_responses() + tools.anthropic(), list[dict[str, Any]])
    assert_type(tools.call("core_memory_append", '{"label": "human", "content": "x"}'), ToolResult)
    assert_type(tools.call("core_memory_append", {"label": "human", "content": "x"}).text, str)


async def writing_in_asyncio_code(client: AsyncClient, memory: AsyncMemory) -> None:
    assert_type(await client.blocks.create(label="notes"), BlockView)
    assert_type(await client.blocks.update("notes", value="two", on_conflict="overwrite"), BlockView)
    assert_type(await client.blocks.append("notes", "x"), BlockView)
    assert_type(await client.blocks.update_many([{"block_id": "notes", "limit": None}]), list[BlockView])
    assert_type(await client.edit("notes", str.upper), BlockView)
    await client.blocks.delete("notes")
    assert_type(await client.agents.create(), AgentView)
    assert_type(await client.agents.blocks.attach("ann", "notes"), AgentView)
    assert_type(await memory.append("human", "x"), BlockView)
    await memory.core_memory_append("human", "x")
    tools = memory.tools()
    assert_type(tools, AsyncTools)
    assert_type(await tools.call("core_memory_append", {"label": "human", "content": "x"}), ToolResult)


def results(block: BlockView, agent: AgentView, page: Page[BlockView], change: Change) -> None:
    assert_type(block.value, str)
    assert_type(block.description, str | None)
    assert_type(block.limit, int)
    assert_type(block.read_only, bool)
    assert_type(block.tags, tuple[str, ...])
    assert_type(block.metadata, dict[str, Any])
    assert_type(block.version, int)
    assert_type(agent.name, str)
    assert_type(len(page), int)
    assert_type(page[0], BlockView)
    assert_type(page[1:], tuple[BlockView, ...])
    assert_type([one.label for one in page], list[str])
    assert_type(page.next, str | None)
    assert_type(change.seq, int | None)
    assert_type(change.fields, tuple[str, ...])


def prompts(memory: Memory, style: Style, rules: ToolUsageRules) -> None:
    assert_type(memory.compile(style=style, tool_usage_rules=rules, sources=["docs"], max_files_open=5), str)


def mistakes(client: Client) -> None:
    """What must not pass: each line needs its `ignore`, or the checker says that it does not."""
    client.blocks.retrieve(7)  # type: ignore[arg-type]
    client.blocks.list(labels="human")  # type: ignore[call-arg]
    client.blocks.list(order="up")  # type: ignore[arg-type]
    client.agents.blocks.retrieve("ann")  # type: ignore[call-arg]
    client.blocks.create()  # type: ignore[call-arg]
    client.blocks.create(label="notes", limit="4000")  # type: ignore[arg-type]
    client.blocks.update("notes", valeu="x")  # type: ignore[call-arg]
    client.blocks.append("notes", "x", on_conflict="ask")  # type: ignore[arg-type]
    client.blocks.update_many([{"value": "x"}])  # type: ignore[typeddict-item]
    client.edit("notes", len)  # type: ignore[arg-type]
    client.memory("ann").core_memory_append("human", "x").upper()  # type: ignore[attr-defined, func-returns-value]
