"""Edits of one block, as an operator makes them."""

from collections.abc import Collection, Mapping
from typing import Any

from blocksd.client.reading_async import request_of
from blocksd.client.transport_async import AsyncTransport
from blocksd.mirror.view import BlockView
from blocksd.protocol.fields import TERMS, given, listed
from blocksd.protocol.numbers import whole
from blocksd.protocol.wire import TIMEOUT_SECONDS, OnConflict, block_of


class AsyncBlockEdits:
    """Edits of one block, named by its id or label. They raise what `update` does.

    `expect_version` is the version the block must have; `on_conflict` says what to do when it has another: `fail`
    (VersionConflict, the default), `overwrite`, or `merge` the edit with what was written since, which is a
    MergeConflict where both changed the same place. The reply is waited for `timeout_seconds`; what is not done by then is
    not done later either. A request made again with the same `request_id` is done once, and has the first outcome.
    """

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def append(
        self,
        block_id: str,
        content: str,
        *,
        expect_version: int | None = None,
        on_conflict: OnConflict | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        request_id: str | None = None,
    ) -> BlockView:
        """Add `content` on a new line at the end of the value, whatever the value is then."""
        return await self._edit("append", block_id, {"content": content}, given(locals(), TERMS))

    async def replace(
        self,
        block_id: str,
        old_content: str,
        new_content: str,
        *,
        expect_version: int | None = None,
        on_conflict: OnConflict | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        request_id: str | None = None,
    ) -> BlockView:
        """Replace `old_content`, which must be in exactly one place of the value. Raises InvalidRequest when it is not."""
        return await self._edit(
            "replace", block_id, {"old_content": old_content, "new_content": new_content}, given(locals(), TERMS)
        )

    async def insert(
        self,
        block_id: str,
        content: str,
        line: int = -1,
        *,
        expect_version: int | None = None,
        on_conflict: OnConflict | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        request_id: str | None = None,
    ) -> BlockView:
        """Put `content` after line `line` of the value: 0 is before the first, -1 after the last."""
        return await self._edit(
            "insert", block_id, {"content": content, "line": whole("line", line, -1)}, given(locals(), TERMS)
        )

    async def apply_patch(
        self,
        block_id: str,
        patch: str,
        *,
        expect_version: int | None = None,
        on_conflict: OnConflict | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        request_id: str | None = None,
    ) -> BlockView:
        """Apply a unified diff to the value: all of it, or InvalidRequest."""
        return await self._edit("patch", block_id, {"patch": patch}, given(locals(), TERMS))

    async def rename(
        self,
        block_id: str,
        to: str,
        *,
        expect_version: int | None = None,
        on_conflict: OnConflict | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        request_id: str | None = None,
    ) -> BlockView:
        """Give a block another label; its id, its history and who it is attached to stay."""
        return await self._edit("rename", block_id, {"to": to}, given(locals(), TERMS))

    async def attach(
        self,
        block_id: str,
        agents: str | Collection[str],
        *,
        expect_version: int | None = None,
        on_conflict: OnConflict | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        request_id: str | None = None,
    ) -> BlockView:
        """Attach a block to these agents. Raises LabelConflict when one of them has another block of this name."""
        return await self._edit("attach", block_id, {"agents": listed(agents)}, given(locals(), TERMS))

    async def detach(
        self,
        block_id: str,
        agents: str | Collection[str],
        *,
        expect_version: int | None = None,
        on_conflict: OnConflict | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        request_id: str | None = None,
    ) -> BlockView:
        """Detach a block from these agents. Raises NotAttached when one of them is not attached to it."""
        return await self._edit("detach", block_id, {"agents": listed(agents)}, given(locals(), TERMS))

    async def restore(
        self,
        block_id: str,
        version: int,
        *,
        expect_version: int | None = None,
        on_conflict: OnConflict | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        request_id: str | None = None,
    ) -> BlockView:
        """Make a block again what it was at a version. Raises NotFound when that is not kept."""
        return await self._edit("restore", block_id, {"version": whole("version", version, 1)}, given(locals(), TERMS))

    async def merge(
        self,
        block_id: str,
        version: int | None = None,
        *,
        expect_version: int | None = None,
        on_conflict: OnConflict | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        request_id: str | None = None,
    ) -> BlockView:
        """Merge text back into a block that a save took away: what a version brought, or all that the newest such save took.

        Raises MergeConflict when it was changed in another way since, InvalidRequest when there is nothing to merge.
        """
        args = {"version": whole("version", version, 1)} if version is not None else {}
        return await self._edit("merge", block_id, args, given(locals(), TERMS))

    async def undo(
        self,
        block_id: str,
        *,
        expect_version: int | None = None,
        on_conflict: OnConflict | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        request_id: str | None = None,
    ) -> BlockView | None:
        """Undo the newest edit that is not undone yet: a new version, with the text from before it.

        A block that was deleted is named by its label. None: it was deleted before it came again, and is deleted now.
        Raises InvalidRequest when there is nothing to undo.
        """
        reply = await self._request("undo", block_id, None, given(locals(), TERMS))
        return block_of(reply) if reply.get("block") is not None else None

    async def redo(
        self,
        block_id: str,
        *,
        expect_version: int | None = None,
        on_conflict: OnConflict | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        request_id: str | None = None,
    ) -> BlockView | None:
        """Redo the edit that was undone last. None: that was the deletion.

        Raises InvalidRequest when nothing was undone, or when an edit came since.
        """
        reply = await self._request("redo", block_id, None, given(locals(), TERMS))
        return block_of(reply) if reply.get("block") is not None else None

    async def delete(
        self,
        block_id: str,
        *,
        expect_version: int | None = None,
        on_conflict: OnConflict | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        request_id: str | None = None,
    ) -> None:
        """Delete a block and its file, for every agent; its history is kept."""
        await self._request("delete", block_id, None, given(locals(), TERMS))

    async def _edit(self, op: str, block_id: str, args: Mapping[str, Any], terms: Mapping[str, Any]) -> BlockView:
        return block_of(await self._request(op, block_id, args, terms))

    async def _request(
        self, op: str, block_id: str, args: Mapping[str, Any] | None, terms: Mapping[str, Any]
    ) -> dict[str, Any]:
        return await request_of(self._transport, op, block_id, args, **terms)
