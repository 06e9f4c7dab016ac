"""An agent's writing to its memory."""

from collections.abc import Mapping
from typing import Any

from blocksd.client.transport_async import AsyncTransport
from blocksd.errors import AlreadyExists, NotAttached, NotFound
from blocksd.mirror.view import BlockView
from blocksd.model.label import parse_agent
from blocksd.protocol.fields import TERMS, given, text
from blocksd.protocol.numbers import whole
from blocksd.protocol.sight import Kept
from blocksd.protocol.watching import Watching
from blocksd.protocol.wire import TIMEOUT_SECONDS, OnConflict, block_of


class AsyncMemoryWrites:
    """The writing side of an agent's memory, under its own names for its blocks.

    An agent may change the value and the description of blocks attached to it that are not read-only; its private blocks
    it may also make, rename and delete. A refusal is raised: NotFound, NotAttached, ReadOnly, LimitExceeded,
    InvalidRequest (a ValueError) and the conflicts, each with its facts. `expect_version`, `on_conflict`,
    `timeout_seconds` and `request_id` are as for `blocks.append`.
    """

    def __init__(self, transport: AsyncTransport, agent_id: str) -> None:
        self._transport = transport
        self._agent = parse_agent(agent_id)
        self._begin_anew()

    def _begin_anew(self) -> None:
        """Keep nothing, and follow nothing."""
        self._watching = Watching(self._transport.keys, agent=self._agent)
        self._kept = Kept(self._watching, self._transport.written)

    @property
    def agent_id(self) -> str:
        """The agent's id."""
        return self._agent

    async def append(
        self,
        label: str,
        content: str,
        *,
        expect_version: int | None = None,
        on_conflict: OnConflict | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        request_id: str | None = None,
    ) -> BlockView:
        """Add `content` on a new line at the end of the value."""
        return await self._write("append", label, {"content": text(content)}, given(locals(), TERMS))

    async def replace(
        self,
        label: str,
        old_content: str,
        new_content: str,
        *,
        expect_version: int | None = None,
        on_conflict: OnConflict | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        request_id: str | None = None,
    ) -> BlockView:
        """Replace `old_content`, which must be in exactly one place of the value. Raises InvalidRequest when it is not."""
        return await self._write(
            "replace",
            label,
            {"old_content": text(old_content), "new_content": text(new_content)},
            given(locals(), TERMS),
        )

    async def insert(
        self,
        label: str,
        content: str,
        line: int = -1,
        *,
        expect_version: int | None = None,
        on_conflict: OnConflict | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        request_id: str | None = None,
    ) -> BlockView:
        """Put `content` after line `line` of the value: 0 is before the first, -1 after the last."""
        return await self._write(
            "insert", label, {"content": text(content), "line": whole("line", line, -1)}, given(locals(), TERMS)
        )

    async def apply_patch(
        self,
        label: str,
        patch: str,
        *,
        expect_version: int | None = None,
        on_conflict: OnConflict | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        request_id: str | None = None,
    ) -> BlockView:
        """Apply a unified diff to the value: all of it, or InvalidRequest."""
        return await self._write("patch", label, {"patch": text(patch)}, given(locals(), TERMS))

    async def rethink(
        self,
        label: str,
        new_value: str,
        *,
        expect_version: int | None = None,
        on_conflict: OnConflict | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        request_id: str | None = None,
    ) -> BlockView:
        """Replace the whole value."""
        return await self._write("update", label, {"value": text(new_value)}, given(locals(), TERMS))

    async def update_block_value(
        self,
        label: str,
        value: str,
        *,
        expect_version: int | None = None,
        on_conflict: OnConflict | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        request_id: str | None = None,
    ) -> BlockView:
        """Replace the whole value."""
        return await self._write("update", label, {"value": text(value)}, given(locals(), TERMS))

    async def update_block_description(
        self,
        label: str,
        description: str,
        *,
        expect_version: int | None = None,
        on_conflict: OnConflict | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        request_id: str | None = None,
    ) -> BlockView:
        """Replace the description, which tells the model what the block is for."""
        return await self._write("update", label, {"description": text(description)}, given(locals(), TERMS))

    async def create_block(
        self,
        label: str,
        value: str = "",
        description: str | None = None,
        *,
        expect_version: int | None = None,
        on_conflict: OnConflict | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        request_id: str | None = None,
    ) -> BlockView:
        """Make a private block. Raises AlreadyExists or LabelConflict when it has one of this name."""
        return await self._write(
            "create", label, {"value": text(value), "description": description}, given(locals(), TERMS)
        )

    async def rename_block(
        self,
        label: str,
        to: str,
        *,
        expect_version: int | None = None,
        on_conflict: OnConflict | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        request_id: str | None = None,
    ) -> BlockView:
        """Give a private block another name."""
        return await self._write("rename", label, {"to": to}, given(locals(), TERMS))

    async def delete_block(
        self,
        label: str,
        *,
        expect_version: int | None = None,
        on_conflict: OnConflict | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        request_id: str | None = None,
    ) -> None:
        """Delete a private block; its history is kept."""
        await self._request("delete", label, {}, given(locals(), TERMS))

    async def undo(
        self,
        label: str,
        *,
        expect_version: int | None = None,
        on_conflict: OnConflict | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        request_id: str | None = None,
    ) -> BlockView | None:
        """Undo the newest edit that is not undone yet, like `blocks.undo`; a private block that was deleted comes back.

        None: the block was not there before that edit. Raises InvalidRequest when there is nothing to undo.
        """
        reply = await self._request("undo", label, {}, given(locals(), TERMS))
        return None if reply.get("block") is None else block_of(reply)

    async def set_block(
        self, label: str, value: str, description: str | None = None, *, timeout_seconds: float = TIMEOUT_SECONDS
    ) -> BlockView:
        """Set the value of the block the agent knows by this name, or else make a private one.

        Without `description`, a block that is there keeps the one it has.
        """
        args = {"value": text(value)} | ({} if description is None else {"description": description})
        terms = {"timeout_seconds": timeout_seconds}
        try:
            return await self._write("update", label, args, terms)
        except (NotFound, NotAttached):
            try:
                return await self._write("create", label, args, terms)
            except AlreadyExists:  # made meanwhile
                return await self._write("update", label, args, terms)

    async def core_memory_append(self, label: str, content: str) -> None:
        """`append`, by the name it has in Letta."""
        await self.append(label, content)

    async def core_memory_replace(self, label: str, old_content: str, new_content: str) -> None:
        """`replace`, by the name it has in Letta."""
        await self.replace(label, old_content, new_content)

    async def _write(self, op: str, name: str, args: Mapping[str, Any], terms: Mapping[str, Any]) -> BlockView:
        return block_of(await self._request(op, name, args, terms))

    async def _request(
        self, op: str, name: str | None, args: Mapping[str, Any], terms: Mapping[str, Any]
    ) -> dict[str, Any]:
        return await self._transport.request(self._agent, op, args, name=name, **terms)
