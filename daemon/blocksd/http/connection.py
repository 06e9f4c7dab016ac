"""The connection of a client: what is sent together, and how a request cuts it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from blocksd.http.api.changes import ABORT, DIRECT, WRITE

if TYPE_CHECKING:
    import asyncio

    from starlette.types import ASGIApp, Receive, Scope, Send

_MOST_BYTES = 64 * 1024
"""How many bytes wait at most until they are sent together: with more, a client that reads slowly would not be noticed."""


class Connection(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """A connection that requests can cut, as its client may never read, and that they can write to without detours.

    A part of a body costs a third of what it costs through all layers: with a thousand streams that is what counts.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:
        joined = _JoinedWrites(transport, self.loop)
        super().connection_made(joined)
        app: ASGIApp = self.config.loaded_app
        extensions = {ABORT: transport.abort, DIRECT: joined, WRITE: self._write_chunk}

        async def extended(scope: Scope, receive: Receive, send: Send) -> None:
            await app({**scope, "extensions": extensions}, receive, send)

        self.app = extended

    async def _write_chunk(self, data: bytes) -> None:
        """Send a part of a body whose head was sent without a length, once the client has read enough of what was before."""
        if self.flow.write_paused:
            await self.flow.drain()
        if not self.transport.is_closing():
            self.transport.write_now(b"%x\r\n%b\r\n" % (len(data), data))


class _JoinedWrites:
    """A transport that sends the head and the body of an answer together: one system call, and one wake-up of the client.

    uvicorn writes them one after the other. What is written in one turn of the event loop is sent at its end.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes] = []
        self._size = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not data:
            return
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)
        self._size += len(data)
        if self._size > _MOST_BYTES:
            self._flush()

    def write_now(self, data: bytes) -> None:
        """Write without waiting for more."""
        self._flush()
        self._transport.write(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._parts:
            data = b"".join(self._parts)
            self._parts.clear()
            self._size = 0
            self._transport.write(data)
