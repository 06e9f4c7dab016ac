"""The guard in front of all routes: who calls, from where, with how much, and the one form of each path."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from blocksd.http import sessions
from blocksd.http.answers import refusal
from blocksd.requests.request import MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from blocksd.http.guesses import Guesses
    from blocksd.http.places import Places
    from blocksd.http.tokens import Tokens

MAX_BODY = 4 * MAX_BYTES
"""How many bytes a body may have: a request of the daemon has a quarter of it, and JSON may escape each character."""
MOST_UNKNOWN = 16 * 1024
"""How many bytes a body may have whose sender is not known: it signs in, with a token."""

OPEN = frozenset(("/", "/v1/health", "/v1/ready", "/api/session", "/openapi.json"))
"""Paths that need no token."""
PAGE = "/page/"
"""The beginning of the paths of the page's files, which need none either: with them a person signs in."""


class Guard:
    """An ASGI application around another.

    The path is matched as it was sent, so that `%2F` in a label is no `/`; routes unquote what they take from it. `/latest`
    is `/v1`, and a slash at the end makes no difference.
    """

    def __init__(self, app: ASGIApp, *, tokens: Tokens, guesses: Guesses, places: Places) -> None:
        self._app = app
        self._tokens = tokens
        self._guesses = guesses
        self._places = places

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return  # a WebSocket that is not accepted is closed
        headers = dict(scope["headers"])  # of a name that is there twice, the last
        path = one_form(scope.get("raw_path") or scope["path"].encode())
        scope = {**scope, "path": path, "root_path": ""}
        refused = self._refused_place(headers)
        most = MAX_BODY
        if refused is None:
            token = _token(headers)
            caller = self._tokens.caller(token)
            by_cookie = (
                caller is None and (caller := sessions.caller_of(self._tokens, headers, time.time())) is not None
            )
            if caller is None and path not in OPEN and not path.startswith(PAGE):
                refused = self._guesses.refused(scope, "Unauthorized") if token else _unauthorized()
            elif sessions.is_forged(scope["method"], headers, by_cookie=by_cookie):
                refused = refusal(403, "a change by a session must come from the gateway's page")
            else:
                most = MOST_UNKNOWN if caller is None else MAX_BODY
                refused = _refused_size(headers, most)
            scope["caller"] = caller
        if refused is not None:
            await refused(scope, receive, send)
            return
        await self._app(scope, _Bounded(receive, most).receive, send)

    def _refused_place(self, headers: Mapping[bytes, bytes]) -> Response | None:
        host = headers.get(b"host", b"").decode("latin-1")
        if not self._places.is_ours(host):
            detail = (
                f"this gateway is not reached as {host[:100]!r}: if it should be, add the name to the setting hosts"
            )
            return refusal(403, detail)
        origin = headers.get(b"origin")
        if origin is not None and not self._places.is_own_page(origin.decode("latin-1"), host):
            return refusal(403, "requests from pages of other origins are refused")
        return None


def _refused_size(headers: Mapping[bytes, bytes], most: int) -> Response | None:
    size = headers.get(b"content-length", b"0")
    if not size.isdigit() or int(size[:20]) > most:
        return too_large(most)
    return None


def _token(headers: Mapping[bytes, bytes]) -> str:
    """Return the token of a request, empty if it has none."""
    scheme, _, token = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    if scheme.lower() != "bearer":
        word, _, token = headers.get(b"x-bare-password", b"").decode("latin-1").partition(" ")
        token = token if word == "password" else ""
    return token.strip()


def _unauthorized() -> Response:
    return refusal(401, "Unauthorized", {"www-authenticate": "Bearer"})


class BodyTooLarge(Exception):
    """A body without a length, or with a false one, has more bytes than are read."""

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self.most = most


class _Bounded:
    """The body of a request, as far as it is read."""

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive = receive
        self._most = most
        self._size = 0

    async def receive(self) -> Message:
        message = await self._receive()
        self._size += len(message.get("body", b""))
        if self._size > self._most:
            raise BodyTooLarge(self._most)
        return message


async def body_of(request: Request) -> bytes | Response:
    """Return the body of a request, or the answer to one that is too large, or whose caller has hung up before its end."""
    parts: list[bytes] = []
    is_whole = False
    try:
        while not is_whole:
            message = await request.receive()
            if message["type"] != "http.request":
                return refusal(400, "the connection was closed before the end of the body")  # that nobody reads
            parts.append(message.get("body", b""))
            is_whole = not message.get("more_body", False)
    except BodyTooLarge as error:
        return too_large(error.most)
    return b"".join(parts)


def too_large(most: int) -> Response:
    """Return the answer to a body that is too large."""
    return refusal(413, f"the body is over the {most} bytes allowed: divide the request", {"connection": "close"})


def one_form(raw_path: bytes) -> str:
    """Return the path by which a route is found."""
    path = raw_path.partition(b"?")[0].decode("latin-1").rstrip("/") or "/"
    return f"/v1/{path[8:]}" if path.startswith("/latest/") else path
