"""Letta's routes for the memory of one agent: its blocks, its prompt, and the tools that change it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blocksd.client.memory_async import AsyncMemory
from blocksd.client.reading_async import agent_named, block_of_agent, blocks_with, look, resolve
from blocksd.errors import LabelConflict
from blocksd.http.answers import refusal
from blocksd.http.call import AGENTS, READS, WRITES, route
from blocksd.http.letta import descriptions
from blocksd.http.letta.agents import agent_for, agent_id_of, state_of
from blocksd.http.letta.blocks import changed
from blocksd.http.letta.listing import Page
from blocksd.http.letta.shapes import AGENT_TYPE, block_json, context_json, memory_json
from blocksd.mirror.view import number
from blocksd.model.label import owner
from blocksd.model.prompt import compile_prompt, order, style_of
from blocksd.protocol.listing import NAMES, parts
from blocksd.protocol.sight import files_in

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.routing import Route

    from blocksd.http.call import Call, Gateway
    from blocksd.protocol.sight import Sight


def routes(gateway: Gateway) -> list[Route]:
    """Return the routes below one agent."""
    agent = "/v1/agents/{agent_id}"
    blocks, one = f"{agent}/core-memory/blocks", "{block_label:path}"
    return [
        route(blocks, "GET", list_blocks, gateway, READS + AGENTS, descriptions.LIST_OWN_BLOCKS),
        route(f"{blocks}/attach/{{block_id:path}}", "PATCH", attach, gateway, WRITES, descriptions.ATTACH),
        route(f"{blocks}/detach/{{block_id:path}}", "PATCH", detach, gateway, WRITES, descriptions.DETACH),
        route(f"{blocks}/{one}", "GET", retrieve, gateway, READS + AGENTS, descriptions.RETRIEVE_OWN_BLOCK),
        route(f"{blocks}/{one}", "PATCH", update, gateway, WRITES + AGENTS, descriptions.UPDATE_OWN_BLOCK),
        route(f"{agent}/core-memory", "GET", core_memory, gateway, READS + AGENTS, descriptions.CORE_MEMORY),
        route(f"{agent}/core-memory/variables", "GET", variables, gateway, READS + AGENTS, descriptions.VARIABLES),
        route(f"{agent}/context", "GET", context, gateway, READS + AGENTS, descriptions.CONTEXT),
        route(f"{agent}/recompile", "POST", recompile, gateway, READS + AGENTS, descriptions.RECOMPILE),
        route(f"{agent}/tools/{{tool}}/run", "POST", run_tool, gateway, WRITES + AGENTS, descriptions.RUN_TOOL),
    ]


async def list_blocks(call: Call) -> list[dict[str, Any]]:
    """List the blocks of an agent, as Letta does: by id, the last one first. Texts are read of those alone that are shown."""
    page, agent, keys = Page(call.query, limit=100, order="desc"), await agent_for(call), call.transport.keys
    facts: list[tuple[str, int, str]] = []
    for labels in parts(list(agent.blocks.values()), NAMES):
        found = await call.transport.read(*(("HMGET", keys.block(label), "id", "chars") for label in labels))
        facts += [(one, number(chars or ""), label) for label, (one, chars) in zip(labels, found, strict=True) if one]
    shown = page.shortened(page.of(facts, lambda one: one[0]), lambda one: one[1])
    return [block_json(block) for block in await blocks_with(call.transport, [label for _, _, label in shown])]


async def retrieve(call: Call) -> dict[str, Any]:
    return block_json(await block_of_agent(call.transport, agent_id_of(call), call.path("block_label")))


async def update(call: Call) -> dict[str, Any]:
    block = await block_of_agent(call.transport, agent_id_of(call), call.path("block_label"))
    return block_json(await changed(call, block.label))


async def attach(call: Call) -> dict[str, Any]:
    """Attach a block to an agent; one that it has already stays."""
    agent, label = await agent_for(call), await resolve(call.transport, call.path("block_id"))
    if agent.blocks.get(label) != label and owner(label) != agent.id:
        try:
            await call.ask("attach", {"agents": [agent.id]}, label=label)
        except LabelConflict as error:
            remedy = "detach or rename that block first, or rename this one"
            raise LabelConflict(f"{error.message}; {remedy}", **error.facts) from None
    return await state_of(call, await agent_for(call))


async def detach(call: Call) -> dict[str, Any]:
    agent, label = await agent_for(call), await resolve(call.transport, call.path("block_id"))
    await call.ask("detach", {"agents": [agent.id]}, label=label)
    return await state_of(call, await agent_named(call.transport, agent.id))


async def core_memory(call: Call) -> dict[str, Any]:
    sight = await _sight(call)
    blocks = [block_json(block) for block in order(sight.blocks.values())]
    return memory_json(blocks, sight.agent_type or AGENT_TYPE, files_in(sight))


async def variables(call: Call) -> dict[str, Any]:
    """Return the variables of an agent's prompt: it has none."""
    await agent_for(call)
    return {"variables": {}}


async def context(call: Call) -> dict[str, Any]:
    return context_json(_compiled(await _sight(call)))


async def recompile(call: Call) -> str:
    """Return the prompt, which is always current; nothing is stored, so that each call is a dry run."""
    return _compiled(await _sight(call))


async def run_tool(call: Call) -> dict[str, Any] | Response:
    """Call a memory tool as the agent: what it may not do, it may not do here either."""
    tool, agent = call.path("tool"), await agent_for(call)
    memory = AsyncMemory(call.transport, agent.id, call.transport.opened)
    tools = memory.tools()
    known = [one["name"] for one in tools.definitions]
    if tool not in known:
        return refusal(404, f"blocksd has no tool {tool[:100]!r}; it has those for memory: {', '.join(known)}")
    result = await tools.call(tool, call.body().get("args") or {}, request_id=call.request_id)
    return {"status": "success" if result.ok else "error", "func_return": result.text, "stdout": [], "stderr": []}


async def _sight(call: Call) -> Sight:
    return await look(call.transport, agent_id_of(call))


def _compiled(sight: Sight) -> str:
    return compile_prompt(list(sight.blocks.values()), style=style_of(sight.agent_type), sources=sight.sources)
