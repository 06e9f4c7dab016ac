"""Messages over standard input and output, one in each line, as the two streams that the SDK's server takes.

The SDK has such streams, too, but drops a request that it cannot parse, and its client waits for an answer for ever. Here it
is an error: some clients send half of a surrogate pair, which is JSON and no text.
"""

from __future__ import annotations

import asyncio
import json
import os
import queue
import select
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

import anyio
from mcp.shared.message import SessionMessage
from mcp_types import INVALID_REQUEST, jsonrpc_message_adapter

if TYPE_CHECKING:
    from collections.abc import Callable

_MOST_UNREAD = 64
"""How many lines are read ahead."""
_UNREADABLE = "this is no request of JSON-RPC 2.0, or has a text that is no UTF-8, such as half of a surrogate pair: send it without"


class Lines:
    """The streams over two file handles. `broken` is set, and `error` says why, if one of them cannot be used any more."""

    def __init__(self, reading: int, writing: int) -> None:
        self._reading = reading
        self._writing = writing
        self._loop = asyncio.get_running_loop()
        self.broken = asyncio.Event()
        self.error: OSError | None = None
        self._lines: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._room = threading.Semaphore(_MOST_UNREAD)
        self._unwritten: queue.SimpleQueue[tuple[bytes, asyncio.Future[None]]] = queue.SimpleQueue()
        # Nothing can interrupt what waits for a pipe, and nothing waits for these threads at the end.
        for work in (self._read, self._write):
            threading.Thread(target=work, daemon=True).start()

    async def receive(self) -> SessionMessage:
        """Return the next message. Raise EndOfStream at the end of the input."""
        while True:
            line = await self._lines.get()
            if line is None:
                self._lines.put_nowait(None)
                raise anyio.EndOfStream
            self._room.release()
            try:
                return SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
            except ValueError:
                await self._refuse(line)

    async def send(self, item: SessionMessage) -> None:
        """Write a message, and wait until that is done. Raise BrokenResourceError if it cannot be."""
        await self._put(item.message.model_dump_json(by_alias=True, exclude_unset=True).encode())

    async def _refuse(self, line: bytes) -> None:
        """Answer what a line asks for, if that can be told, since its client waits for it."""
        try:
            given = json.loads(line.decode("utf-8-sig", "replace"))
        except (ValueError, RecursionError):
            return
        for one in given if isinstance(given, list) else [given]:
            number = one.get("id") if isinstance(one, dict) and "method" in one else None
            if isinstance(number, (int, float, str)) and not isinstance(number, bool):
                error = {"code": INVALID_REQUEST, "message": _UNREADABLE}
                await self._put(json.dumps({"jsonrpc": "2.0", "id": number, "error": error}).encode())

    async def _put(self, text: bytes) -> None:
        done = self._loop.create_future()
        self._unwritten.put((text + b"\n", done))
        await done

    # --- threads ---

    def _read(self) -> None:
        pieces: list[bytes] = []
        try:
            while piece := _read_from(self._reading):
                first, *others = piece.split(b"\n")
                pieces.append(first)
                for line in others:
                    self._hand(b"".join(pieces))
                    pieces = [line]
        except OSError as error:
            self._tell(self._fail, error)
        if any(pieces):
            self._hand(b"".join(pieces))
        self._tell(self._lines.put_nowait, None)

    def _hand(self, line: bytes) -> None:
        self._room.acquire()
        self._tell(self._lines.put_nowait, line)

    def _write(self) -> None:
        while True:
            text, done = self._unwritten.get()
            try:
                _write_to(self._writing, text)
            except OSError as error:
                self._tell(self._fail, error, done)
            else:
                self._tell(_settle, done)

    def _tell(self, function: Callable[..., object], *given: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody listens
            self._loop.call_soon_threadsafe(function, *given)

    def _fail(self, error: OSError, done: asyncio.Future[None] | None = None) -> None:
        self.error = self.error or error
        self.broken.set()
        if done is not None and not done.done():
            done.set_exception(anyio.BrokenResourceError())

    # --- what else the SDK asks of a stream ---

    async def aclose(self) -> None:
        """Do nothing: the handles are the process's."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None


def _read_from(handle: int) -> bytes:
    while True:
        try:
            return os.read(handle, 65_536)
        except BlockingIOError:  # who started this process has made the handle so
            select.select([handle], [], [])


def _write_to(handle: int, text: bytes) -> None:
    left = memoryview(text)
    while left:
        try:
            left = left[os.write(handle, left) :]
        except BlockingIOError:
            select.select([], [handle], [])


def _settle(done: asyncio.Future[None]) -> None:
    if not done.done():  # a call that was given up does not wait any more
        done.set_result(None)
