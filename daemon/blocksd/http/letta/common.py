"""Letta's routes that are about no single resource: health, and tags."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

from blocksd.client.blocks_async import AsyncTags
from blocksd.client.reading_async import agent_named, blocks_with
from blocksd.http.call import AGENTS, READS, route
from blocksd.http.letta import descriptions
from blocksd.http.letta.agent_order import all_agents, facts_of
from blocksd.http.letta.listing import Page

if TYPE_CHECKING:
    from starlette.routing import Route

    from blocksd.http.call import Call, Gateway


def routes(gateway: Gateway) -> list[Route]:
    """Return the routes."""
    return [
        route("/v1/health", "GET", health, gateway, (), descriptions.HEALTH),
        route("/v1/ready", "GET", health, gateway, (), descriptions.HEALTH),
        route("/v1/tags", "GET", tags, gateway, READS + AGENTS, descriptions.TAGS),
    ]


async def health(call: Call) -> dict[str, str]:
    """Say that blocks can be read. Raises Unavailable if they cannot: then the answer is 503."""
    await call.transport.read(("EXISTS", call.transport.keys.lease))
    return {"version": version("blocksd"), "status": "ok"}


async def tags(call: Call) -> list[str]:
    """List the tags of all agents and blocks; to an agent, its own and those of the blocks that it has."""
    page, part = Page(call.query, limit=50, order="asc"), call.query.text("query_text") or call.query.text("name") or ""
    if call.agent is None:
        found = set((await AsyncTags(call.transport).list()).items)
        agents = await facts_of(call.transport, await all_agents(call.transport))
        found.update(tag for agent in agents.values() for tag in agent.tags)
    else:
        agent = await agent_named(call.transport, call.agent)
        blocks = await blocks_with(call.transport, list(agent.blocks.values()))
        found = {*agent.tags, *(tag for block in blocks for tag in block.tags)}
    return page.of([tag for tag in found if part.casefold() in tag.casefold()], str)
