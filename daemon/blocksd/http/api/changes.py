"""Our route for the changes, as server-sent events."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING

from starlette.responses import Response

from blocksd.client.reading_async import agent_named
from blocksd.errors import NotFound, Unavailable
from blocksd.http.api.stream import Place, Stream, Wanted
from blocksd.http.call import AGENTS, READS, route
from blocksd.http.description import TEXT, About
from blocksd.model.properties import parse_versioned

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.routing import Route
    from starlette.types import Receive, Scope, Send

    from blocksd.http.api.feed import Feed
    from blocksd.http.call import Call, Gateway

ABORT = "blocksd.abort"
"""The extension of a scope that cuts its connection."""
WRITE = "blocksd.write"
"""The extension of a scope that sends a part of the body: a chunk, as HTTP/1.1 has them where there is no length."""
DIRECT = "blocksd.direct"
"""The extension of a scope with its connection, for chunks that are written at once."""

_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-store",
    "x-accel-buffering": "no",  # else nginx collects the events
}


def routes(gateway: Gateway) -> list[Route]:
    """Return the route."""
    return [
        route(
            "/api/changes",
            "GET",
            changes,
            gateway,
            READS + AGENTS,
            About(
                "Follow the changes as server-sent events: `change`, or `reset` when some were missed. Last-Event-ID goes on "
                "after an event.",
                query={"block": TEXT, "agent": TEXT, "last_event_id": TEXT},
                answer=None,
                media_type="text/event-stream",
            ),
        )
    ]


async def changes(call: Call) -> Response:
    """Begin a stream. What can be wrong with it is found before its head is sent."""
    query = call.query
    label, agent = query.text("block"), query.text("agent")
    if call.agent is not None:
        if agent not in (None, call.agent):
            raise NotFound(f"there is no agent {agent!r}", agent=agent)
        agent = call.agent
    if agent is not None:
        agent = (await agent_named(call.transport, agent)).id
    since = call.header("last-event-id") or query.text("last_event_id")
    place = None if since is None else Place.of(since)
    label = None if label is None else parse_versioned(label)
    stream = Stream(Wanted(label=label, agent=agent, is_agent=call.agent is not None))
    await call.feed.join(stream)
    try:
        beginning = call.feed.beginning(stream, place)
        first = await anext(beginning)
    except BaseException:
        call.feed.leave(stream)
        raise
    return _Events(call.feed, stream, first, beginning)


class _Events(Response):
    """The answer that does not end until its stream does."""

    def __init__(self, feed: Feed, stream: Stream, first: bytes, beginning: AsyncGenerator[bytes, None]) -> None:
        super().__init__(headers=_HEADERS)
        del self.headers["content-length"]
        self._feed = feed
        self._stream = stream
        self._first = first
        self._beginning = beginning

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        stream = self._stream
        task = asyncio.current_task()
        extensions = scope.get("extensions", {})
        stream.abort = extensions.get(ABORT) or (task.cancel if task is not None else None)

        async def send_part(data: bytes) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": True})

        write = extensions.get(WRITE, send_part) if scope["http_version"] == "1.1" else send_part
        stream.direct = extensions.get(DIRECT) if scope["http_version"] == "1.1" else None
        gone = asyncio.create_task(_gone(receive))
        gone.add_done_callback(lambda _: stream.leave())
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            if scope["method"] == "HEAD":
                await self._beginning.aclose()
                await send({"type": "http.response.body", "body": b""})
                return
            await write(self._first)
            with suppress(Unavailable):  # the client comes again, and goes on where it was
                async with aclosing(self._beginning) as beginning:
                    async for some in beginning:
                        if stream.is_ended:
                            break
                        await write(some)
            if not stream.is_live:
                stream.end()
            while some := await stream.next():
                await write(some)
            await send({"type": "http.response.body", "body": b""})
        finally:
            self._feed.leave(stream)
            gone.cancel()


async def _gone(receive: Receive) -> None:
    """Wait until the client is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
