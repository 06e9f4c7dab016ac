"""Our list of blocks: by part of a label, tags, or an agent, a page at a time."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any

from blocksd.client.reading_async import agent_named, blocks_with
from blocksd.errors import NotFound
from blocksd.http.api.shapes import listed_block
from blocksd.http.description import FLAG, TEXT, About, keys, known, listed, one_of, or_null
from blocksd.http.letta.listing import blocks_between
from blocksd.mirror.index import Entry
from blocksd.protocol.listing import FILTERS, Filter

if TYPE_CHECKING:
    from blocksd.http.call import Call
    from blocksd.http.description import Schema
    from blocksd.mirror.view import BlockView

_LIMIT = 100
MOST = 1000
"""The most blocks of a page: they are read whole, though their texts are not shown."""

PAGE: dict[str, Schema] = {"limit": {"type": "integer", "minimum": 1, "maximum": MOST}, "after": TEXT}
LIST = About(
    "List blocks, hidden ones among them, without their texts.",
    query={
        "search": TEXT,
        "text": TEXT,
        "tag": TEXT,
        "agent": TEXT,
        "templates": FLAG,
        "order_by": one_of("label", "created_at", "updated_at"),
        "order": one_of("asc", "desc"),
        **PAGE,
    },
    answer=keys({"items": listed(known("ListedBlock")), "next": or_null(TEXT)}),
)


async def page_of(call: Call) -> dict[str, Any]:
    """Return the page of blocks that the query asks for, of those that the caller may see."""
    query = call.query
    limit = query.number("limit", least=1, most=MOST) or _LIMIT
    field: Any = query.choice("order_by", "label", "created_at", "updated_at")
    order: Any = query.choice("order", "asc", "desc")
    wanted = {
        "label_search": query.text("search"),
        "value_search": query.text("text"),
        "tags": query.texts("tag"),
        "match_all_tags": True,
        "show_templates": query.flag("templates"),
        "show_hidden_blocks": True,
    }
    agent, after = query.text("agent"), query.text("after")
    if call.agent is not None:
        if agent not in (None, call.agent):
            raise NotFound(f"there is no agent {agent!r}", agent=agent)
        agent = call.agent
    if agent is None:
        blocks = await blocks_between(call, wanted, after, None, limit=limit + 1, order=order, order_by=field)
    else:
        found = await _of_agent(call, agent, wanted)
        place = attrgetter("label") if field == "label" else attrgetter(field, "label")
        found.sort(key=place, reverse=order == "desc")
        labels = [block.label for block in found]
        if after is not None and after not in labels:
            raise NotFound(f"the cursor {after[:100]!r} is of no block: list from the start", cursor=after)
        start = 0 if after is None else labels.index(after) + 1
        blocks = tuple(found[start : start + limit + 1])
    items = blocks[:limit]
    counts = await call.blocks.agents.counts([block.label for block in items]) if call.agent is None else {}
    return {
        "items": [listed_block(block, counts.get(block.label)) for block in items],
        "next": items[-1].label if len(blocks) > limit else None,
    }


async def _of_agent(call: Call, agent: str, wanted: dict[str, Any]) -> list[BlockView]:
    """Return the blocks of an agent for which the conditions hold."""
    conditions = Filter({**dict.fromkeys(FILTERS), **wanted})
    blocks = await blocks_with(call.transport, list((await agent_named(call.transport, agent)).blocks.values()))
    return [
        block
        for block in blocks
        if conditions.wants(block)
        and conditions.finds(
            Entry(block.label, block.hidden, block.is_template, frozenset(block.tags), block.label.casefold())
        )
    ]
