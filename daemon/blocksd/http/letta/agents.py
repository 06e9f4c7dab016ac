"""Letta's routes for agents."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from blocksd.client.reading_async import agent_named, agents_with, blocks_with, resolve_all
from blocksd.errors import InvalidLabel, NotFound
from blocksd.http.arguments import list_of, text_of
from blocksd.http.call import AGENTS, READS, WRITES, route
from blocksd.http.letta.listing import MOST_CHARS, Page
from blocksd.http.letta.shapes import agent_json
from blocksd.model.label import MAX_AGENT_BYTES, RESERVED, owner
from blocksd.protocol.fields import FIELDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.routing import Route

    from blocksd.http.call import Call, Gateway
    from blocksd.mirror.view import AgentView

_AT_ONCE = 100
_NAMESAKES = 100
"""How many agents may have ids that are made of one name."""
_NOT_OF_IDS = re.compile(r"[^\w.-]+")


def routes(gateway: Gateway) -> list[Route]:
    """Return the routes under `/v1/agents` that are about a whole agent."""
    agent = "/v1/agents/{agent_id}"
    return [
        route("/v1/agents", "GET", list_agents, gateway, READS + AGENTS),
        route("/v1/agents", "POST", create, gateway, WRITES),
        route("/v1/agents/count", "GET", count, gateway, READS + AGENTS),
        route(agent, "GET", retrieve, gateway, READS + AGENTS),
        route(agent, "PATCH", update, gateway, WRITES),
        route(agent, "DELETE", delete, gateway, WRITES),
    ]


async def list_agents(call: Call) -> list[dict[str, Any]]:
    """List agents by id; to an agent, itself alone."""
    page, query = Page(call.query, limit=50, order="desc"), call.query
    name, part = query.text("name"), (query.text("query_text") or "").casefold()
    if _is_of_none(call):
        return []
    if call.agent is not None or name is not None:
        known = await _known(call, call.agent or name or "")
        shown = [one for one in known if name in (None, one.name) and part in one.name.casefold()]
        return await states_of(call, page.of(shown, lambda agent: agent.id))
    found: list[AgentView] = []
    after, before = page.after, page.before
    backwards = before is not None and after is None
    while len(found) < page.limit:
        size = 5 * _AT_ONCE if part else min(page.limit - len(found), _AT_ONCE)
        some = await call.agents.list(limit=size, after=after, before=before, order=page.order)
        wanted = [agent for agent in some.items if part in agent.name.casefold()]
        found = [*wanted, *found] if backwards else [*found, *wanted]
        if len(some.items) < size:
            break
        edge = some.items[0 if backwards else -1].id
        after, before = (after, edge) if backwards else (edge, before)
    return await states_of(call, found[-page.limit :] if backwards else found[: page.limit])


async def count(call: Call) -> int:
    return 1 if call.agent is not None else await call.agents.count()


async def retrieve(call: Call) -> dict[str, Any]:
    (state,) = await states_of(call, [await agent_for(call)])
    return state


async def create(call: Call) -> dict[str, Any]:
    """Create an agent with private blocks, attached to others: all of it, or nothing.

    Letta's agents may have equal names; an agent here is found by its name, so that the second one has another id.
    """
    body = call.body()
    blocks = [_own_block(one) for one in list_of(body, "memory_blocks", dict)]
    labels = await resolve_all(call.transport, list_of(body, "block_ids", str))
    agent = call.name(await _free_id(call, text_of(body, "name")))
    await call.ask("create_agent", {"agent": agent, "blocks": blocks, "attach": labels})
    (state,) = await states_of(call, await agents_with(call.transport, [agent]))
    return state


async def update(call: Call) -> dict[str, Any]:
    """Attach an agent to the blocks that the body names, and to no other shared ones."""
    body = call.body()
    agent = await agent_for(call)
    if "block_ids" in body:
        wanted = set(await resolve_all(call.transport, list_of(body, "block_ids", str)))
        has = {label for label in agent.blocks.values() if owner(label) is None}
        wanted = {label for label in wanted if owner(label) != agent.id}
        parts = [
            {"op": op, "label": label, "args": {"agents": [agent.id]}}
            for op, labels in (("attach", wanted - has), ("detach", has - wanted))
            for label in sorted(labels)
        ]
        if parts:
            await call.ask("batch", {"requests": parts})
    (state,) = await states_of(call, [await agent_for(call)])
    return state


async def delete(call: Call) -> dict[str, str]:
    agent = call.path("agent_id")
    await call.ask("delete_agent", {"agent": agent})
    return {"message": f"Agent id={agent} successfully deleted"}


def agent_id_of(call: Call) -> str:
    """Return the agent that the path names, whether it is known or not; to an agent, itself alone. Raises NotFound."""
    agent = call.path("agent_id")
    if call.agent not in (None, agent):
        raise NotFound(f"there is no agent {agent!r}", agent=agent)
    return agent


async def agent_for(call: Call) -> AgentView:
    """Return the agent that the path names. Raises NotFound if it is not known, or not for this caller."""
    return await agent_named(call.transport, agent_id_of(call))


async def states_of(call: Call, agents: Sequence[AgentView]) -> list[dict[str, Any]]:
    """Return agents with their blocks: as many as an answer may show, at least one."""
    states: list[dict[str, Any]] = []
    chars = 0
    for agent in agents:
        blocks = await blocks_with(call.transport, list(agent.blocks.values()))
        chars += 2 * sum(block.chars for block in blocks)
        if states and chars > MOST_CHARS:
            break
        states.append(agent_json(agent, blocks))
    return states


async def _free_id(call: Call, name: str | None) -> str:
    """Return an id for an agent of this name that no agent has; without a name, one that is made up."""
    if not name:
        return f"agent-{call.request_id.replace('-', '')[-12:]}"
    ids = [id_of(name, number) for number in range(1, _NAMESAKES + 1)]
    known = await call.transport.read(*(("ZSCORE", call.transport.keys.agents, one) for one in ids))
    return next((agent for agent, score in zip(ids, known, strict=True) if score is None), ids[0])


def id_of(name: str, number: int) -> str:
    """Return an id that is made of a name, for the `number`-th agent of that name."""
    text = _NOT_OF_IDS.sub("-", name).strip("-.") or "agent"
    text = f"agent-{text}" if text in RESERVED else text
    end = "" if number == 1 else f"-{number}"
    while len(text.encode()) + len(end) > MAX_AGENT_BYTES:
        text = text[:-1]
    return text + end


async def _known(call: Call, agent: str) -> list[AgentView]:
    try:
        return [await agent_named(call.transport, agent)]
    except (NotFound, InvalidLabel):
        return []


def _own_block(given: dict[str, Any]) -> dict[str, Any]:
    """Return a block of a new agent: callers may pass what they read, so that keys of no field are ignored."""
    return {name: given[name] for name in ("label", *FIELDS) if given.get(name) is not None and name != "agents"}


def _is_of_none(call: Call) -> bool:
    """Return True if a condition of the query is about what no agent here has."""
    query = call.query
    none = ("identity_id", "project_id", "template_id", "base_template_id")
    return any(map(query.text, none)) or bool(query.texts("identifier_keys", "identifier_keys[]", "tags", "tags[]"))
