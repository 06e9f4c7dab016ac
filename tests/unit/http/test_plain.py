"""Plain requests are read as h11 reads them, and answered as through h11; what is unusual is left to it."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

import h11
import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.server import ServerState

from blocksd.http.connection import Connection
from blocksd.http.plain import MOST_BODY, head_of

if TYPE_CHECKING:
    from collections.abc import Sequence

GET = b"GET /v1/blocks/a%2Fb?x=1 HTTP/1.1\r\nHost: here\r\n\r\n"
PATCH = b"PATCH /v1/blocks/x HTTP/1.1\r\nHost: here\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nabcde"


def as_h11_reads(data: bytes) -> tuple[str, bytes, list[tuple[bytes, bytes]], bytes]:
    """The method, target, headers and body of the one request that this is. h11 raises for what is none."""
    conn = h11.Connection(h11.SERVER)
    conn.receive_data(data)
    request = conn.next_event()
    assert isinstance(request, h11.Request), request
    body = b""
    while isinstance(event := conn.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage), event
    assert conn.trailing_data == (b"", False)
    return request.method.decode(), request.target, [(name.lower(), value) for name, value in request.headers], body


METHODS = st.sampled_from([b"GET", b"POST", b"PATCH", b"PUT", b"DELETE", b"HEAD", b"get", b"OPTIONS", b"G\0T", b""])
TARGETS = st.sampled_from(
    [b"/", b"/v1/blocks/%2F?a=b#c", b"*", b"http://here/", b"/\x7f", b"/a b", b"/\xff", b"", b"//"]
)
NAMED = b"Accept|x-a|Host|content-length|Connection|Transfer-Encoding|Expect|Upgrade|A b|A | A||\xfc|A:|A\r|\n"
SAID = b"x|| x |\tx y\t|3|03|+3|3, 3|9999999|close|keep-alive|chunked|100-continue|h2c|\xfc|\x01|\x7f|\0|x\x0b|a\x85|"
NAMES = st.sampled_from(NAMED.split(b"|"))
VALUES = st.sampled_from((SAID + b"a\rb|a\nb|x\r\n y|x\r\n\r\n").split(b"|"))
ENDS = st.sampled_from([b"\r\n"] * 20 + [b"\n", b"\r", b"\r\r\n", b"\n\r\n"])
FIELD = st.tuples(NAMES, st.sampled_from([b":", b": ", b" :", b":\t "]), VALUES, ENDS).map(b"".join)
HEADS = st.tuples(
    st.tuples(METHODS, TARGETS, st.sampled_from([b"HTTP/1.1"] * 8 + [b"HTTP/1.0", b"HTTP/2.0", b"http/1.1"])).map(
        b" ".join
    ),
    ENDS,
    st.sampled_from([b"Host: here\r\n"] * 8 + [b""]),
    st.sampled_from([b"Content-Length: 3\r\n"] * 8 + [b""]),
    st.lists(FIELD, max_size=3).map(b"".join),
    ENDS,
).map(b"".join)


@given(HEADS)
def test_what_is_plain_means_the_same_to_h11(data: bytes) -> None:
    head = head_of(data)
    if head is not None and head.size == len(data):
        body = b"abc"[: head.length] + b"x" * (head.length - 3)
        assert as_h11_reads(data + body) == (head.method, head.target, head.headers, body)


def test_what_is_plain() -> None:
    head = head_of(GET)
    assert head == ("GET", b"/v1/blocks/a%2Fb?x=1", [(b"host", b"here")], len(GET), 0)
    head = head_of(PATCH + b"more")
    assert head is not None
    assert (head.size, head.length) == (len(PATCH) - 5, 5)


@pytest.mark.parametrize(
    "data",
    [
        *(PATCH[:size] for size in range(len(PATCH) - 5)),
        GET.replace(b"\r\n", b"\n"),
        GET.replace(b"\r\n\r\n", b"\n\r\n"),
        GET.replace(b"Host: here\r\n", b""),
        GET.replace(b"Host:", b"Host: a\r\nHost:"),
        GET.replace(b"Host:", b"Host :"),
        GET.replace(b"here", b"here\r\n folded"),
        GET.replace(b"here", b"he\0re"),
        GET.replace(b"1.1", b"1.0"),
        GET.replace(b"GET", b"HEAD"),
        GET.replace(b"/v1", b"http://here/v1"),
        PATCH.replace(b"5", b"5\r\nContent-Length: 5"),
        PATCH.replace(b"5", b"5, 5"),
        PATCH.replace(b"5", b"+5"),
        PATCH.replace(b"5", b"-5"),
        PATCH.replace(b"5", b"0x5"),
        PATCH.replace(b"5", b""),
        PATCH.replace(b"5", b"%d" % (MOST_BODY + 1)),
        PATCH.replace(b"5", b"5\r\nTransfer-Encoding: chunked"),
        PATCH.replace(b"5", b"5\r\nExpect: 100-continue"),
        PATCH.replace(b"keep-alive", b"close"),
        PATCH.replace(b"keep-alive", b"Upgrade\r\nUpgrade: h2c"),
        GET.replace(b"here", b"here\r\nX: " + b"x" * 20_000),
        b"\r\n" + GET,
    ],
)
def test_what_is_not(data: bytes) -> None:
    """Requests that programs in the way could read otherwise, and those that need more than an answer."""
    assert head_of(data) is None


class Wire(asyncio.Transport):
    """A transport that keeps what is sent."""

    def __init__(self, end: socket.socket) -> None:
        super().__init__({"socket": end})
        self.sent = b""
        self.is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += data

    def close(self) -> None:
        self.is_closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.is_closed

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading


JSON = (b"content-type", b"application/json")


async def application(scope: Any, receive: Any, send: Any) -> None:
    """An application that tells what it was asked, in the way that the path names."""
    body, message = b"", {"more_body": True}
    if scope["path"] != "/early":
        while message.get("more_body"):
            message = await receive()
            body += message.get("body", b"")
    said = repr([scope["method"], scope["path"], scope["raw_path"], scope["query_string"], scope["headers"], body])
    text = said.encode()
    length = (b"content-length", b"%d" % len(text))
    status, headers, parts = 200, [length, JSON], [text]
    match scope["path"]:
        case "/parts":
            parts = [text[:10], text[10:]]
        case "/ended":
            parts = [text, b""]
        case "/empty":
            status, headers, parts = 204, [(b"content-length", b"0")], [b""]
        case "/chunked":
            headers, parts = [JSON], [text[:10], text[10:], b""]
        case "/nothing":
            status, headers, parts = 204, [], [b""]
        case "/known":
            status, headers, parts = 304, [(b"etag", b"x")], [b""]
        case "/closed":
            headers = [length, (b"connection", b"close")]
        case "/short":
            headers = [(b"content-length", b"%d" % (len(text) + 1))]
        case "/split":
            headers = [length, (b"x", b"a\r\nset-cookie: b")]
        case "/nul":
            headers = [length, (b"x", b"a\0b")]
        case "/fault":
            raise ValueError
        case "/late fault":
            parts = []
    await send({"type": "http.response.start", "status": status, "headers": headers})
    if scope["path"] == "/late fault":
        raise ValueError
    for number, part in enumerate(parts, 1):
        await send({"type": "http.response.body", "body": part, "more_body": number < len(parts)})
        await asyncio.sleep(0)


async def conversation(packets: Sequence[bytes], *, is_stopped: bool = False) -> tuple[bytes, bool]:
    """What a connection sends that gets these packets, and if it is closed then."""
    config = uvicorn.Config(application, log_config=None, ws="none", lifespan="off")
    here, there = socket.socketpair()
    with here, there:
        wire = Wire(here)
        connection = Connection(config, ServerState(), {})
        connection.connection_made(wire)
        for packet in packets:
            if wire.is_closed:  # asyncio does not read then
                break
            connection.data_received(packet)
            if is_stopped:
                connection.shutdown()
            for _ in range(12):
                await asyncio.sleep(0)
        connection.connection_lost(OSError())
        return wire.sent, wire.is_closed


def asked(path: str, more: bytes = b"", body: bytes = b"") -> bytes:
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    method = b"POST" if body else b"GET"
    return b"%b /%b HTTP/1.1\r\nHost: here\r\n%b%b\r\n%b" % (method, path.encode(), more, length, body)


PATHS = (
    "",
    "parts",
    "ended",
    "empty",
    "chunked",
    "nothing",
    "known",
    "closed",
    "short",
    "split",
    "nul",
    "fault",
    "early",
)
MANY = [
    [asked(path, body=body), b"", asked("", body=body)]
    for path in PATHS
    for body in (b"", b"xyz", b'{"text": "' + b"x" * 99)
]
TALKS: list[list[bytes]] = [
    *([packet for packet in talk if packet] for talk in MANY),
    *([talk[0][:-1], talk[0][-1:] + talk[2]] for talk in MANY),
    *([b"".join(talk)] for talk in MANY),
    *([talk[0][:20], talk[0][20:-2], talk[0][-2:], talk[2]] for talk in MANY),
    [bytes([byte]) for byte in asked("", body=b"xyz") + asked("chunked")],
    [asked("") + b"GET / HTTP/1.1\nHost: x\n\n"],
    [asked("", b"Connection: close\r\n"), asked("")],
    [asked("", b"Expect: 100-continue\r\n", b"xyz"), asked("")],
    [asked("", b"Connection: Upgrade\r\nUpgrade: h2c\r\n", b"xyz"), asked("")],
    [asked("", b"Transfer-Encoding: chunked\r\n") + b"3\r\nxyz\r\n0\r\n\r\n" + asked(""), asked("parts")],
    [asked("", body=b"x" * (MOST_BODY + 1)), asked("")],
]


@pytest.mark.parametrize("is_stopped", [False, True])
@pytest.mark.parametrize("number", range(len(TALKS)))
def test_answers_are_those_of_h11(number: int, is_stopped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Byte for byte, in whatever packets the requests come."""
    plain = asyncio.run(conversation(TALKS[number], is_stopped=is_stopped))
    monkeypatch.setattr("blocksd.http.connection.head_of", lambda _data: None)
    assert plain == asyncio.run(conversation(TALKS[number], is_stopped=is_stopped))


