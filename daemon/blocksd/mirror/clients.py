"""What redis-py lacks: a pool that lends with little bookkeeping, and a client of a cluster that connects when it is used."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Any, Self

from redis.asyncio import ConnectionPool

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

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


class LazyCluster:
    """A client of redis-py, made at its first use: redis-py's asks for the map of the cluster when it is made, and fails without."""

    def __init__(self, make: Callable[[], Any]) -> None:
        """`make` returns the client, or raises: then it is called again at the next use."""
        self._make = make
        self._made: Any = None
        self._lock = Lock()

    def get_node_from_key(self, key: str) -> Any:
        """Return the node that has a key. That there is this method tells a cluster's client from others."""
        return self._client().get_node_from_key(key)

    def close(self) -> None:
        if self._made is not None:
            self._made.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        if name == "connection_pool":
            raise AttributeError(name)  # each node has one
        return getattr(self._client(), name)

    def _client(self) -> Any:
        if self._made is None:
            made = self._make()  # without the lock: a thread waits for no other's attempts
            with self._lock:
                if self._made is None:
                    self._made = made
            if made is not self._made:
                made.close()
        return self._made
