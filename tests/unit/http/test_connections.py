"""How many requests use Redis at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.client.transport_async import AsyncTransport
from blocksd.errors import Damaged, InvalidRequest, Unavailable
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
    """It is sent once, and all who ask get the reply; another is refused.

    When the first of them is gone, the next one sends it, under the same id: the daemon does it once.
    """
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
        results.append(await ask("append"))
        replied.clear()
        last = [ask("append") for _ in range(3)]
        await asyncio.sleep(0)
        for one in last:  # as a server that stops does
            one.cancel()
        assert all(
            isinstance(error, asyncio.CancelledError) for error in await asyncio.gather(*last, return_exceptions=True)
        )
        return results

    assert asyncio.run(main()) == [{"ok": True}] * 4
    assert sent == ["append"] * 6


_COMMANDS: tuple[tuple[str | int, ...], ...] = (
    *(("HGETALL", "h"), ("HMGET", "h", "a", "no"), ("ZSCORE", "z", "x"), ("ZRANGE", "z", 0, -1, "WITHSCORES")),
    *(("SMEMBERS", "s"), ("XRANGE", "x", "-", "+"), ("EXISTS", "h"), ("PING",), ("ZMSCORE", "z", "x", "no")),
    *(("EVAL", "return {1, 'a', false}", 0), ("HGETALL", "no"), ("BLPOP", "no", "0.01"), ("ZSCAN", "z", 0)),
)


def test_replies_are_those_of_any_client(server: RedisServer) -> None:
    """Of the same shapes as redis-py gives them, one by one and together; an error is that of any client, too."""
    client = server.client()
    client.hset("h", mapping={"a": "1", "\u00e9": b"\xff"})
    client.zadd("z", {"x": 1.5, "y": 2})
    client.sadd("s", "m")
    client.xadd("x", {"a": "1"}, id="1-1")

    async def main() -> list[Any]:
        transport = AsyncTransport(server.url, "blocks")
        found: list[Any] = [(await transport.ask(command))[0] for command in _COMMANDS]
        found += [await transport.ask(*_COMMANDS), await transport.ask(*_COMMANDS, together=True)]
        for commands in ((("LPUSH", "h", 1),), (("PING",), ("LPUSH", "h", 1)), (("NONSENSE",), ("PING",))):
            for together in (False, True):
                with pytest.raises(Damaged):
                    await transport.ask(*commands, together=together)
        await transport.close()
        return found

    plain = connection.connect(server.url)
    expected = [plain.execute_command(*command) for command in _COMMANDS]
    assert asyncio.run(main()) == [*expected, expected, expected]


def test_connections_are_used_again(server: RedisServer) -> None:
    """By one request after the other; those that a server closed when it ended are not."""

    async def main() -> None:
        transport = SharedTransport(server.url, "blocks")

        async def read() -> list[Any]:
            for _ in range(5):
                await asyncio.gather(*(transport.ask(("HGETALL", "h")) for _ in range(3)))
            return [one["id"] for one in server.client().client_list() if one["cmd"] == "hgetall"]

        assert len(await read()) == 3
        server.kill()
        server.start()
        assert len(await read()) == 3
        await transport.close()
        await asyncio.sleep(0)

    asyncio.run(main())
    assert [one for one in server.client().client_list() if one["cmd"] == "hgetall"] == []
