"""Finds blocks by what the mirror's index shows of them, so that only those found are sent."""

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from blocksd.client.reading_async import blocks_with
from blocksd.client.transport_async import AsyncTransport
from blocksd.errors import Damaged, Misconfigured, NotFound, Unavailable
from blocksd.mirror.index import TAGGED, Entry, bounds_of, entry_of
from blocksd.mirror.keys import SCHEMA
from blocksd.mirror.view import BlockView
from blocksd.protocol import listing
from blocksd.protocol.listing import SEPARATOR, Filter, OrderBy, Span, Walk
from blocksd.protocol.sight import no_mirror


async def labels_with(transport: AsyncTransport, wanted: Filter) -> list[str]:
    """The labels of the blocks for which the conditions hold that the index can answer, in no order.

    Raises:
        Unavailable: the mirror is being rebuilt, or a daemon of another version keeps it.
    """
    if wanted.ranges is not None and not wanted.is_of_members:
        unlisted = await _scanned(transport, [wanted.unlisted()])
        counts = transport.keys.counts
        found = await transport.read(*(("ZRANGE", counts, *bounds, "BYSCORE") for bounds in wanted.ranges))
        return [label for labels in found for label in labels if label not in unlisted]
    labels = [entry.label for entry in (await _scanned(transport, wanted.patterns())).values() if wanted.finds(entry)]
    return labels if wanted.ranges is None else await _of_ranges(transport, labels, wanted)


async def first_with(transport: AsyncTransport, wanted: Filter, span: Span, count: int) -> list[str] | None:
    """The first labels of a span, at least `count` of them or all; None: they are not found by reading a few members.

    A tag that many blocks have is found so without reading all that have it.
    """
    keys, size = transport.keys, max(2 * count, listing.PAGE)
    where, members = await transport.ask(("HMGET", keys.meta, "epoch", "schema"), span.index_command(keys.index, size))
    _check_layout(*where)
    entries = [entry for entry in map(entry_of, members) if entry is not None and wanted.finds(entry)]
    return [entry.label for entry in entries] if len(entries) >= count or len(members) < size else None


async def number_with(transport: AsyncTransport, wanted: Filter) -> int:
    """How many blocks there are for which the conditions hold; none of them needs the blocks. Raises as `labels_with`."""
    if not wanted.is_of_members:
        unlisted: Sequence[str] = list(await _scanned(transport, [wanted.unlisted()]))
        if wanted.ranges is None:
            numbers = await transport.read(("ZCARD", transport.keys.index))
        else:
            numbers = await transport.read(*(("ZCOUNT", transport.keys.counts, *bounds) for bounds in wanted.ranges))
            unlisted = await _of_ranges(transport, unlisted, wanted)
        return sum(map(int, numbers)) - len(unlisted)
    if transport.may_run_scripts:
        try:
            return await _counted(transport, wanted)
        except (Misconfigured, Damaged):  # no right to, or another server than Redis: else the reading fails alike
            transport.may_run_scripts = False
    return len(await labels_with(transport, wanted))


async def _counted(transport: AsyncTransport, wanted: Filter) -> int:
    """The same, counted by the server."""
    return sum(await _asked_by_parts(transport, "count.lua", wanted.question()))


async def _asked_by_parts(transport: AsyncTransport, name: str, question: str = "") -> list[Any]:
    """Return the answer of a script of the mirror about each part of the index."""
    keys, answers, start = transport.keys, list[Any](), "-"
    script = files("blocksd.mirror").joinpath(name).read_text(encoding="utf-8")
    while start:
        where, (answer, last) = await transport.ask(
            ("HMGET", keys.meta, "epoch", "schema"),
            ("EVAL_RO", script, 2, keys.index, keys.counts, question, start, listing.COUNTED),
        )
        _check_layout(*where)
        answers.append(answer)
        start = last and f"({last}"
    return answers


async def tags_in_use(transport: AsyncTransport) -> set[str]:
    """The tags of all blocks. Raises as `labels_with`."""
    if transport.may_run_scripts:
        try:
            return set().union(*await _asked_by_parts(transport, "tags.lua"))
        except (Misconfigured, Damaged):  # as above
            transport.may_run_scripts = False
    entries = await _scanned(transport, [TAGGED])
    return {tag for entry in entries.values() for tag in entry.tags}


