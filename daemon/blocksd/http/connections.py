"""The client's connection to Redis that all requests share: bounds on what is sent at once, and requests that are repeated.

Without bounds a burst of requests would open as many connections at one moment, and most would fail: Redis and redis-py have
limits, and a connection is given one second. With them the rest of a burst waits for its turn.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections import Counter
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from blocksd.client.transport_async import AsyncTransport
from blocksd.errors import InvalidRequest, NotAttached, NotFound, Unavailable
from blocksd.model.revision import OPERATOR

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blocksd.protocol.wire import Command

READING = 32
"""How many requests read at once: one event loop does not profit from more."""
ASKING = 64
"""How many wait for a reply of the daemon at once, each on a connection. They take nothing from those that read."""
AGAIN_SECONDS = 5.0
"""How long a read may take to fail and is sent once more: more than a connection has, and less than a reply."""
WAITING = 2000
"""How many wait for their turn to read, and to ask. More are refused at once: their callers would have given up before."""

_KEPT = 10_000
"""How many requests are remembered: those of minutes, while an SDK repeats within seconds."""


class SharedTransport(AsyncTransport):
    """One namespace of one server, for all requests of a gateway."""

    def __init__(self, url: str, namespace: str, by: str | None = None) -> None:
        """Nothing is sent yet."""
        super().__init__(url, namespace, by)
        self._reading = asyncio.Semaphore(READING)
        self._asking = asyncio.Semaphore(ASKING)
        self._waiting = Counter[asyncio.Semaphore]()
        self._asked: dict[tuple[str, str], tuple[object, asyncio.Future[dict[str, Any]]]] = {}

    async def ask(self, *commands: Command, together: bool = False) -> list[Any]:
        """Send commands as `AsyncTransport.ask` does, when it is their turn.

        Reads are sent once more if they fail within `AGAIN_SECONDS`: a connection is given one second, of which a burst of
        requests may take all with work of this process. Requests of the daemon are sent again in any case.

        Raises:
            Unavailable: Redis does not serve, or too many wait.
        """
        if not commands:
            return []
        is_request = commands[-1][0] == "BLPOP"
        turns = self._asking if is_request else self._reading
        if self._waiting[turns] >= WAITING:
            raise Unavailable("too many requests wait for their turn: try again", waiting=self._waiting[turns])
        self._waiting[turns] += 1
        try:
            async with turns:
                began = time.monotonic()
                try:
                    return await super().ask(*commands, together=together)
                except Unavailable:
                    if is_request or time.monotonic() - began > AGAIN_SECONDS:
                        raise
                return await super().ask(*commands, together=together)
        finally:
            self._waiting[turns] -= 1

    async def request(self, actor: str, op: str, args: Mapping[str, Any] | None = None, **terms: Any) -> dict[str, Any]:
        """Make a request of the daemon as `AsyncTransport.request` does.

        A request that an SDK repeats while the first one is on its way waits for the reply to that: there is one reply.
        An agent is not told which blocks others have: those are not there for it.

        Raises:
            InvalidRequest: another request is on its way under the same id.
        """
        try:
            return await self._request_once(actor, op, args, terms)
        except NotAttached as error:
            if actor == OPERATOR:
                raise
            raise NotFound(f"{actor!r} has no block {error.facts.get('name')!r}", **error.facts) from None

    async def _request_once(
        self, actor: str, op: str, args: Mapping[str, Any] | None, terms: dict[str, Any]
    ) -> dict[str, Any]:
        request_id = terms.get("request_id")
        if request_id is None:
            return await super().request(actor, op, args, **terms)
        key, asked = (actor, request_id), (op, args, terms)
        while (known := self._asked.get(key)) is not None:
            if _as_text(known[0]) != _as_text(asked):
                raise InvalidRequest(f"another request is on its way under the id {request_id}", field="id")
            try:
                return await asyncio.shield(known[1])
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if not known[1].cancelled() or (task is not None and task.cancelling()):
                    raise  # this caller is gone
        reply: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._asked[key] = asked, reply
        try:
            found = await super().request(actor, op, args, **terms)
            reply.set_result(found)
        except Exception as error:
            reply.set_exception(error)
            reply.exception()  # which nobody else may ask for
            raise
        finally:
            del self._asked[key]
            reply.cancel()  # the caller is gone before the reply: the next one who waits for it makes the request
        return found


def _as_text(asked: object) -> str:
    return json.dumps(asked, default=repr, sort_keys=True)


class Repeats:
    """The ids under which the daemon was asked for the last requests of SDKs, so that those they repeat are done once.

    An SDK repeats a request when the connection fails or the answer is late, also when it was done. It sends no key of
    idempotency, only a count of its attempts (`x-stainless-retry-count`).
    """

    def __init__(self) -> None:
        self._ids: dict[str, str] = {}

    def request_id(self, named: bytes | None, count: bytes | None, *facts: str | bytes) -> str:
        """Return the id for a request of the daemon. `facts` are the caller, method, path and body of what was sent here.

        A request with an `Idempotency-Key`, which is `named`, has an id made of that. `count` is that of its attempts.
        """
        if named:
            *asked, _ = facts  # the daemon refuses another body under the same id
            return f"http-{sha256(repr((asked, named.decode('latin-1'))).encode()).hexdigest()[:32]}"
        made = str(uuid.uuid4())
        if not count:
            return made
        mark = sha256()
        for fact in facts:
            mark.update(fact.encode("utf-8", "surrogatepass") if isinstance(fact, str) else fact)
            mark.update(b"\0")
        key = mark.hexdigest()
        if count.isdigit() and int(count[:9]) > 0 and key in self._ids:
            return self._ids[key]
        self._ids.pop(key, None)
        self._ids[key] = made
        if len(self._ids) > _KEPT:
            del self._ids[next(iter(self._ids))]
        return made
