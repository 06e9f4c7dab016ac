"""How many requests use Redis at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.client.transport_async import AsyncTransport
from blocksd.errors import InvalidRequest, Unavailable
from blocksd.http import connections
from blocksd.http.connections import SharedTransport
from blocksd.mirror import connection
from support import DEADLINE

if TYPE_CHECKING:
    from support import RedisServer


def test_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that wait for the daemon do not keep others from reading, however many; too many are refused at once."""
    monkeypatch.setattr(connections, "READING", 1)
    monkeypatch.setattr(connections, "ASKING", 1)
    monkeypatch.setattr(connections, "WAITING", 3)
    sent: list[str] = []

    async def main() -> None:
        replied = asyncio.Event()

        async def ask(_self: AsyncTransport, *commands: Any, **_options: Any) -> list[Any]:
            sent.append(commands[0][0])
            if commands[0][0] == "BLPOP":
                await replied.wait()
            return []

        monkeypatch.setattr(AsyncTransport, "ask", ask)
        transport = SharedTransport("redis://127.0.0.1:1", "blocks")
        waiting = [asyncio.ensure_future(transport.ask(("BLPOP", "reply", 1))) for _ in range(2)]
        await asyncio.sleep(0)
        await transport.ask(("HGETALL", "block"))
        assert sent == ["BLPOP", "HGETALL"]
        waiting.append(asyncio.ensure_future(transport.ask(("BLPOP", "reply", 1))))
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="try again"):
            await transport.ask(("BLPOP", "reply", 1))
        await transport.ask(("HGETALL", "block"))
        replied.set()
        await asyncio.gather(*waiting)
        await transport.ask(("HGETALL", "block"))

    asyncio.run(main())
    assert sent == ["BLPOP", "HGETALL", "HGETALL", "BLPOP", "BLPOP", "HGETALL"]


def test_reads_survive_a_moment_without_turns(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection whose time is over because this process had other work is made again; what stays away is told."""
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 0.1)
    connect, late = asyncio.open_unix_connection, [DEADLINE]

    async def stalled(*words: Any, **options: Any) -> Any:
        if late:
            await asyncio.sleep(late.pop())
        return await connect(*words, **options)

    monkeypatch.setattr(asyncio, "open_unix_connection", stalled)

    async def main() -> list[Any]:
        with pytest.raises(Unavailable):
            await AsyncTransport(server.url, "blocks").ask(("PING",))  # the connection was given up
        late.append(DEADLINE)
        transport = SharedTransport(server.url, "blocks")
        replies = await transport.ask(("PING",))
        await transport.close()
        with pytest.raises(Unavailable):
            await SharedTransport("unix:///nowhere.sock", "blocks").ask(("PING",))
        return replies

    assert asyncio.run(main()) == [True]


def test_a_request_that_is_repeated_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is sent once, and all who ask get the reply, also when the first of them is gone; another is refused."""
    sent: list[str] = []

    async def main() -> list[Any]:
        replied = asyncio.Event()

        async def request(
            _self: AsyncTransport, _actor: str, op: str, _args: Any = None, **_terms: Any
        ) -> dict[str, Any]:
            sent.append(op)
            await replied.wait()
            return {"ok": True}

        monkeypatch.setattr(AsyncTransport, "request", request)
        transport = SharedTransport("redis://127.0.0.1:1", "blocks")

        def ask(op: str, request_id: str | None = "r-1") -> asyncio.Future[dict[str, Any]]:
            return asyncio.ensure_future(transport.request("operator", op, {"a": 1}, request_id=request_id))

        first, again, others = ask("append"), ask("append"), [ask("append", None) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(InvalidRequest, match="r-1"):
            await ask("delete")
        first.cancel()
        replied.set()
        results = [await one for one in (again, *others)]
        return [*results, await ask("append")]

    assert asyncio.run(main()) == [{"ok": True}] * 4
    assert sent == ["append"] * 4
