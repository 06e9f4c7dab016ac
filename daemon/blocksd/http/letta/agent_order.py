"""The order in which Letta lists agents, which is by time; its cursors are ids of agents, which may be gone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from blocksd.errors import Damaged, NotFound, Unavailable
from blocksd.http.letta.cursors import beside, time_of_deleted
from blocksd.model.label import parse_agent, properties_label
from blocksd.model.revision import milliseconds
from blocksd.protocol.listing import NAMES, Walk
from blocksd.protocol.listing import parts as parts_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from blocksd.client.transport_async import AsyncTransport
    from blocksd.http.letta.listing import Page
    from blocksd.protocol.listing import Order

ORDERS = ("created_at", "updated_at", "last_run_completion")
"""Letta's orders. No agent runs here: by `last_run_completion` all are equal, and equal ones are in the order of `created_at`."""
_ATTEMPTS = 5


class Listed(NamedTuple):
    """The place of an agent in a list, in milliseconds since 1970; by it, equal times are in the order of ids."""

    ms: float
    agent: str


class Facts(NamedTuple):
    """The facts by which agents of a list are chosen and ordered."""

    name: str
    tags: tuple[str, ...]
    created_ms: float
    updated_ms: float


async def all_agents(transport: AsyncTransport) -> list[str]:
    """Return the ids of all agents."""
    (ids,) = await transport.read(("ZRANGE", transport.keys.agents, 0, -1))
    return list(ids)


async def facts_of(transport: AsyncTransport, agents: Iterable[str]) -> dict[str, Facts]:
    """Return the facts of these agents, without those that are not known."""
    keys, found = transport.keys, dict[str, Facts]()
    for some in parts_of(list(agents), NAMES):
        infos = (("HMGET", keys.agent_info(agent), "name", "tags", "updated_at") for agent in some)
        times, *replies = await transport.read(("ZMSCORE", keys.agents_created, *some), *infos)
        for agent, created, (name, tags, updated_at) in zip(some, times, replies, strict=True):
            if created is None:
                continue
            try:
                shown = tuple(json.loads(tags or "[]"))
            except (ValueError, TypeError):
                raise Damaged(f"the mirror does not show the tags of the agent {agent!r}") from None
            found[agent] = Facts(name or agent, shown, created, _changed_ms(agent, created, updated_at))
    return found


async def page_of(transport: AsyncTransport, agents: Collection[str], page: Page, order_by: str) -> list[str]:
    """Return a page of these agents."""
    if order_by == "updated_at":
        listed = [Listed(one.updated_ms, agent) for agent, one in (await facts_of(transport, agents)).items()]
    else:
        listed = []
        for some in parts_of(list(agents), NAMES):
            (times,) = await transport.read(("ZMSCORE", transport.keys.agents_created, *some))
            listed += [Listed(ms, agent) for agent, ms in zip(some, times, strict=True) if ms is not None]
    cursors = [None if one is None else await _place(transport, one, order_by) for one in (page.after, page.before)]
    return [one.agent for one in page.between(listed, *cursors, key=tuple)]


async def page_of_all(transport: AsyncTransport, page: Page) -> list[str]:
    """Return a page of all agents by `created_at`, without reading the others."""
    key = transport.keys.agents_created
    walked: Order = page.order if not page.is_backwards else "desc" if page.order == "asc" else "asc"
    start, stop = (page.before, None) if page.is_backwards else (page.after, page.before)
    for _ in range(_ATTEMPTS):
        start = await _present(transport, start, is_earlier=walked == "asc")
        stop = await _present(transport, stop, is_earlier=walked == "desc")
        if start is None and stop is not None:  # no agent is left before the list: a walk from `stop` would go back
            return await page_of(transport, await all_agents(transport), page, "created_at")
        walk = Walk(key, after=start, before=stop, order=walked)
        try:
            walk.begin(await transport.read(*walk.rank_commands()) if start or stop else [])
        except NotFound:  # it was deleted a moment ago
            continue
        found: list[str] | None = []
        while found is not None and not walk.is_done and len(found) < page.limit:
            size = min(NAMES, page.limit - len(found))
            (members,) = await transport.read(walk.command(size))
            more = walk.take(members, size)
            found = None if more is None else found + more
        if found is not None:
            return found[::-1] if page.is_backwards else found
    raise Unavailable("the agents change faster than they can be listed")


async def _present(transport: AsyncTransport, cursor: str | None, *, is_earlier: bool) -> str | None:
    """Return the agent by which a list goes on at a cursor: its own or, if it is gone, the one beside; None: there is none."""
    if cursor is None:
        return None
    place = await _place(transport, cursor, "created_at")
    key = transport.keys.agents_created
    (score,) = await transport.read(("ZSCORE", key, place.agent))
    return place.agent if score is not None else await beside(transport, key, *place, earlier=is_earlier)


async def _place(transport: AsyncTransport, cursor: str, order_by: str) -> Listed:
    """Return where an agent is listed, or was before it was deleted, within the hour. Raises NotFound if that is not known."""
    keys, agent = transport.keys, parse_agent(cursor)
    created, departed, updated_at = await transport.read(
        ("ZSCORE", keys.agents_created, agent),
        ("HGET", keys.departed, agent),
        ("HGET", keys.agent_info(agent), "updated_at"),
    )
    at = departed if created is None else created
    if at is None:
        raise NotFound(f"the cursor {cursor[:100]!r} is of no agent: list from the start", cursor=cursor)
    ms = _changed_ms(agent, at, updated_at if order_by == "updated_at" else None)
    if order_by == "updated_at" and created is None:
        ms = max(ms, await time_of_deleted(transport, properties_label(agent), "updated_at") or 0)
    return Listed(ms, agent)


def _changed_ms(agent: str, created: float | str, updated_at: str | None) -> float:
    """Return when an agent changed last: when its properties did, or when it was created."""
    try:
        return max(float(created), milliseconds(updated_at) if updated_at else 0)
    except ValueError:
        raise Damaged(f"the mirror does not show when the agent {agent!r} changed last") from None
