"""A pool of connections for asyncio code, which lends those that it has with little of redis-py's bookkeeping."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis.asyncio import ConnectionPool

if TYPE_CHECKING:
    from redis.asyncio.connection import AbstractConnection


class LendingPool(ConnectionPool):
    """Connections that are lent again as they come back.

    To redis-py they stay in use: it would take a lock, note times and tell observers each time it lends one, which takes as
    long as to send a command and to read the reply. They are checked as before, and closed with the pool.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._here: list[AbstractConnection] = []

    async def get_connection(self, *args: Any, **options: Any) -> AbstractConnection:
        if not self._here:
            pool: Any = super()
            made: AbstractConnection = await pool.get_connection(*args, **options)
            return made
        connection = self._here.pop()
        try:
            if connection.is_connected and await connection.can_read():  # its end, or what is nobody's reply
                await connection.disconnect()
            if not connection.is_connected:
                await self.ensure_connection(connection)
        except BaseException:
            self._here.append(connection)
            raise
        return connection

    async def release(self, connection: AbstractConnection) -> None:
        self._here.append(connection)
