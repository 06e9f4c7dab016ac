"""How the asyncio client sends its commands: as redis-py does, at a part of the cost, and never without a limit of time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio import Connection

from blocksd.client.transport_async import AsyncTransport
from blocksd.protocol.wire import packed

if TYPE_CHECKING:
    from blocksd.protocol.wire import Command

COMMANDS: list[Command] = [
    ("GET", "a"),
    ("BLPOP", "blocks:ü\udcff", "0.5"),
    ("HSET", "", "x" * 9000, 12, -3),
    ("PING",),
]


def test_commands_are_packed_as_by_redis_py() -> None:
    connection = Connection(encoding_errors="surrogateescape")
    assert packed(COMMANDS) == b"".join(connection.pack_commands(COMMANDS))


class Slow:
    """A connection that notes how long it would wait, and fails if it is told to."""

    socket_timeout: float | None = 10.0

    def __init__(self, fault: str) -> None:
        self.waits: list[tuple[str, float | None]] = []
        self._fault = fault

    async def send_packed_command(self, data: list[bytes]) -> None:
        self._step("send")

    async def read_response(self) -> Any:
        self._step("read")

    def _step(self, what: str) -> None:
        self.waits.append((what, self.socket_timeout))
        if what == self._fault:
            raise ConnectionResetError

    async def disconnect(self) -> None:
        pass


class Pool:
    """A pool of one connection."""

    def __init__(self, connection: Slow) -> None:
        self._connection = connection

    async def get_connection(self) -> Slow:
        return self._connection

    async def release(self, connection: Slow) -> None:
        connection.waits.append(("release", connection.socket_timeout))


@pytest.mark.parametrize("fault", ["", "send", "read"])
@pytest.mark.parametrize(("size", "at_send"), [(10, None), (100_000, 10.0)])
def test_limits_of_time(fault: str, size: int, at_send: float | None) -> None:
    """What asyncio takes at once needs none, for which redis-py has a task; all else has one, also what is tried anew."""

    async def run() -> None:
        transport, connection = AsyncTransport("redis://127.0.0.1:1", "blocks"), Slow(fault)
        try:
            await transport._send_on(Pool(connection), [("SET", "a", "x" * size)])
        except ConnectionResetError:
            assert fault
        reads = [] if fault == "send" else [("read", 10.0)]
        assert connection.waits == [("send", at_send), *reads, ("release", 10.0)]

    asyncio.run(run())
