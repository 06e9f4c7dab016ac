"""Letta's routes for blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blocksd.client.reading_async import agent_named, agents_with, resolve
from blocksd.errors import AlreadyExists, InvalidField
from blocksd.http.arguments import text_of
from blocksd.http.call import AGENTS, READS, WRITES, route
from blocksd.http.letta import descriptions
from blocksd.http.letta.agent_order import page_of
from blocksd.http.letta.agents import states_of
from blocksd.http.letta.listing import Page, blocks_for, count_for
from blocksd.http.letta.shapes import block_json
from blocksd.model.label import PRIVATE, name_for_agent, owner
from blocksd.protocol.fields import FIELDS
from blocksd.protocol.wire import block_of

if TYPE_CHECKING:
    from starlette.routing import Route

    from blocksd.http.call import Call, Gateway
    from blocksd.mirror.view import BlockView

_FIELDS = tuple(name for name in FIELDS if name != "agents")
"""The fields that Letta's block has, too; other keys of a body are ignored, as Letta does."""


def routes(gateway: Gateway) -> list[Route]:
    """Return the routes under `/v1/blocks`."""
    block = "/v1/blocks/{block_id}"
    return [
        route("/v1/blocks", "GET", list_blocks, gateway, READS + AGENTS, descriptions.LIST_BLOCKS),
        route("/v1/blocks", "POST", create, gateway, WRITES + AGENTS, descriptions.CREATE_BLOCK),
        route("/v1/blocks/count", "GET", count, gateway, READS + AGENTS, descriptions.COUNT_BLOCKS),
        route(block, "GET", retrieve, gateway, READS + AGENTS, descriptions.RETRIEVE_BLOCK),
        route(block, "PATCH", update, gateway, WRITES + AGENTS, descriptions.UPDATE_BLOCK),
        route(block, "DELETE", delete, gateway, WRITES + AGENTS, descriptions.DELETE_BLOCK),
        route(f"{block}/agents", "GET", list_agents, gateway, READS + AGENTS, descriptions.LIST_BLOCK_AGENTS),
    ]


async def list_blocks(call: Call) -> list[dict[str, Any]]:
    return [block_json(block) for block in await blocks_for(call)]


async def count(call: Call) -> int:
    return await count_for(call)


async def create(call: Call) -> dict[str, Any]:
    """Create a shared block; for an agent, a private one."""
    body = call.body()
    label = text_of(body, "label")
    if not label:
        raise InvalidField("a block needs a label", field="label")
    called = {"label": label} if call.agent is None else {"name": label}
    try:
        return block_json(block_of(await call.ask("create", fields_of(body), **called)))
    except AlreadyExists as error:
        known = error.facts.get("label")
        remedy = f"a label is one block: update {known!r} by PATCH, choose another label, or delete it first"
        raise AlreadyExists(f"{error.message}; {remedy}", **error.facts) from None


async def retrieve(call: Call) -> dict[str, Any]:
    return block_json(await call.block(call.path("block_id")))


async def update(call: Call) -> dict[str, Any]:
    block_id = call.path("block_id")
    if call.agent is not None:
        return block_json(await changed(call, (await call.block(block_id)).label))
    body = call.body()
    if text_of(body, "label") is None and (fields := fields_of(body)):  # most are so
        return block_json(block_of(await call.change("update", block_id, fields)))
    return block_json(await changed(call, await resolve(call.transport, block_id)))


async def delete(call: Call) -> None:
    """Delete a block for all agents; an agent may delete its private blocks."""
    block_id = call.path("block_id")
    if call.agent is None:
        await call.change("delete", block_id)
    else:
        await call.ask("delete", name=(await call.block(block_id)).name)


async def list_agents(call: Call) -> list[dict[str, Any]]:
    """List the agents that have a block, the newest first unless told otherwise; to an agent, itself alone."""
    page = Page(call.query, limit=50, order="desc")
    order_by = call.query.choice("order_by", "created_at")
    block_id = call.path("block_id")
    if call.agent is not None:
        await call.block(block_id)
        ids = page.of([call.agent], str)
        return await states_of(call, [await agent_named(call.transport, agent) for agent in ids], page)
    ids = await page_of(call.transport, await call.blocks.agents.ids(block_id), page, order_by)
    return await states_of(call, await agents_with(call.transport, ids), page)


def fields_of(body: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a block in a body. A field that is null was left out before."""
    fields = {name: body[name] for name in _FIELDS if name in body}
    if "name" in body and "template_name" not in fields:  # as Letta called it in 2025
        fields["template_name"] = body["name"]
    return fields


async def changed(call: Call, label: str) -> BlockView:
    """Change a block as the body says: its fields, its label, or both in one step. Nothing to change is no change."""
    body = call.body()
    fields, to = fields_of(body), _renamed(label, text_of(body, "label"), is_agent=call.agent is not None)
    called = {"label": label} if call.agent is None else {"name": name_for_agent(label)}
    edits: list[tuple[str, dict[str, Any]]] = []
    if fields:
        edits.append(("update", fields))
    if to is not None:
        edits.append(("rename", {"to": to}))
    if not edits:
        return await call.block(label)
    if len(edits) == 1:
        op, args = edits[0]
        return block_of(await call.ask(op, args, **called))
    parts = [{"op": op, "args": args, **called} for op, args in edits]
    reply = await call.ask("batch", {"requests": parts})
    last = reply["results"][-1]
    return block_of(last) if "block" in last else await call.block(last["label"])


def _renamed(label: str, to: str | None, *, is_agent: bool) -> str | None:
    """Return the new label for the daemon; None: it stays. A private block keeps its agent, and may be named as that does."""
    if to is None or to in (label, name_for_agent(label)):
        return None
    agent = owner(label)
    return to if is_agent or agent is None or to.startswith(f"{PRIVATE}/") else f"{PRIVATE}/{agent}/{to}"
