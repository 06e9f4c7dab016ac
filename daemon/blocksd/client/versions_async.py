"""The versions of a block, which the daemon reads from its history."""

import builtins
from difflib import unified_diff

from blocksd.client.reading_async import resolve
from blocksd.client.transport_async import AsyncTransport
from blocksd.errors import NotFound
from blocksd.mirror.view import Page, VersionView
from blocksd.model.revision import OPERATOR
from blocksd.protocol.wire import TIMEOUT_SECONDS


class AsyncVersions:
    """The versions of a block, those before a renaming or a deletion among them. A deleted block is named by its label."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def list(
        self,
        block_id: str,
        *,
        limit: int = 50,
        after: str | int | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> Page[VersionView]:
        """The versions, newest first, without the blocks as they were; `after` is a version after which the page begins.

        A page has at most 1,000 versions, and fewer if they are large. Versions that are damaged are left out.

        Raises:
            NotFound: there is no such block, and never was.
        """
        label = await resolve(self._transport, block_id)
        args = {"limit": limit, "before": None if after is None else int(after)}
        reply = await self._transport.request(OPERATOR, "history", args, label=label, timeout_seconds=timeout_seconds)
        following = reply["next"]
        return Page(tuple(map(VersionView.of, reply["versions"])), None if following is None else str(following))

    async def retrieve(self, block_id: str, version: int, *, timeout_seconds: float = TIMEOUT_SECONDS) -> VersionView:
        """One version, with the block as it was.

        Raises:
            NotFound: it is not kept, is damaged, or never was.
        """
        label = await resolve(self._transport, block_id)
        args = {"version": version}
        reply = await self._transport.request(OPERATOR, "version", args, label=label, timeout_seconds=timeout_seconds)
        return VersionView.of(reply)

    async def diff(
        self,
        block_id: str,
        old: int | None = None,
        new: int | None = None,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> str:
        """A unified diff of the value between two versions: of the newest change, if none is given; to the newest, if one is.

        Version 0 stands for nothing, which was there before the first.

        Raises:
            NotFound: one of them is not kept, is damaged, or never was.
        """
        label = await resolve(self._transport, block_id)
        if new is None:
            newest = await self.list(label, limit=1, timeout_seconds=timeout_seconds)
            if not newest:
                raise NotFound(f"no version of {label!r} is kept", label=label)
            new = newest[0].version
        old = new - 1 if old is None else old
        before, after = [await self._lines(label, number, timeout_seconds=timeout_seconds) for number in (old, new)]
        lines = unified_diff(before, after, f"{label} v{old}", f"{label} v{new}", lineterm="")
        return "".join(f"{line}\n" for line in lines)

    async def _lines(self, label: str, number: int, *, timeout_seconds: float) -> builtins.list[str]:
        if number == 0:
            return []
        found = await self.retrieve(label, number, timeout_seconds=timeout_seconds)
        return [] if found.block is None else found.block.value.split("\n")
