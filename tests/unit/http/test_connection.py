"""How the answers of the gateway leave it, and how long its clients may take."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from contextlib import asynccontextmanager
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from blocksd.http.connection import (
    _MOST_BYTES,
    BODY_SECONDS,
    REQUEST_SECONDS,
    UNREAD_SECONDS,
    Connection,
    _JoinedWrites,
)
from support import DEADLINE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable


class Sink:
    """A transport that keeps what it is told to send."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes) -> None:
        self.sent.append(data)

    def close(self) -> None:
        self.is_closed = True


def test_head_and_body_are_sent_together() -> None:
    """At the end of a turn of the loop, or before the connection is closed; nothing that is large waits."""

    async def run() -> None:
        sink: Any = Sink()
        joined = _JoinedWrites(sink, asyncio.get_running_loop())
        joined.write(b"head")
        joined.write(b"")
        joined.write(b"body")
        assert sink.sent == []
        await asyncio.sleep(0)
        assert sink.sent == [b"headbody"]
        await asyncio.sleep(0)
        joined.write(b"x" * _MOST_BYTES)
        joined.write(b"y")
        assert list(map(len, sink.sent)) == [8, _MOST_BYTES + 1]
        joined.write(b"before ")
        joined.write_now(b"now")
        assert sink.sent[2:] == [b"before ", b"now"]
        del sink.sent[2:]
        joined.write(b"last")
        joined.close()
        assert sink.sent[2:] == [b"last"]
        assert sink.is_closed
        await asyncio.sleep(0)
        assert len(sink.sent) == 3

    asyncio.run(run())


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[Callable[[bytes], Awaitable[tuple[Connection, socket.socket]]]]:
    """What connects to an application, and sends something; it returns both ends of the connection."""
    loop, state, made = asyncio.get_running_loop(), ServerState(), list[Connection]()
    config = uvicorn.Config(app, log_config=None, ws="none", lifespan="off")

    def connection() -> Connection:
        made.append(Connection(config, state, {}))
        return made[-1]

    server = await loop.create_server(connection, "127.0.0.1", 0)
    clients: list[socket.socket] = []

    async def connect(data: bytes) -> tuple[Connection, socket.socket]:
        clients.append(socket.create_connection(server.sockets[0].getsockname()))
        clients[-1].setblocking(False)
        await until(lambda: len(made) == len(clients) and made[-1].transport is not None)
        await loop.sock_sendall(clients[-1], data)
        await asyncio.sleep(0.01)
        return made[-1], clients[-1]

    try:
        yield connect
    finally:
        for client in clients:
            client.close()
        server.close()
        await until(lambda: not state.connections and not state.tasks)


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110  # of no event: a state of a transport
            await asyncio.sleep(0.001)


async def read(client: socket.socket) -> bytes:
    """All that comes until the end."""
    data = b""
    async with asyncio.timeout(DEADLINE):
        while some := await asyncio.get_running_loop().sock_recv(client, 65536):
            data += some
    return data


async def bodies(_scope: Any, receive: Any, send: Any) -> None:
    """An application that answers when it has read the body."""
    while (message := await receive()).get("more_body"):
        pass
    if message["type"] == "http.request":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})


POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "seconds", "status"),
    [
        (b"", REQUEST_SECONDS, b""),
        (b"GET / HTTP/1.1\r\nX: ", REQUEST_SECONDS, b"HTTP/1.1 408"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", REQUEST_SECONDS, b"HTTP/1.1 200"),
        (POST + b"1234", BODY_SECONDS, b"HTTP/1.1 408"),
        (POST[:-2] + b"Transfer-Encoding: chunked\r\n\r\n2\r\n12\r\n", BODY_SECONDS, b"HTTP/1.1 408"),
    ],
)
def test_clients_that_do_not_send(sent: bytes, seconds: float, status: bytes) -> None:
    """The connection is closed in time, with a sentence if a part of a request came."""

    async def run() -> None:
        async with served(bodies) as connect:
            connection, client = await connect(sent)
            now = asyncio.get_running_loop().time()
            connection.expire(now + seconds - 5)
            assert not connection.transport.is_closing()
            connection.expire(now + seconds + 1)
            data = await read(client)
            assert data[:12] == status
            assert (b"did not arrive in time" in data) == (status == b"HTTP/1.1 408")

    asyncio.run(run())


