"""What can be asked of the mirror: each query is a plan, and knows nothing of connections."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar, Unpack

from blocksd.client.plan import ask
from blocksd.errors import Damaged, InvalidField, NotFound
from blocksd.mirror.view import AgentView, BlockView, Page, shown_as
from blocksd.model.label import PRIVATE, name_for_agent, owner, parse_agent, parse_label

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from blocksd.client.plan import Command, Plan
    from blocksd.mirror.keys import Keys

Order = Literal["asc", "desc"]
T = TypeVar("T")

_PAGE = 512
_LABELS = 5000
_ID = re.compile(r"block-[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_ATTEMPTS = 5  # at reading what is changed while it is read


def resolve(keys: Keys, block: str) -> Plan[str]:
    """The label of a block named by its id or its label.

    Raises:
        InvalidLabel: it is neither.
        NotFound: no block has this id. (Whether one has this label is not asked.)
    """
    if _ID.fullmatch(block):
        (label,) = yield from ask(("HGET", keys.ids, block))
        if label is None:
            raise NotFound(f"there is no block with the id {block}", id=block)
        return str(label)
    return parse_label(block)


# --- blocks ---


def retrieve(keys: Keys, block_id: str) -> Plan[BlockView]:
    """One block, by its id or its label.

    Raises:
        NotFound: there is no such block.
        InvalidLabel: it is neither an id nor a label.
    """
    label = yield from resolve(keys, block_id)
    fields, score = yield from ask(("HGETALL", keys.block(label)), ("ZSCORE", keys.labels, label), together=True)
    block = shown_as(label, fields)
    if block is None and score is not None:
        raise Damaged(f"the mirror lists the block {label!r} and does not show it", label=label)
    if block is None:
        raise NotFound(f"there is no block {label!r}", label=label)
    return block


def blocks_with(keys: Keys, labels: Sequence[str]) -> Plan[list[BlockView]]:
    """The blocks of these labels, without those that are not there."""
    found = []
    for some in _parts(labels, _PAGE):
        replies = yield from ask(*(("HGETALL", keys.block(label)) for label in some))
        blocks = (shown_as(label, fields) for label, fields in zip(some, replies, strict=True))
        found += [block for block in blocks if block is not None]
    return found


class Filters(TypedDict, total=False):
    """Which blocks are wanted: those that every condition given holds for.

    The searches look for a part of the text, in capital or small letters alike.
    """

    label: str | None
    """This label; or what agents call blocks of their own: `human` finds each agent's `human` as well."""
    label_search: str | None
    description_search: str | None
    value_search: str | None
    tags: Collection[str]
    """Any of these tags; all of them with `match_all_tags`."""
    match_all_tags: bool
    connected_to_agents_count_gt: int | None
    """More agents than this are attached."""
    connected_to_agents_count_lt: int | None
    connected_to_agents_count_eq: int | Collection[int] | None
    templates_only: bool
    show_hidden_blocks: bool
    """Else hidden blocks are left out."""


def _tests(wanted: Filters) -> Iterator[Callable[[BlockView], bool]]:
    """What a block's own fields must be like."""
    if description := wanted.get("description_search"):
        yield lambda block: _holds(block.description or "", description)
    if value := wanted.get("value_search"):
        yield lambda block: _holds(block.value, value)
    if isinstance(wanted.get("tags"), str):
        raise InvalidField("tags must be a list of texts", field="tags")
    if tags := set(wanted.get("tags", ())):
        if wanted.get("match_all_tags"):
            yield lambda block: tags <= set(block.tags)
        else:
            yield lambda block: not tags.isdisjoint(block.tags)
    if wanted.get("templates_only"):
        yield lambda block: block.is_template
    if not wanted.get("show_hidden_blocks"):
        yield lambda block: not block.hidden


def _count_tests(wanted: Filters) -> Iterator[Callable[[int], bool]]:
    """What the number of agents attached must be like."""
    if (more := wanted.get("connected_to_agents_count_gt")) is not None:
        yield lambda count: count > more
    if (fewer := wanted.get("connected_to_agents_count_lt")) is not None:
        yield lambda count: count < fewer
    if (equal := wanted.get("connected_to_agents_count_eq")) is not None:
        yield (frozenset((equal,)) if isinstance(equal, int) else frozenset(equal)).__contains__