async def times_with(transport: AsyncTransport, labels: Sequence[str], field: OrderBy) -> list[str]:
    """The times of these blocks, each with the label behind it, so that they sort by time; of those that are there."""
    key, times = transport.keys.times(field), list[str]()
    for some in listing.parts(labels, listing.NAMES):
        where, found = await transport.ask(("HMGET", transport.keys.meta, "epoch", "schema"), ("ZMSCORE", key, *some))
        _check_layout(*where)
        times += [
            f"{float(at):015.0f}{SEPARATOR}{label}" for label, at in zip(some, found, strict=True) if at is not None
        ]
    return times


async def timed(transport: AsyncTransport, label: str, field: OrderBy) -> str:
    """The same of one block. Raises NotFound when it is not there."""
    found = await times_with(transport, [label], field)
    if not found:
        raise NotFound(f"there is no block {label!r}", label=label)
    return found[0]


async def first_by_time(transport: AsyncTransport, wanted: Filter, walk: Walk, count: int) -> list[BlockView] | None:
    """The first blocks of a walk, at least `count` of them or all; None: they are not found by reading a few others.

    Raises:
        NotFound: a cursor is not there.
        Unavailable: as `labels_with`.
    """
    keys, found = transport.keys, list[BlockView]()
    where, *ranks = await transport.ask(("HMGET", keys.meta, "epoch", "schema"), *walk.rank_commands())
    _check_layout(*where)
    walk.begin(ranks)
    while not walk.is_done and len(found) < count:
        (labels,) = await transport.read(walk.command(count))
        if (some := walk.take(labels, count)) is None:
            return None
        blocks = await blocks_with(transport, await _of_index(transport, some, wanted))
        fitting = [block for block in blocks if wanted.wants(block)]
        found += fitting
        if len(found) < count and not walk.is_done and 4 * len(fitting) < len(some):
            return None
    return found


async def _of_index(transport: AsyncTransport, labels: Sequence[str], wanted: Filter) -> Sequence[str]:
    """Of these blocks, those for which the conditions hold that the index can answer."""
    if wanted.is_of_members:
        key = transport.keys.index
        members = await transport.read(*(("ZRANGEBYLEX", key, *bounds_of(label)) for label in labels))
        entries = [entry_of(member) for (member,) in filter(None, members)]
        labels = [entry.label for entry in entries if entry is not None and wanted.finds(entry)]
    return labels if wanted.ranges is None else await _of_ranges(transport, labels, wanted)


async def _scanned(transport: AsyncTransport, patterns: Sequence[str]) -> dict[str, Entry]:
    """The entries of the index that match one of these patterns, by label. "" is no pattern."""
    keys, found = transport.keys, dict[str, Entry]()
    cursors: dict[str, int] = dict.fromkeys(filter(None, patterns), 0)
    is_known = False
    while cursors or not is_known:
        where, *replies = await transport.ask(
            ("HMGET", keys.meta, "epoch", "schema"),
            *(("ZSCAN", keys.index, at, "MATCH", one, "COUNT", listing.SCANNED) for one, at in cursors.items()),
        )
        _check_layout(*where)
        is_known = True
        entries = [entry_of(member) for _, members in replies for member, _ in members]
        found.update((entry.label, entry) for entry in entries if entry is not None)
        cursors = {one: at for one, (at, _) in zip(cursors, replies, strict=True) if at}
    return found


def _check_layout(epoch: str | None, schema: str | None) -> None:
    if epoch is None:
        raise no_mirror()
    if schema != str(SCHEMA):
        raise Unavailable(
            f"the daemon keeps the mirror in layout {schema}, and this client reads {SCHEMA}: update both"
        )


async def _of_ranges(transport: AsyncTransport, labels: Sequence[str], wanted: Filter) -> list[str]:
    """Of these blocks, those with a wanted number of agents."""
    found: list[str] = []
    for some in listing.parts(labels, listing.PAGE):
        replies = await transport.read(*(("ZSCORE", transport.keys.counts, label) for label in some))
        found += [label for label, count in zip(some, replies, strict=True) if wanted.is_in_range(count)]
    return found
