"""A client of the server that sentinels name as the master of a service, also after a failover."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from redis import sentinel
from redis.asyncio import sentinel as asyncio_sentinel
from redis.exceptions import AuthenticationError, RedisError, ResponseError

if TYPE_CHECKING:
    from collections.abc import Sequence

SAYS = "a sentinel says: "
"""What the error begins with when sentinels refuse the login."""
LOGIN = "correct the sentinels' own login in the URL: ?sentinel_username=USER&sentinel_password=PASSWORD"
CHECK_SECONDS = 1.0
"""How often a client in use asks for the master. redis-py asks only when it connects, and a master that was replaced while
the sentinels could not reach it may still run."""
_UNKNOWN_SECONDS = 5.0  # after no sentinel has answered

Address = tuple[str, int]


class _Sentinels(sentinel.Sentinel):
    """Sentinels, asked one after the other. One that answers is asked first the next time."""

    def discover_master(self, service_name: str) -> Address:
        """Return the master. Raises MasterNotFoundError if no sentinel names one, AuthenticationError if they refuse the login."""
        errors: list[Exception] = []
        for _ in range(len(self.sentinels)):
            try:
                found = self.ask_first(service_name)
            except (RedisError, OSError) as error:
                errors.append(error)
                continue
            if found is not None:
                return found
        raise _no_master(service_name, errors)

    def ask_first(self, service_name: str) -> Address | None:
        """Return the master as one sentinel names it. One that names none is asked last from now on."""
        found: Any = None
        first: Any = self.sentinels[0]
        try:
            found = first.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", service_name)
        finally:
            if not found:
                _put_last(first, self.sentinels)
        return (str(found[0]), int(found[1])) if found else None


class _AsyncSentinels(asyncio_sentinel.Sentinel):
    """The same, for asyncio code."""

    async def discover_master(self, service_name: str) -> Address:
        errors: list[Exception] = []
        for _ in range(len(self.sentinels)):
            try:
                found = await self.ask_first(service_name)
            except (RedisError, OSError) as error:
                errors.append(error)
                continue
            if found is not None:
                return found
        raise _no_master(service_name, errors)

    async def ask_first(self, service_name: str) -> Address | None:
        found: Any = None
        first: Any = self.sentinels[0]
        try:
            found = await first.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", service_name)
        finally:
            if not found:
                _put_last(first, self.sentinels)
        return (str(found[0]), int(found[1])) if found else None


def _put_last(first: Any, sentinels: list[Any]) -> None:
    if sentinels[0] is first:  # else another caller has asked it, too, and has done so
        sentinels.append(sentinels.pop(0))


def _no_master(service: str, errors: Sequence[Exception]) -> Exception:
    for error in errors:
        if isinstance(error, AuthenticationError) or (
            isinstance(error, ResponseError) and str(error).startswith(("NOAUTH", "NOPERM", "WRONGPASS"))
        ):
            return AuthenticationError(f"{SAYS}{error}")
    why = f": {errors[0]}" if errors else ""
    return sentinel.MasterNotFoundError(f"no sentinel names a master of {service!r}{why}")


class _Pool(sentinel.SentinelConnectionPool):
    """Connections to the master. One to a former master is closed before it is used again."""

    _checked_at = 0.0
    _unknown = 0  # how many sentinels in a row did not name a master

    def get_connection(self, *args: Any, **options: Any) -> Any:
        self.check_master()
        pool: Any = super()
        return pool.get_connection(*args, **options)

    def check_master(self) -> None:
        """Ask one sentinel for the master if that is due. Without an answer, nothing changes.

        Only one, because each that does not answer costs the caller CONNECT_SECONDS; after that, the next one is due.
        """
        now = time.monotonic()
        if self.master_address is None or now < self._checked_at:
            return
        self._checked_at = now + CHECK_SECONDS
        pool: Any = super()
        try:
            found = self.sentinel_manager.ask_first(self.service_name)
            self._unknown = 0 if found else self._unknown + 1
            if found not in (None, self.master_address):
                pool.get_master_address()
        except (RedisError, OSError):
            self._unknown += 1
        if self._unknown >= len(self.sentinel_manager.sentinels):
            self._checked_at = time.monotonic() + _UNKNOWN_SECONDS

    def disconnect(self, inuse_connections: bool = True) -> None:  # redis-py's signature
        """Close connections; if those in use are closed, too, then also those to the sentinels."""
        super().disconnect(inuse_connections)
        if inuse_connections:
            self.sentinel_manager.close()


class _AsyncPool(asyncio_sentinel.SentinelConnectionPool):
    """The same, for asyncio code."""

    _checked_at = 0.0
    _unknown = 0  # how many sentinels in a row did not name a master

    async def get_connection(self, *args: Any, **options: Any) -> Any:
        await self.check_master()
        pool: Any = super()
        return await pool.get_connection(*args, **options)

    async def check_master(self) -> None:
        now = time.monotonic()
        if self.master_address is None or now < self._checked_at:
            return
        self._checked_at = now + CHECK_SECONDS
        pool: Any = super()
        manager: Any = self.sentinel_manager
        try:
            found = await manager.ask_first(self.service_name)
            self._unknown = 0 if found else self._unknown + 1
            if found not in (None, self.master_address):
                await pool.get_master_address()
        except (RedisError, OSError):
            self._unknown += 1
        if self._unknown >= len(manager.sentinels):
            self._checked_at = time.monotonic() + _UNKNOWN_SECONDS

    async def disconnect(self, inuse_connections: bool = True) -> None:  # redis-py's signature
        await super().disconnect(inuse_connections)
        if inuse_connections:
            for one in self.sentinel_manager.sentinels:
                await one.aclose()


def master_client(
    service: str,
    sentinels: Sequence[Address],
    options: dict[str, Any],
    sentinel_options: dict[str, Any],
    *,
    asynchronous: bool,
) -> Any:
    """Return a client of `redis` or `redis.asyncio` for the master of a service. Nothing is sent yet."""
    kind: Any = _AsyncSentinels if asynchronous else _Sentinels
    pool = _AsyncPool if asynchronous else _Pool
    return kind(sentinels, sentinel_kwargs=sentinel_options).master_for(service, connection_pool_class=pool, **options)


def is_left_behind(client: Any, connection: Any) -> bool:
    """Return True if a connection of this client leads to a former master."""
    address = getattr(getattr(client, "connection_pool", None), "master_address", None)
    return address is not None and connection is not None and address != (connection.host, connection.port)
