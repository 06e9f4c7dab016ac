"""Letta's listing of blocks: its conditions, its order, and its cursors, which are ids."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blocksd.client.reading_async import agent_named, blocks_with
from blocksd.errors import NotFound, Unavailable
from blocksd.http.letta.cursors import label_of, no_block, present, time_of_deleted
from blocksd.mirror.index import Entry
from blocksd.model.label import owner
from blocksd.model.revision import milliseconds
from blocksd.protocol.listing import FILTERS, Filter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from blocksd.http.arguments import Query
    from blocksd.http.call import Call
    from blocksd.mirror.view import BlockView
    from blocksd.protocol.listing import Order, OrderBy

MOST = 10_000
"""The most items of a page."""
MOST_CHARS = 16 * 1024 * 1024
"""How many characters of values a page has before it ends early; the SDKs ask for the next one all the same."""
_AT_ONCE = 100
_ATTEMPTS = 5


class Page:
    """The part of a listing that a query asks for."""

    def __init__(self, query: Query, *, limit: int, order: Order) -> None:
        """Take Letta's parameters. `limit` and `order` are the defaults. Raises InvalidField if one is wrong."""
        self.after = query.text("after")
        self.before = query.text("before")
        self.limit = query.number("limit", least=1, most=MOST) or limit
        if query.flag("ascending"):  # as Letta called it before there was `order`
            order = "asc"
        other: Order = "asc" if order == "desc" else "desc"
        self.order: Any = query.choice("order", order, other)
        self.is_backwards = self.before is not None and self.after is None
        """True if the page ends at its cursor: what is left out of it is at its beginning."""

    def of(self, items: Sequence[Any], key: Callable[[Any], str]) -> list[Any]:
        """Return the page of items that are in the order of their keys. A cursor is a key, of an item that may be gone."""
        return self.between(items, self.after, self.before, key=key)

    def between(self, items: Sequence[Any], after: Any, before: Any, *, key: Callable[[Any], Any]) -> list[Any]:
        """Return the same between two keys, which the cursors are of."""
        shown = sorted(items, key=key, reverse=self.order == "desc")
        if after is not None:
            shown = [one for one in shown if _follows(key(one), after, self.order)]
        if before is not None:
            shown = [one for one in shown if _follows(before, key(one), self.order)]
        return shown[-self.limit :] if self.is_backwards else shown[: self.limit]

    def shortened(self, items: Sequence[Any], size: Callable[[Any], int]) -> list[Any]:
        """Return as many items of the page as an answer may show by their sizes, at least one: those beside the cursor."""
        kept: list[Any] = []
        chars = 0
        for one in reversed(items) if self.is_backwards else items:
            chars += size(one)
            if kept and chars > MOST_CHARS:
                break
            kept.append(one)
        return kept[::-1] if self.is_backwards else kept


def _follows(key: Any, cursor: Any, order: Order) -> bool:
    return bool(key > cursor if order == "asc" else key < cursor)


def conditions(query: Query) -> dict[str, Any]:
    """Return the conditions of the client's listing for a query of Letta's."""
    return {
        "label": query.text("label"),
        "label_search": query.text("label_search") if query.text("label") is None else None,
        "description_search": query.text("description_search"),
        "value_search": query.text("value_search"),
        "tags": query.texts("tags", "tags[]"),
        "match_all_tags": query.flag("match_all_tags"),
        "connected_to_agents_count_gt": query.number("connected_to_agents_count_gt"),
        "connected_to_agents_count_lt": query.number("connected_to_agents_count_lt"),
        "connected_to_agents_count_eq": query.numbers("connected_to_agents_count_eq", "connected_to_agents_count_eq[]")
        or None,
        "templates_only": query.flag("templates_only"),
        "show_templates": True,
        "show_hidden_blocks": query.flag("show_hidden_blocks"),
    }


def is_of_identity(query: Query) -> bool:
    """Return True if blocks or agents of an identity are asked for: there are none."""
    return bool(query.texts("identity_id", "identity_id[]", "identifier_keys", "identifier_keys[]"))


def further_condition(query: Query) -> Callable[[BlockView], bool] | None:
    """Return the condition that the client's listing has not; None: there is none."""
    project, template = query.text("project_id"), query.text("name") or query.text("template_name")
    if project is None and template is None:
        return None
    return lambda block: project in (None, block.project_id) and template in (None, block.template_name)


