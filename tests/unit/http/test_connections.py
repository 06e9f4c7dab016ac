"""How many requests use Redis at once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from blocksd.client.transport_async import AsyncTransport
from blocksd.errors import Unavailable
from blocksd.http import connections
from blocksd.http.connections import SharedTransport


def test_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that wait for the daemon do not keep others from reading; too many that wait are refused at once."""
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
            await transport.ask(("HGETALL", "block"))
        replied.set()
        await asyncio.gather(*waiting)
        await transport.ask(("HGETALL", "block"))

    asyncio.run(main())
    assert sent == ["BLPOP", "HGETALL", "BLPOP", "BLPOP", "HGETALL"]
