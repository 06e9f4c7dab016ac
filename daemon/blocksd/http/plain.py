"""Plain requests: those that can be read at one look, as almost all of them. h11 reads the others.

A request is plain if its head arrives at once and has nothing unusual. What is accepted here is a small part of what h11
accepts, and means the same: so h11 can take over at any time, and is told then what it has not seen.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, RequestResponseCycle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

MOST_BODY = 64 * 1024
"""How many bytes the body of a plain request has at most: they are kept until the answer, in case that h11 takes over."""
_MOST_HEAD = 16 * 1024

_LINE = re.compile(rb"(GET|POST|PATCH|PUT|DELETE) (/[!-~]*) HTTP/1\.1\r\n")
_FIELDS = re.compile(rb"(?:[-!#$%&'*+.^_`|~0-9a-zA-Z]+:[\t -~\x80-\xff]*\r\n)*\r\n")
_FIELD = re.compile(rb"([^:]+):([^\r]*)\r\n")
_UNUSUAL = frozenset((b"transfer-encoding", b"expect"))
_LENGTH = re.compile(rb"[0-9]{1,6}")
_KEPT = (b"keep-alive", b"Keep-Alive")


class Head(NamedTuple):
    """The head of a plain request, `size` bytes long, and the length of the body behind it."""

    method: str
    target: bytes
    headers: list[tuple[bytes, bytes]]
    size: int
    length: int


def head_of(data: bytes) -> Head | None:
    """Return the head with which a request begins. None: it is not plain, or not all of it is here."""
    line = _LINE.match(data)
    if line is None:
        return None
    fields = _FIELDS.match(data, line.end(), _MOST_HEAD)
    if fields is None:
        return None
    found = _FIELD.findall(data, line.end(), fields.end())
    headers = [(name.lower(), value.strip(b" \t")) for name, value in found]
    hosts = lengths = length = 0
    for name, value in headers:
        if name == b"host":
            hosts += 1
        elif name == b"content-length":
            lengths += 1
            if not _LENGTH.fullmatch(value) or (length := int(value)) > MOST_BODY:
                return None
        elif name in _UNUSUAL or (name == b"connection" and value not in _KEPT):
            return None
    if hosts != 1 or lengths > 1:
        return None
    return Head(line[1].decode("ascii"), line[2], headers, fields.end(), length)


class PlainCycle(RequestResponseCycle):
    """A plain request and its answer, which is written at once if it is plain, too: one body, and its length before it.

    `hand_over` has h11 take over, which writes all other answers.
    """

    def __init__(self, *, write: Callable[[bytes], None], hand_over: Callable[[], None], **options: Any) -> None:
        super().__init__(**options)
        self._write = write
        self._hand_over = hand_over
        self._start: Any = None
        self.is_plain = True
        """False once h11 has taken over."""

    async def send(self, message: Any) -> None:
        if self.is_plain and not self.disconnected:
            start, self._start = self._start, None
            if start is not None:
                if (data := self._whole(start, message)) is not None:
                    self.response_complete = True
                    self._write(data)
                    self.message_event.set()
                    self.on_response()
                    return
                self.response_started = False
                self._hand_over()
                await super().send(start)
            elif not self.response_started and _is_plain(message):
                self._start, self.response_started = message, True
                return
            else:
                self._hand_over()
        await super().send(message)

    def _whole(self, start: Any, message: Any) -> bytes | None:
        """Return the bytes of a plain answer. None: it is not plain, or what was received has changed that."""
        if self.more_body or not self.keep_alive or self.flow.write_paused or message.get("more_body", False):
            return None
        headers: list[tuple[bytes, bytes]] = [*self.default_headers, *start["headers"]]
        body: bytes = message.get("body", b"")
        lengths = [value for name, value in headers if name == b"content-length"]
        if lengths != [b"%d" % len(body)]:
            return None
        head = _head(start["status"], headers)
        lines = len(headers) + 2
        return b"".join((head, body)) if head.count(b"\n") == head.count(b"\r") == lines and b"\0" not in head else None


def _is_plain(message: Any) -> bool:
    """Return True if this begins an answer that may be plain."""
    names = {name for name, _ in message.get("headers", ())}
    return b"content-length" in names and names.isdisjoint((b"connection", b"transfer-encoding"))


def _head(status: int, headers: Iterable[Sequence[bytes]]) -> bytes:
    fields = b"".join([b"%b: %b\r\n" % (name, value) for name, value in headers])
    return b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, STATUS_PHRASES[status], fields)