def test_requests_in_hand_may_take_long() -> None:
    """What the client has sent is done, however long that takes."""

    async def run() -> None:
        go_on = asyncio.Event()

        async def slow(scope: Any, receive: Any, send: Any) -> None:
            await go_on.wait()
            await bodies(scope, receive, send)

        async with served(slow) as connect:
            connection, client = await connect(POST + b"12345")
            connection.expire(asyncio.get_running_loop().time() + 10 * REQUEST_SECONDS)
            go_on.set()
            assert (await asyncio.get_running_loop().sock_recv(client, 100)).startswith(b"HTTP/1.1 200")

    asyncio.run(run())


def test_clients_that_do_not_read() -> None:
    """Are cut off when nothing was read for a while, and what waited for them is dropped; slow ones are not."""

    async def large(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * 20_000_000})

    async def run() -> None:
        async with served(large) as connect:
            connection, client = await connect(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            loop, transport = asyncio.get_running_loop(), connection.transport
            now = loop.time()
            connection.expire(now)
            for _ in range(3):
                now += UNREAD_SECONDS - 1
                connection.expire(now)
                before = transport.get_write_buffer_size()
                assert before
                while transport.get_write_buffer_size() == before:
                    await loop.sock_recv(client, 1_000_000)
                connection.expire(now)
            now += UNREAD_SECONDS + 1
            connection.expire(now)
            assert not transport.get_write_buffer_size()

    asyncio.run(run())


def test_room_where_descriptors_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connections that wait for a request for longest are closed; those with a request in hand stay."""

    async def run() -> None:
        go_on = asyncio.Event()

        async def slow(scope: Any, receive: Any, send: Any) -> None:
            await go_on.wait()
            await bodies(scope, receive, send)

        async with served(slow) as connect:
            busy, client = await connect(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            idle = [(await connect(b""))[0] for _ in range(4)]
            monkeypatch.setattr("blocksd.http.connection._most_descriptors", lambda: 0)
            newest, _ = await connect(b"")
            assert [one.transport.is_closing() for one in (busy, *idle, newest)] == [False, True] + 4 * [False]
            go_on.set()
            assert (await asyncio.get_running_loop().sock_recv(client, 100)).startswith(b"HTTP/1.1 200")

    asyncio.run(run())


def test_memory_is_given_back() -> None:
    """What large answers took is the system's again; else each gateway would stay as large as its worst minute."""
    code = """
        from blocksd.http.server import give_memory_back

        def resident():
            return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS:"))

        give_memory_back()
        before = resident()
        for size in (30_000_000, 1_000_000):
            large, small = [], []
            for _ in range(100_000_000 // size):
                large.append(b"x" * size)
                small.append(b"y" * 100_000)
            del large
        print(resident() - before)
    """
    done = subprocess.run([sys.executable, "-c", dedent(code)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 30_000


def test_memory_of_each_read_is_kept() -> None:
    """asyncio takes 256 KiB for each: to fetch them from the system anew costs a tenth of a request."""
    code = """
        import resource, socket
        from asyncio.selector_events import _SelectorSocketTransport
        from blocksd.http.server import give_memory_back

        give_memory_back()
        here, there = socket.socketpair()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(1000):
            there.send(b"x" * 1000)
            here.recv(_SelectorSocketTransport.max_size)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    """
    done = subprocess.run([sys.executable, "-c", dedent(code)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 500


GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize("asked", [[GET], [GET, GET], [GET[:-2] + b"X-Length: \r\n\r\n"], [POST + b"12345", GET]])
def test_client_that_sends_no_more(asked: list[bytes]) -> None:
    """It gets the answer to what it has asked, also if that takes a while; then the connection is closed."""

    async def run() -> None:
        go_on = asyncio.Event()

        async def slow(scope: Any, receive: Any, send: Any) -> None:
            await go_on.wait()
            await bodies(scope, receive, send)

        async with served(slow) as connect:
            connection, client = await connect(b"".join(asked))
            client.shutdown(socket.SHUT_WR)
            await asyncio.sleep(0.01)
            assert not connection.transport.is_closing()
            connection.scheme = "https"
            assert not connection.eof_received()
            connection.scheme = "http"
            assert connection.eof_received()
            go_on.set()
            assert (await read(client)).count(b"HTTP/1.1 200 OK\r\n") == len(asked)

    asyncio.run(run())


@pytest.mark.parametrize("sent", [b"", GET[:-2], POST + b"1234", GET])
def test_client_that_is_gone(sent: bytes) -> None:
    """Nothing waits for one that has asked nothing whole, or whose stream had begun."""

    async def streams(_scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while (await receive())["type"] != "http.disconnect":
            pass

    async def run() -> None:
        async with served(streams if sent == GET else bodies) as connect:
            connection, client = await connect(sent)
            client.shutdown(socket.SHUT_WR)
            await until(connection.transport.is_closing)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("target", "path", "raw_path", "query"),
    [
        (b"http://there:80/v1/a%2Fb?x=1", "/v1/a/b", b"/v1/a%2Fb", b"x=1"),
        (b"HTTP://there:80/", "/", b"/", b""),
        (b"http://there:80", "/", b"/", b""),
        (b"https://there:80?x=1", "/", b"/", b"x=1"),
        (b"/http://here", "/http://here", b"/http://here", b""),
        (b"ftp://there:80/", "ftp://there:80/", b"ftp://there:80/", b""),
        (b"*", "*", b"*", b""),
    ],
)
def test_target_with_a_host(target: bytes, path: str, raw_path: bytes, query: bytes) -> None:
    """Such a target counts, and not the header (RFC 9112, 3.2.2): a proxy that reads one may have let that pass."""
    seen: list[Any] = []

    async def keep(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)
        await bodies(scope, receive, send)

    async def run() -> None:
        async with served(keep) as connect:
            _, client = await connect(
                b"GET " + target + b" HTTP/1.1\r\nHost: here\r\nX: y\r\nConnection: close\r\n\r\n"
            )
            await read(client)

    asyncio.run(run())
    (scope,) = seen
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == (path, raw_path, query)
    host = b"there:80" if target.lower().startswith(b"http") else b"here"
    assert sorted(scope["headers"]) == [(b"connection", b"close"), (b"host", host), (b"x", b"y")]


def test_unread_answers_of_all_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a bound together: beyond it, those that have been waiting for longest are cut off."""
    size = 20_000_000

    async def large(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % size)]})
        await send({"type": "http.response.body", "body": b"x" * size})

    async def run() -> None:
        monkeypatch.setattr("blocksd.http.connection.MOST_UNREAD", 2 * size)
        async with served(large) as connect:
            made = []
            for _ in range(4):
                made.append((await connect(GET))[0])
                await until(lambda: made[-1].cycle is not None and made[-1].cycle.response_complete)
            assert [one.transport.is_closing() for one in made] == [True, True, False, False]
            monkeypatch.setattr("blocksd.http.connection.MOST_UNREAD", 1)
            last, client = await connect(GET)
            await until(made[-1].transport.is_closing)
            assert not last.transport.is_closing()  # one alone may be as large as it is
            loop, left = asyncio.get_running_loop(), size
            while left > 0:
                left -= len(await loop.sock_recv(client, 1_000_000))

    asyncio.run(run())
