"""Letta's routes for agents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blocksd.client.reading_async import agent_named, agents_with, blocks_with, resolve_all
from blocksd.errors import InvalidField, NotFound
from blocksd.http.arguments import check_case, list_of, text_of
from blocksd.http.call import AGENTS, READS, WRITES, route
from blocksd.http.letta import descriptions
from blocksd.http.letta.agent_order import ORDERS, all_agents, facts_of, page_of, page_of_all
from blocksd.http.letta.listing import MOST_CHARS, Page, is_of_identity
from blocksd.http.letta.shapes import agent_json
from blocksd.model.label import owner
from blocksd.model.properties import PROPERTIES
from blocksd.protocol.fields import FIELDS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from starlette.routing import Route

    from blocksd.http.arguments import Query
    from blocksd.http.call import Call, Gateway
    from blocksd.mirror.view import AgentView


def routes(gateway: Gateway) -> list[Route]:
    """Return the routes under `/v1/agents` that are about a whole agent."""
    agent = "/v1/agents/{agent_id}"
    return [
        route("/v1/agents", "GET", list_agents, gateway, READS + AGENTS, descriptions.LIST_AGENTS),
        route("/v1/agents", "POST", create, gateway, WRITES, descriptions.CREATE_AGENT),
        route("/v1/agents/count", "GET", count, gateway, READS + AGENTS, descriptions.COUNT_AGENTS),
        route(agent, "GET", retrieve, gateway, READS + AGENTS, descriptions.RETRIEVE_AGENT),
        route(agent, "PATCH", update, gateway, WRITES, descriptions.UPDATE_AGENT),
        route(agent, "DELETE", delete, gateway, WRITES, descriptions.DELETE_AGENT),
    ]


async def list_agents(call: Call) -> list[dict[str, Any]]:
    """List agents by time, the newest first unless told otherwise; to an agent, itself alone."""
    page = Page(call.query, limit=50, order="desc")
    order_by = call.query.choice("order_by" if call.query.text("order_by") else "sort_by", *ORDERS)
    wants = _condition(call.query)
    transport = call.transport
    if call.agent is not None:
        own = await agent_named(transport, call.agent)
        return await states_of(call, page.of([own] if wants is None or wants(own.name, own.tags) else [], _id), page)
    if wants is None and order_by != "updated_at":
        return await states_of(call, await agents_with(transport, await page_of_all(transport, page)), page)
    ids = await all_agents(transport)
    if wants is not None:
        ids = [agent for agent, one in (await facts_of(transport, ids)).items() if wants(one.name, one.tags)]
    return await states_of(call, await agents_with(transport, await page_of(transport, ids, page, order_by)), page)


async def count(call: Call) -> int:
    return 1 if call.agent is not None else await call.agents.count()


async def retrieve(call: Call) -> dict[str, Any]:
    return await state_of(call, await agent_for(call))


async def create(call: Call) -> dict[str, Any]:
    """Create an agent with private blocks, attached to others: all of it, or nothing.

    Letta's agents may have equal names. The daemon makes an id of the name that no other agent has.
    """
    body = call.body()
    blocks = [_own_block(one) for one in list_of(body, "memory_blocks", dict)]
    labels = await resolve_all(call.transport, list_of(body, "block_ids", str))
    args: dict[str, Any] = {"blocks": blocks, "attach": labels, "properties": _properties(body)}
    if not text_of(body, "name"):
        args["agent"] = f"agent-{call.request_id.replace('-', '')[-12:]}"
    reply = await call.ask("create_agent", args)
    return await state_of(call, await agent_named(call.transport, reply["agent"]))


async def update(call: Call) -> dict[str, Any]:
    """Change properties of an agent, and attach it to the blocks that the body names and to no other shared ones."""
    body = call.body()
    agent = await agent_for(call)
    properties = _properties(body, agent.id)
    parts: list[dict[str, Any]] = []
    if properties:
        parts.append({"op": "update_agent", "args": {"agent": agent.id, **properties}})
    if "block_ids" in body:
        wanted = set(await resolve_all(call.transport, list_of(body, "block_ids", str)))
        has = {label for label in agent.blocks.values() if owner(label) is None}
        wanted = {label for label in wanted if owner(label) != agent.id}
        parts += [
            {"op": op, "label": label, "args": {"agents": [agent.id]}}
            for op, labels in (("attach", wanted - has), ("detach", has - wanted))
            for label in sorted(labels)
        ]
    if parts:
        await call.ask("batch", {"requests": parts})
    return await state_of(call, await agent_for(call))


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


async def state_of(call: Call, agent: AgentView) -> dict[str, Any]:
    """Return an agent with its blocks."""
    return agent_json(agent, await blocks_with(call.transport, list(agent.blocks.values())))


async def states_of(call: Call, agents: Sequence[AgentView], page: Page) -> list[dict[str, Any]]:
    """Return the agents of a page with their blocks: as many as an answer may show, at least one, beside the cursor."""
    states: list[dict[str, Any]] = []
    chars = 0
    for agent in reversed(agents) if page.is_backwards else agents:
        state = await state_of(call, agent)
        chars += 2 * sum(len(block["value"]) for block in state["blocks"])
        if states and chars > MOST_CHARS:
            break
        states.append(state)
    return states[::-1] if page.is_backwards else states


def _properties(body: dict[str, Any], agent: str | None = None) -> dict[str, Any]:
    """Return the properties in a body; a name that is the agent's id is none."""
    found = {key: body[key] for key in PROPERTIES if key in body}
    return found | ({"name": None} if agent is not None and found.get("name") == agent else {})


def _own_block(given: dict[str, Any]) -> dict[str, Any]:
    """Return a block of a new agent: callers may pass what they read, so that keys of no field are ignored."""
    check_case(given, FIELDS)
    if not given.get("label"):
        raise InvalidField("each of memory_blocks needs a label", field="memory_blocks")
    return {name: given[name] for name in ("label", *FIELDS) if given.get(name) is not None and name != "agents"}


_OF_NONE = ("project_id", "template_id", "base_template_id", "created_by_id", "last_stop_reason")


def _condition(query: Query) -> Callable[[str, Collection[str]], bool] | None:
    """Return the condition that the name and the tags of an agent must fulfil; None: there is none.

    No agent belongs to an identity, a user, a project or a template, and none runs here.
    """
    if is_of_identity(query) or any(map(query.text, _OF_NONE)):
        return lambda _name, _tags: False
    exact, part = query.text("name"), (query.text("query_text") or "").casefold()
    tags = set(query.texts("tags", "tags[]"))
    if exact is None and not part and not tags:
        return None
    enough = len(tags) if query.flag("match_all_tags") else min(len(tags), 1)
    return lambda name, own: exact in (None, name) and part in name.casefold() and len(tags.intersection(own)) >= enough


def _id(agent: AgentView) -> str:
    return agent.id