def test_client_that_does_not_read() -> None:
    """Its next answer waits until it has read what was before."""

    async def run() -> None:
        here, there = socket.socketpair()
        with here, there:
            wire = Wire(here)
            connection = Connection(uvicorn.Config(application, log_config=None, ws="none"), ServerState(), {})
            connection.connection_made(wire)
            connection.pause_writing()
            connection.data_received(asked(""))
            for _ in range(12):
                await asyncio.sleep(0)
            assert wire.sent == b""
            connection.resume_writing()
            for _ in range(12):
                await asyncio.sleep(0)
            assert wire.sent.startswith(b"HTTP/1.1 200 OK\r\n")
            connection.connection_lost(OSError())

    asyncio.run(run())


def test_nonsense_after_a_request() -> None:
    sent, is_closed = asyncio.run(conversation([asked(""), b"nonsense\r\n\r\n", asked("")]))
    assert sent.startswith(b"HTTP/1.1 200 OK\r\n")
    assert sent.count(b"HTTP/1.1 400 Bad Request\r\n") == 1
    assert is_closed


def test_fault_after_the_head() -> None:
    """Ends the connection: nobody takes what there is for an answer."""
    assert asyncio.run(conversation([asked("late%20fault"), asked("")])) == (b"", True)


def test_plain_requests_are_not_read_by_h11(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes ten times as long."""
    seen: list[bytes] = []
    monkeypatch.setattr(h11.Connection, "receive_data", lambda _self, data: seen.append(data))
    answers, is_closed = asyncio.run(conversation([GET, PATCH, PATCH[:-5], PATCH[-5:-3], PATCH[-3:]]))
    assert answers.count(b"HTTP/1.1 200 OK\r\n") == 3
    assert not is_closed
    assert seen == []