def _pick(keys: Keys, labels: Sequence[str], wanted: Filters) -> Plan[list[BlockView]]:
    """Of the blocks with these labels, those that are wanted."""
    if part := wanted.get("label_search"):
        labels = [label for label in labels if _holds(label, part)]
    tests, count_tests = list(_tests(wanted)), list(_count_tests(wanted))
    commands: list[Command] = [("HGETALL", keys.block(label)) for label in labels]
    if count_tests:
        commands += [("SCARD", keys.attached(label)) for label in labels]
    replies = yield from ask(*commands)
    counts = replies[len(labels) :] or [0] * len(labels)
    blocks = [
        shown_as(label, fields)
        for label, fields, count in zip(labels, replies, counts, strict=False)
        if all(test(count) for test in count_tests)
    ]
    return [block for block in blocks if block is not None and all(test(block) for test in tests)]


def _holds(text: str, part: str) -> bool:
    return part.casefold() in text.casefold()


def list_blocks(
    keys: Keys,
    *,
    limit: int | None = None,
    before: str | None = None,
    after: str | None = None,
    order: Order = "asc",
    **wanted: Unpack[Filters],
) -> Plan[Page[BlockView]]:
    """Blocks, by label: all there are, or those for which every condition given holds (see `Filters`).

    `limit` None gives all of them. `after` and `before` are labels (or ids) between which the page lies, in the order
    of the listing; with `before` alone, it ends there. A label serves as a cursor even when its block is gone.

    Raises:
        InvalidLabel: a cursor or `label` is none.
        NotFound: a cursor is the id of no block.
    """
    if after is not None:
        after = yield from resolve(keys, after)
    if before is not None:
        before = yield from resolve(keys, before)
    span = _Span.of(after=after, before=before, order=order, limit=limit)
    found: list[BlockView] = []
    size = _PAGE if limit is None else min(_PAGE, limit + 1)  # one more tells whether something follows
    while not span.is_done and (limit is None or len(found) <= limit):
        labels = yield from _labels(keys, wanted.get("label"), span, size)
        found += yield from _pick(keys, labels, wanted)
        size = _PAGE
    return span.page(found, lambda block: block.label)


def count_blocks(keys: Keys, **wanted: Unpack[Filters]) -> Plan[int]:
    """How many blocks `list` would give with these conditions."""
    span = _Span()
    count = 0
    while not span.is_done:
        labels = yield from _labels(keys, wanted.get("label"), span, _PAGE)
        found = yield from _pick(keys, labels, wanted)
        count += len(found)
    return count


def _labels(keys: Keys, exact: str | None, span: _Span, size: int) -> Plan[list[str]]:
    """The next labels of a listing: all of them, or those by which one block is known."""
    if exact is None:
        labels = yield from span.read(keys.labels, size)
        return labels
    exact = parse_label(exact)
    suffix, private = f"/{exact}", _Span(f"[{PRIVATE}/", f"({PRIVATE}0")  # '0' follows '/'
    found = [exact]
    while not private.is_done:
        labels = yield from private.read(keys.labels, _LABELS)
        found += [label for label in labels if label.endswith(suffix) and name_for_agent(label) == exact]
    span.is_done = True
    return span.between(found)


# --- agents ---


def list_agents(
    keys: Keys,
    *,
    limit: int | None = None,
    before: str | None = None,
    after: str | None = None,
    order: Order = "asc",
) -> Plan[Page[AgentView]]:
    """The known agents, by id; the cursors are ids."""
    span = _Span.of(after=_agent(after), before=_agent(before), order=order, limit=limit)
    agents: list[str] = []
    while not span.is_done and (limit is None or len(agents) <= limit):
        agents += yield from span.read(keys.agents, _LABELS if limit is None else limit + 1 - len(agents))
    page = span.page(agents, str)
    views = yield from _agents(keys, page.items)
    return Page(tuple(views), page.next)


def _agent(cursor: str | None) -> str | None:
    return None if cursor is None else parse_agent(cursor)


def count_agents(keys: Keys) -> Plan[int]:
    """How many agents are known."""
    (count,) = yield from ask(("ZCARD", keys.agents))
    return int(count)


