"""How the asyncio client's connections are lent and come back."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
import redis

from blocksd.mirror.connection import connect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def server() -> AsyncIterator[tuple[str, list[asyncio.StreamWriter]]]:
    """A server that says OK to each packet of a command, and the connections that it has taken."""
    taken: list[asyncio.StreamWriter] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.append(writer)
        with suppress(ConnectionError):
            while line := await reader.readline():
                for _ in range(2 * int(line[1:])):
                    await reader.readline()
                writer.write(b"+OK\r\n")
        writer.close()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with listening:
        yield f"redis://127.0.0.1:{listening.sockets[0].getsockname()[1]}", taken


async def asked(pool: Any) -> Any:
    connection = await pool.get_connection()
    await connection.send_command("PING")
    assert await connection.read_response() == "OK"
    await pool.release(connection)
    return connection


def test_connections_are_lent_again() -> None:
    async def run() -> None:
        async with server() as (url, taken):
            client = connect(url, asynchronous=True)
            pool = client.connection_pool
            first = await asked(pool)
            assert await asked(pool) is first
            one, two = await pool.get_connection(), await pool.get_connection()
            assert one is first
            assert two is not one
            await pool.release(one)
            await pool.release(two)
            assert len(taken) == 2
            await client.aclose()
            assert not one.is_connected
            assert not two.is_connected

    asyncio.run(run())


@pytest.mark.parametrize("left", [b"", b"+more\r\n"])
def test_connections_that_cannot_be_used_are_made_anew(left: bytes) -> None:
    """Those that the server has closed, and those with a reply that is nobody's."""

    async def run() -> None:
        async with server() as (url, taken):
            client = connect(url, asynchronous=True)
            first = await asked(client.connection_pool)
            if left:
                taken[0].write(left)
            else:
                taken[0].close()
            await asyncio.sleep(0.02)
            assert await asked(client.connection_pool) is first
            assert len(taken) == 2
            await client.aclose()

    asyncio.run(run())


def test_connections_that_fail_come_back() -> None:
    """Else a server that is stopped for long would take all that the client may open."""

    async def run() -> None:
        async with server() as (url, taken):
            client = connect(url, asynchronous=True)
            first = await asked(client.connection_pool)
            taken[0].close()
            await asyncio.sleep(0.02)
        for _ in range(3):
            with pytest.raises(redis.ConnectionError):
                await client.connection_pool.get_connection()
        client.connection_pool.max_connections = 1
        with pytest.raises(redis.exceptions.ConnectionError, match="Error"):
            await client.connection_pool.get_connection()
        assert not first.is_connected
        await client.aclose()

    asyncio.run(run())
