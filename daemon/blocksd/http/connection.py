"""The connection of a client: what is sent together, how a request cuts it, and how long the client may take."""

from __future__ import annotations

import asyncio
import resource
import socket
from heapq import nsmallest
from math import inf
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from blocksd.http.api.changes import ABORT, DIRECT, WRITE
from blocksd.http.plain import Head, PlainCycle, head_of

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send
    from uvicorn import Config
    from uvicorn.server import ServerState

REQUEST_SECONDS = 90.0
"""How long a connection may be without a whole request: longer than one that is idle is kept."""
BODY_SECONDS = 60.0
"""How long the body of a request may take."""
UNREAD_SECONDS = 60.0
"""How long a client may read nothing of what waits for it."""
MOST_UNREAD = 256 * 1024 * 1024
"""How many bytes of answers wait at most for all clients together."""

_RESERVED = 1024
"""How many file descriptors are kept from clients, for Redis and files; a quarter where there are few."""
_LATE = b'{"detail":"the request did not arrive in time"}'
_TIMED_OUT = (
    b"HTTP/1.1 408 Request Timeout\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b"
    % (len(_LATE), _LATE)
)

_MOST_BYTES = 64 * 1024
"""How many bytes wait at most until they are sent together: with more, a client that reads slowly would not be noticed."""


