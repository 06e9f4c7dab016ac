"""How the answers of the gateway leave it."""

from __future__ import annotations

import asyncio
from typing import Any

from blocksd.http.connection import _MOST_BYTES, _JoinedWrites


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