def retrieve_agent(keys: Keys, agent_id: str) -> Plan[AgentView]:
    """One agent, with what it is attached to.

    Raises:
        NotFound: no such agent is known.
        InvalidLabel: it cannot be the id of one.
    """
    agent = parse_agent(agent_id)
    names, score = yield from ask(("HGETALL", keys.agent(agent)), ("ZSCORE", keys.agents, agent))
    if not names and score is None:
        raise _unknown_agent(agent)
    return AgentView(agent, names)


def _unknown_agent(agent: str) -> NotFound:
    return NotFound(f"there is no agent {agent!r}", agent=agent)


def _agents(keys: Keys, agents: Sequence[str]) -> Plan[list[AgentView]]:
    views = []
    for some in _parts(agents, _PAGE):
        replies = yield from ask(*(("HGETALL", keys.agent(agent)) for agent in some))
        views += [AgentView(agent, names) for agent, names in zip(some, replies, strict=True)]
    return views


def list_agents_of_block(
    keys: Keys,
    block_id: str,
    *,
    limit: int | None = None,
    before: str | None = None,
    after: str | None = None,
    order: Order = "asc",
) -> Plan[Page[AgentView]]:
    """The agents attached to a block, by id; the cursors are ids of agents.

    Raises:
        NotFound: there is no such block.
    """
    attached = yield from _attached(keys, block_id)
    span = _Span.of(after=_agent(after), before=_agent(before), order=order, limit=limit)
    page = span.page(span.between(attached), str)
    views = yield from _agents(keys, page.items)
    return Page(tuple(views), page.next)


def _attached(keys: Keys, block_id: str) -> Plan[list[str]]:
    label = yield from resolve(keys, block_id)
    attached, score = yield from ask(("SMEMBERS", keys.attached(label)), ("ZSCORE", keys.labels, label))
    if score is None:
        raise NotFound(f"there is no block {label!r}", label=label)
    return list(attached)


def count_agents_of_block(keys: Keys, block_id: str) -> Plan[int]:
    """How many agents are attached to a block."""
    label = yield from resolve(keys, block_id)
    count, score = yield from ask(("SCARD", keys.attached(label)), ("ZSCORE", keys.labels, label))
    if score is None:
        raise NotFound(f"there is no block {label!r}", label=label)
    return int(count)


def count_agents_by_block(keys: Keys, labels: Sequence[str]) -> Plan[dict[str, int]]:
    """How many agents are attached to each of these blocks, by label; 0 for one that is not there."""
    counts: dict[str, int] = {}
    for some in _parts(labels, _PAGE):
        replies = yield from ask(*(("SCARD", keys.attached(label)) for label in some))
        counts.update(zip(some, replies, strict=True))
    return counts


def list_blocks_of_agent(
    keys: Keys,
    agent_id: str,
    *,
    limit: int | None = None,
    before: str | None = None,
    after: str | None = None,
    order: Order = "asc",
) -> Plan[Page[BlockView]]:
    """The blocks attached to an agent, by the names it has for them; the cursors are such names.

    Hidden blocks and templates are attached like any other, and listed.

    Raises:
        NotFound: no such agent is known.
    """
    agent = yield from retrieve_agent(keys, agent_id)
    span = _Span.of(after=after, before=before, order=order, limit=limit)
    page = span.page(span.between(agent.blocks), str)
    blocks = yield from blocks_with(keys, [agent.blocks[name] for name in page.items])
    return Page(tuple(blocks), page.next)


def retrieve_block_of_agent(keys: Keys, agent_id: str, block_label: str) -> Plan[BlockView]:
    """The block an agent knows by this name (or by this label or id): one round trip.

    Raises:
        NotFound: the agent is not known, or no such block is attached to it. Facts: `agent`, `names` it has.
        Damaged: the block is attached to it, and the mirror does not show it.
    """
    agent = parse_agent(agent_id)
    label = yield from resolve(keys, block_label)
    name = name_for_agent(label) if owner(label) == agent else label
    # A name may be that of either block; a private label or an id means the one block, whoever has its name.
    is_name = name == label and not _ID.fullmatch(block_label)
    candidates = (f"{PRIVATE}/{agent}/{name}", name) if is_name else (label,)
    for _ in range(_ATTEMPTS):
        found, *hashes = yield from ask(
            ("HGET", keys.agent(agent), name), *(("HGETALL", keys.block(one)) for one in candidates)
        )
        if found not in candidates:
            break
        block = shown_as(found, hashes[candidates.index(found)])
        if block is not None:
            return block
    else:
        raise Damaged(f"the mirror does not show the block {found!r}, which agent {agent!r} has")
    names = (yield from retrieve_agent(keys, agent)).blocks
    raise not_attached(agent, block_label, names)


