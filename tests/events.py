"""Clients of a gateway's stream of changes, for tests."""

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING, Any, NamedTuple, Self

if TYPE_CHECKING:
    from types import TracebackType

    from gateways import Served


class Event(NamedTuple):
    """One event, with the id that the client has after it."""

    id: str
    kind: str
    data: dict[str, Any]

    @property
    def label(self) -> Any:
        return self.data.get("label")


class Events:
    """A client as a browser is one: it reads events, and knows the id from which it would go on."""

    def __init__(
        self,
        served: Served,
        query: str = "",
        *,
        since: str | None = None,
        token: str | None = None,
        seconds: float = 20,
    ) -> None:
        self.id = since or ""
        self.retry: int | None = None
        self.comments = 0
        self._connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=seconds)
        headers = {"accept": "text/event-stream"}
        if since is not None:
            headers["last-event-id"] = since
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        self._connection.request("GET", f"/api/changes{query}", headers=headers)
        self.answer = self._connection.getresponse()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()
        self.answer.close()

    def place(self) -> Events:
        """Read until the client knows where it is."""
        while not self.id:
            self._block()
        return self

    def next(self) -> Event | None:
        """The next event; None: the stream has ended."""
        while True:
            found = self._block()
            if found is None:
                return None
            if found["data"]:
                return Event(self.id, found["event"], json.loads(found["data"]))

    def event(self) -> Event:
        """The next event, which must come."""
        found = self.next()
        assert found is not None
        return found

    def beat(self) -> None:
        """Read one block that is no event."""
        found = self._block()
        assert found is not None
        assert not found["data"]

    def some(self, count: int) -> list[Event]:
        """So many events."""
        return [self.event() for _ in range(count)]

    def _block(self) -> dict[str, str] | None:
        found = {"event": "message", "data": ""}
        while True:
            line = self.answer.readline().decode()
            if not line:
                return None
            name, _, value = line.rstrip("\n").partition(": ")
            if not line.strip():
                return found
            if name == "id":
                self.id = value
            elif name == "retry":
                self.retry = int(value)
            elif name.startswith(":"):
                self.comments += 1
            else:
                found[name] = value