async def blocks_for(call: Call) -> list[BlockView]:
    """Return the page of blocks that the query asks for, of those that the caller may see."""
    page = Page(call.query, limit=50, order="asc")
    field: Any = call.query.choice("order_by", "created_at", "updated_at", "label")
    wanted, wants = conditions(call.query), further_condition(call.query)
    if is_of_identity(call.query):
        return []
    if call.agent is not None:
        return page.shortened(await _page_of_caller(call, call.agent, page, field), _chars)
    walk: Order = page.order if not page.is_backwards else "desc" if page.order == "asc" else "asc"
    start, stop = (page.before, None) if page.is_backwards else (page.after, page.before)
    found: list[BlockView] = []
    chars = 0
    while len(found) < page.limit and chars <= MOST_CHARS:
        size = min(page.limit - len(found), _AT_ONCE) if wants is None else 5 * _AT_ONCE
        part = await blocks_between(call, wanted, start, stop, limit=size, order=walk, order_by=field)
        some = [block for block in part if wants is None or wants(block)]
        found += some
        chars += sum(block.chars for block in some)
        if len(part) < size:
            break
        start = part[-1].label
    found = found[: page.limit]
    return page.shortened(found[::-1] if page.is_backwards else found, _chars)


async def _page_of_caller(call: Call, agent: str, page: Page, field: OrderBy) -> list[BlockView]:
    """Return a page of the blocks of the agent that calls. To it, a cursor of a block that it cannot have is of none."""
    own = set((await agent_named(call.transport, agent)).blocks.values())

    async def place(cursor: str | None) -> tuple[int, str] | None:
        if cursor is None:
            return None
        label = await label_of(call.transport, cursor)
        for block in await blocks_with(call.transport, [label] if label in own else []):
            return _place(block, field)
        at = await time_of_deleted(call.transport, label, field) if owner(label) == agent else None
        if at is None:
            raise no_block(cursor)
        return (0 if field == "label" else at), label

    blocks = await blocks_of_caller(call, agent)
    return page.between(blocks, await place(page.after), await place(page.before), key=lambda one: _place(one, field))


async def blocks_between(
    call: Call,
    wanted: dict[str, Any],
    start: str | None,
    stop: str | None,
    *,
    order: Order,
    order_by: OrderBy,
    limit: int,
) -> tuple[BlockView, ...]:
    """Return the next blocks between two cursors, whose blocks may be deleted at any time."""
    for _ in range(_ATTEMPTS):
        try:
            page = await call.blocks.list(
                **wanted, after=start, before=stop, limit=limit, order=order, order_by=order_by
            )
        except NotFound:
            start = await present(call.transport, start, order_by, earlier=order == "asc")
            stop = await present(call.transport, stop, order_by, earlier=order == "desc")
        else:
            return page.items
    raise Unavailable("the blocks of the cursors are deleted faster than they can be looked for")


async def count_for(call: Call) -> int:
    """Return how many blocks there are for which the query's conditions hold, of those that the caller may see."""
    if is_of_identity(call.query):
        return 0
    if call.agent is not None:
        return len(await blocks_of_caller(call, call.agent))
    wanted, wants = conditions(call.query), further_condition(call.query)
    if wants is None:
        # Letta counts all blocks unless told otherwise.
        return await call.blocks.count(**wanted)
    count, after = 0, None
    while True:
        part = await call.blocks.list(**wanted, limit=5 * _AT_ONCE, after=after)
        count += sum(map(wants, part.items))
        if part.next is None:
            return count
        after = part.next


async def blocks_of_caller(call: Call, agent: str) -> list[BlockView]:
    """Return the blocks of the agent that calls for which the conditions of the query hold."""
    wanted, further = Filter({**dict.fromkeys(FILTERS), **conditions(call.query)}), further_condition(call.query)
    labels = list((await agent_named(call.transport, agent)).blocks.values())
    blocks = await blocks_with(call.transport, labels)
    counts = await call.blocks.agents.counts(labels) if wanted.ranges is not None else {}
    return [
        block
        for block in blocks
        if wanted.wants(block)
        and wanted.finds(_entry(block))
        and wanted.is_in_range(counts.get(block.label))
        and (further is None or further(block))
    ]


def _entry(block: BlockView) -> Entry:
    return Entry(block.label, block.hidden, block.is_template, frozenset(block.tags), block.label.casefold())


def _place(block: BlockView, field: OrderBy) -> tuple[int, str]:
    return (0 if field == "label" else milliseconds(getattr(block, field))), block.label


def _chars(block: BlockView) -> int:
    return block.chars