def not_attached(agent: str, name: str, names: Iterable[str]) -> NotFound:
    """The error for a name by which an agent knows no block."""
    known = sorted(names)
    shown = ", ".join(known[:10]) + (", …" if len(known) > 10 else "") if known else "none"
    return NotFound(f"agent {agent!r} has no block {name!r} (it has: {shown})", agent=agent, name=name, names=known)


# --- the mirror itself ---


def meta(keys: Keys) -> Plan[dict[str, str]]:
    """The daemon that keeps this mirror, and where the mirror stands; empty when there never was one."""
    (found,) = yield from ask(("HGETALL", keys.meta))
    return dict(found)


def is_kept(keys: Keys) -> Plan[bool]:
    """Whether a daemon is in charge of the mirror right now."""
    (found,) = yield from ask(("EXISTS", keys.lease))
    return bool(found)


def counts(keys: Keys) -> Plan[dict[str, int]]:
    """How many blocks, agents and problems there are."""
    replies = yield from ask(("ZCARD", keys.labels), ("ZCARD", keys.agents), ("HLEN", keys.problems))
    return dict(zip(("blocks", "agents", "problems"), replies, strict=True))


def problems(keys: Keys) -> Plan[list[dict[str, Any]]]:
    """What is wrong with files, by path: the JSON of each problem."""
    (found,) = yield from ask(("HGETALL", keys.problems))
    return [json.loads(found[subject]) for subject in sorted(found)]


# --- pages ---


class _Span:
    """The part of a sorted set that is still to be listed. Bounds are as ZRANGEBYLEX has them."""

    def __init__(self, low: str = "-", high: str = "+", *, is_reversed: bool = False) -> None:
        self._low = low
        self._high = high
        self._is_reversed = is_reversed
        self._limit: int | None = None
        self._is_last_part = False  # the page is the last one before a cursor, and is found walking backwards
        self.is_done = False

    @classmethod
    def of(cls, *, after: str | None, before: str | None, order: Order, limit: int | None) -> _Span:
        if order not in ("asc", "desc"):
            raise InvalidField(f"order must be 'asc' or 'desc', not {order!r}", field="order")
        if limit is not None and limit < 1:
            raise InvalidField(f"limit must be at least 1, not {limit}", field="limit")
        low, high = (after, before) if order == "asc" else (before, after)
        span = cls("-" if low is None else f"({low}", "+" if high is None else f"({high}")
        span._limit = limit
        span._is_last_part = before is not None and after is None and limit is not None
        span._is_reversed = (order == "desc") != span._is_last_part
        return span

    def read(self, key: str, count: int) -> Plan[list[str]]:
        """The next members of the set at `key`, at most `count`."""
        if self._is_reversed:
            (found,) = yield from ask(("ZREVRANGEBYLEX", key, self._high, self._low, "LIMIT", 0, count))
        else:
            (found,) = yield from ask(("ZRANGEBYLEX", key, self._low, self._high, "LIMIT", 0, count))
        self.is_done = len(found) < count
        if found:
            if self._is_reversed:
                self._high = f"({found[-1]}"
            else:
                self._low = f"({found[-1]}"
        return list(found)

    def between(self, names: Iterable[str]) -> list[str]:
        """Of these names, those in the span, in its order."""
        low, high = self._low[1:].encode(), self._high[1:].encode()
        inside = [
            (key, name)
            for name in names
            for key in (name.encode(),)
            if (not low or key > low) and (not high or key < high)
        ]
        return [name for _, name in sorted(inside, reverse=self._is_reversed)]

    def page(self, found: Sequence[T], name_of: Callable[[T], str]) -> Page[T]:
        """The page that `found` is, or begins with."""
        limit = len(found) if self._limit is None else self._limit
        items = tuple(found[:limit])
        follows = len(found) > limit
        if self._is_last_part:
            items, follows = items[::-1], bool(items)
        return Page(items, name_of(items[-1]) if follows else None)


def _parts(items: Sequence[T], size: int) -> Iterable[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))
