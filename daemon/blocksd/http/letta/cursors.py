"""Cursors: the place of a block in a listing by time, also of one that was deleted meanwhile.

Letta's SDKs name the last block of a page by its id to ask for the next page. A program that deletes what it lists would
come to the end after one page, or begin again for ever, if a cursor were lost with its block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blocksd.client.reading_async import resolve
from blocksd.client.versions_async import AsyncVersions
from blocksd.errors import NotFound
from blocksd.model.block import block_id
from blocksd.model.revision import milliseconds
from blocksd.protocol.steps import parsed

if TYPE_CHECKING:
    from blocksd.client.transport_async import AsyncTransport
    from blocksd.protocol.listing import OrderBy

_ENTRIES = 1000
_VERSIONS = 1000


async def present(transport: AsyncTransport, cursor: str | None, field: OrderBy, *, earlier: bool) -> str | None:
    """Return a label by which a listing goes on at a cursor.

    That is the label of the cursor's block or, if the block is gone, of the block beside it, `earlier` or later; None: there
    is none on that side.

    Raises:
        NotFound: there never was such a block, or it was deleted so long ago that it is not known any more.
    """
    if cursor is None:
        return None
    label = await label_of(transport, cursor)
    if field == "label":
        return label
    key = transport.keys.times(field)
    (score,) = await transport.read(("ZSCORE", key, label))
    if score is not None:
        return label
    at = await time_of_deleted(transport, label, field)
    if at is None:
        raise no_block(cursor)
    return await beside(transport, key, at, label, earlier=earlier)


async def label_of(transport: AsyncTransport, cursor: str) -> str:
    """Return the label of the block that a cursor is of, or was. Raises NotFound if that is not known."""
    try:
        return await resolve(transport, cursor)
    except NotFound:
        label = await _label_of_deleted(transport, cursor)
    if label is None:
        raise no_block(cursor)
    return label


def no_block(cursor: str) -> NotFound:
    """Return the error for a cursor that is of no block."""
    return NotFound(f"the cursor {cursor[:100]!r} is of no block: list from the start", cursor=cursor)


async def beside(transport: AsyncTransport, key: str, at: float, name: str, *, earlier: bool) -> str | None:
    """Return the name next to this place in a sorted set of times, which sorts equal times by name."""
    far, *back = ("-inf", "REV") if earlier else ("+inf",)
    equal, beyond = await transport.read(
        ("ZRANGE", key, str(at), str(at), "BYSCORE"), ("ZRANGE", key, f"({at}", far, "BYSCORE", *back, "LIMIT", 0, 1)
    )
    if earlier:
        nearest = max((one for one in equal if one.encode() < name.encode()), key=str.encode, default=None)
    else:
        nearest = min((one for one in equal if one.encode() > name.encode()), key=str.encode, default=None)
    return nearest if nearest is not None else next(iter(beyond), None)


async def _label_of_deleted(transport: AsyncTransport, cursor: str) -> str | None:
    """Return the label of a deleted block, by the changes that are kept: its id is made of its label."""
    newest = "+"
    while True:
        (entries,) = await transport.read(("XREVRANGE", transport.keys.changes, newest, "-", "COUNT", _ENTRIES))
        for _, fields in entries:
            change = parsed((fields or {}).get("change"))
            label = None if change is None or change.kind != "deleted" else change.label
            if label is not None and block_id(label) == cursor:
                return label
        if len(entries) < _ENTRIES:
            return None
        newest = f"({entries[-1][0]}"


async def time_of_deleted(transport: AsyncTransport, label: str, field: OrderBy) -> int | None:
    """Return when a deleted block had been created, or changed last before its deletion; None: it is not known."""
    try:
        versions = await AsyncVersions(transport).list(label, limit=_VERSIONS)
    except NotFound:
        return None
    kept = [one for one in versions.items if one.kind != "deleted" and (field != "created_at" or one.kind == "created")]
    return milliseconds(kept[0].at) if kept else None
