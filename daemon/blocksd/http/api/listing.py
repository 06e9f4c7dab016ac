"""Our list of blocks: by part of a label, tags, or an agent, a page at a time."""

from __future__ import annotations

from json import loads
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from blocksd.client.reading_async import agent_named, blocks_with
from blocksd.errors import Damaged, InvalidField, NotFound
from blocksd.http.api.shapes import listed_block
from blocksd.http.description import FLAG, TEXT, About, keys, known, listed, one_of, or_null
from blocksd.http.letta.listing import blocks_between
from blocksd.mirror.index import Entry
from blocksd.protocol.listing import FILTERS, PAGE, Filter, Span, parts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blocksd.http.call import Call
    from blocksd.http.description import Schema
    from blocksd.mirror.view import BlockView

_LIMIT = 100
MOST = 1000
"""The most blocks of a page: they are read whole, though their texts are not shown."""

LIMITS: dict[str, Schema] = {"limit": {"type": "integer", "minimum": 1, "maximum": MOST}, "after": TEXT}
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
        "brief": FLAG,
        **LIMITS,
    },
    answer=keys(
        {"items": {"anyOf": [listed(known("ListedBlock")), listed(known("BriefBlock"))]}, "next": or_null(TEXT)}
    ),
)
_BRIEF = ("label", "version", "chars", "limit", "description", "read_only", "tags")


async def page_of(call: Call) -> dict[str, Any]:
    """Return the page of blocks that the query asks for, of those that the caller may see."""
    query = call.query
    if query.flag("brief"):
        return await _brief_page_of(call)
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


async def _brief_page_of(call: Call) -> dict[str, Any]:
    """Return a page of all blocks that the caller may see, by label, of which no text is read: with the brief facts of each."""
    query, keys, read = call.query, call.transport.keys, call.transport.read
    given = [name for name in LIST.query if query.text(name) and name not in ("brief", *LIMITS)]
    if given:
        raise InvalidField(f"brief lists all blocks, and goes without {given[0]}", field=given[0])
    limit = query.number("limit", least=1, most=MOST) or _LIMIT
    span = Span.of(after=query.text("after"), before=None, order="asc", limit=limit)
    if call.agent is None:
        (found,) = await read(span.command(keys.labels, limit + 1))
    else:
        found = span.between((await agent_named(call.transport, call.agent)).blocks.values())
    page = span.page(found, str)
    items = []
    for some in parts(page.items, PAGE):
        replies = await read(*(("HMGET", keys.block(label), *_BRIEF) for label in some))
        counts = await call.blocks.agents.counts(some) if call.agent is None else {}
        items += [
            {**_brief_block(label, fields), "shared_by": counts.get(label)}
            for label, fields in zip(some, replies, strict=True)
            if fields[0] == label
        ]
    return {"items": items, "next": page.next}


def _brief_block(label: str, fields: Sequence[str | None]) -> dict[str, Any]:
    """Return the brief facts of a block. Raises Damaged if they are none."""
    _, version, chars, most, description, read_only, tags = fields
    try:
        numbers = {"version": int(version or ""), "size": int(chars or ""), "limit": int(most or "")}
        return {
            "label": label,
            **numbers,
            "description": description,
            "read_only": read_only == "true",
            "tags": loads(tags or ""),
        }
    except ValueError:
        raise Damaged(f"the mirror shows an incomplete block {label!r}") from None


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