class Connection(H11Protocol):
    """A connection that requests can cut, as its client may never read, and that they can write to without detours.

    A part of a body costs a third of what it costs through all layers: with a thousand streams that is what counts. Plain
    requests and their answers do without h11, which takes a third of the time of a call. It reads all others, also where
    another parser is installed: it has a bound for heads.

    Clients that connect and send nothing, send slowly or read nothing cost a descriptor each, and memory. So each state that
    only the client can end has a time, and when descriptors are short, those are closed that wait for a request for longest.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.since = self.loop.time()
        """When the connection was made, the last request came, or was answered."""
        self._unsent = 0
        self._unread_since = inf
        self._plain: bytearray | None = None
        """What came of the plain request in hand, which h11 has not seen."""
        self._missing = 0
        """How much of its body is still to come."""
        self._has_ended = False
        """True if the client sends nothing more, and has not got its answer yet."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        joined: Any = _JoinedWrites(transport, self.loop)
        self._joined = joined
        super().connection_made(joined)
        app: ASGIApp = self.config.loaded_app
        self._extensions = extensions = {ABORT: transport.abort, DIRECT: joined, WRITE: self._write_chunk}

        async def extended(scope: Scope, receive: Receive, send: Send) -> None:
            self.since = self.loop.time()
            found = scope if scope["raw_path"].startswith(b"/") else _without_host(scope)
            await app({**found, "extensions": extensions}, receive, send)

        self.app = extended
        if transport.get_extra_info("socket").fileno() >= _most_descriptors():
            self._make_room()

    def data_received(self, data: bytes) -> None:
        if self._plain is None and self._may_begin and (head := head_of(data)) is not None:
            self._unset_keepalive_if_required()
            self._plain, self._missing = bytearray(), head.length
            self._begin(head)
            self._take(data[: head.size + head.length], head.size)
            data = data[head.size + head.length :]
        elif self._plain is not None and self._missing:
            missing = self._missing
            self._take(data[:missing])
            data = data[missing:]
        if data:
            self._hand_over()
            super().data_received(data)

    @property
    def _may_begin(self) -> bool:
        """True if what comes is the beginning of a request."""
        conn = self.conn
        return (
            self.is_waiting
            and conn.our_state is h11.IDLE
            and conn.their_state is h11.IDLE
            and not conn.trailing_data[0]
        )

    def _begin(self, head: Head) -> None:
        """Start the application on a plain request, as uvicorn does on one that h11 has read."""
        path, _, query = head.target.partition(b"?")
        self.since = self.loop.time()
        scope: Any = {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": "1.1",
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "method": head.method,
            "root_path": "",
            "path": unquote(path.decode("ascii")),
            "raw_path": path,
            "query_string": query,
            "headers": head.headers,
            "state": self.app_state.copy(),
            "extensions": self._extensions,
        }
        self.cycle = PlainCycle(
            write=self._joined.write_now,
            hand_over=self._hand_over,
            scope=scope,
            conn=self.conn,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            on_response=self.on_response_complete,
        )
        task = self.loop.create_task(self.cycle.run_asgi(self.config.loaded_app))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def _take(self, data: bytes, body_at: int = 0) -> None:
        """Take a part of the plain request in hand, whose body begins `body_at` bytes after its start."""
        assert self._plain is not None
        self._plain += data
        self.cycle.body += data[body_at:]
        self._missing -= len(data) - body_at
        self.cycle.more_body = self._missing > 0
        self.cycle.message_event.set()

    def _hand_over(self) -> None:
        """Let h11 take over from here: the rest of the request in hand, its answer, and the next request behind it."""
        if self._plain is None:
            return
        plain, self._plain = bytes(self._plain), None
        cycle: Any = self.cycle
        cycle.is_plain = False
        self.conn.receive_data(plain)
        while (event := self.conn.next_event()) is not h11.NEED_DATA and not isinstance(event, h11.EndOfMessage):
            pass  # the application has it

    def on_response_complete(self) -> None:
        self._joined.flush()
        self.since = self.loop.time()
        if self._plain is None:
            super().on_response_complete()
        else:  # `expire` closes the connection if no other request comes: a timer for each takes longer
            self._plain = None
            self.server_state.total_requests += 1
        if self.transport.get_write_buffer_size():
            self._bound_unread()
        if self._has_ended and self.is_waiting:
            self.transport.close()

    def eof_received(self) -> bool:  # type: ignore[override]  # uvicorn's says nothing
        """Keep the connection of a client that has sent all it will, and waits for the answer to that."""
        cycle = self.cycle
        is_wanted = cycle is not None and not cycle.response_started and not cycle.more_body
        self._has_ended = (
            is_wanted and self.scheme == "http"
        )  # asyncio closes one with TLS in any case, and warns of this
        return self._has_ended

    @property
    def is_waiting(self) -> bool:
        """True if no request of the client is in hand."""
        return self.cycle is None or self.cycle.response_complete

    def expire(self, now: float) -> None:
        """Close the connection if its client takes too long. To be called every few seconds."""
        unsent = self.transport.get_write_buffer_size()
        if not unsent:
            self._unread_since = inf
        elif unsent < self._unsent or self._unread_since == inf:
            self._unread_since = now
        self._unsent = unsent
        if now - self._unread_since > UNREAD_SECONDS:
            self.transport.abort()
        elif self.transport.is_closing():
            return
        elif self.is_waiting and now - self.since > REQUEST_SECONDS:
            self._close(is_late=bool(self.conn.trailing_data[0]) and not self._unsent)
        elif not self.is_waiting and self.cycle.more_body and now - self.since > BODY_SECONDS:
            self._close(is_late=not self.cycle.response_started)

    def _close(self, *, is_late: bool) -> None:
        if is_late:
            self.transport.write(_TIMED_OUT)
        self.transport.close()

    def _make_room(self) -> None:
        """Close those connections that wait for a request for longest, a tenth of them: this one, too, if it is the only one."""
        all_here = [one for one in self.connections if isinstance(one, Connection)]
        waiting = [one for one in all_here if one.is_waiting and not one.transport.is_closing()]
        for one in nsmallest(max(1, len(waiting) // 10), waiting, key=lambda one: one.since):
            one.transport.abort()

    def _bound_unread(self) -> None:
        """Cut off clients that do not read their answers, if these are too much together: those first that have theirs for longest.

        The client that has just been answered stays.
        """
        others = (one for one in self.connections if isinstance(one, Connection) and one is not self)
        sizes = {one: size for one in others if (size := one.transport.get_write_buffer_size())}
        too_much = sum(sizes.values()) + self.transport.get_write_buffer_size() - MOST_UNREAD
        for one in sorted(sizes, key=lambda one: one.since):
            if too_much > 0:
                too_much -= sizes[one]
                one.transport.abort()

    async def _write_chunk(self, data: bytes) -> None:
        """Send a part of a body whose head was sent without a length, once the client has read enough of what was before."""
        if self.flow.write_paused:
            await self.flow.drain()
        if not self.transport.is_closing():
            transport: Any = self.transport
            transport.write_now(b"%x\r\n%b\r\n" % (len(data), data))


def _without_host(scope: Scope) -> Scope:
    """Return a request whose target names the host, too, with that as its header `Host` (RFC 9112, 3.2.2)."""
    scheme, _, rest = scope["raw_path"].partition(b"://")
    if scheme.lower() not in (b"http", b"https"):
        return scope
    host, slash, path = rest.partition(b"/")
    headers = [(b"host", host), *(header for header in scope["headers"] if header[0] != b"host")]
    raw_path = slash + path or b"/"
    return {**scope, "path": unquote(raw_path.decode("ascii")), "raw_path": raw_path, "headers": headers}


class Listening(socket.socket):
    """A socket that listens, and leaves half of the reserved descriptors for others.

    A client that has not begun to speak TLS has a descriptor, and no `Connection` yet that could be closed.
    """

    def accept(self) -> tuple[socket.socket, Any]:
        accepted = super().accept()
        if accepted[0].fileno() >= _most_descriptors(part=0.5):
            accepted[0].close()
            raise BlockingIOError  # that is: there is none for now
        return accepted


def _most_descriptors(*, part: float = 1.0) -> int:
    """Return how many file descriptors there may be when a client connects: those in use are numbered from below.

    `part` of those that are reserved are left.
    """
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return most - int(part * min(_RESERVED, most // 4))


class _JoinedWrites:
    """A transport that sends the head and the body of an answer together: one system call, and one wake-up of the client.

    uvicorn writes them one after the other. What is written in one turn of the event loop is sent at its end, or that of the
    answer.
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
            self._loop.call_soon(self.flush)
        self._parts.append(data)
        self._size += len(data)
        if self._size > _MOST_BYTES:
            self.flush()

    def write_now(self, data: bytes) -> None:
        """Write without waiting for more."""
        self.flush()
        self._transport.write(data)

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def flush(self) -> None:
        """Send what waits."""
        if self._parts:
            data = b"".join(self._parts)
            self._parts.clear()
            self._size = 0
            self._transport.write(data)
