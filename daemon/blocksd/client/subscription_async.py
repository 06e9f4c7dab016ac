"""The connection on which a watch listens."""

from contextlib import suppress
from typing import Any

from blocksd.errors import Unavailable
from blocksd.mirror.connection import connect
from blocksd.mirror.keys import Keys
from blocksd.protocol import wire
from blocksd.protocol.steps import Connect, Heard, Listen, Ping, Subscribe
from blocksd.settings.record import looked_up


class AsyncSubscription:
    """A connection that listens to channels of one namespace. A `Connect` opens it, also anew."""

    def __init__(self, url: str, keys: Keys) -> None:
        self._url = url
        self._keys = keys
        self._client: Any = None
        self._pubsub: Any = None

    async def perform(self, step: Connect | Subscribe | Ping | Listen) -> Heard | None:
        """Raises Unavailable when Redis does not serve."""
        with wire.reading_mirror(self._url):
            if isinstance(step, Listen):
                return _heard(await self._pubsub.get_message(timeout=step.seconds))
            if isinstance(step, Subscribe):
                await (self._pubsub.unsubscribe if step.off else self._pubsub.subscribe)(*step.channels)
            elif isinstance(step, Ping):
                if _asks_sentinels(self._client):
                    await self._client.connection_pool.check_master()
                _check_place(self._client, self._pubsub)
                await self._pubsub.ping()
            else:
                await self.close()
                self._url = looked_up(self._url)
                # Kept, since a connection is cut when the client it came from is collected.
                self._client = connect(
                    self._url, reply_seconds=wire.LISTEN_REPLY_SECONDS, protocol=wire.PROTOCOL, asynchronous=True
                )
                if _is_cluster(self._client):  # asyncio only: else it does not know which node has the keys
                    await self._client.initialize()  # asyncio only
                self._pubsub = _pubsub(self._client, self._keys)
        return None

    async def close(self) -> None:
        """Close the connection, if there is one."""
        if self._client is not None:
            with suppress(Exception):  # of a connection that is given up
                await self._pubsub.aclose()
                await self._client.aclose()
            self._client = self._pubsub = None


def _heard(message: dict[str, Any] | None) -> Heard | None:
    return None if message is None else Heard(message["type"], message["channel"] or "", str(message["data"]))


def _is_cluster(client: Any) -> bool:
    return hasattr(client, "get_node_from_key")


def _pubsub(client: Any, keys: Keys) -> Any:
    if _is_cluster(client):  # only the node that has the keys tells in their order
        return client.pubsub(node=client.get_node_from_key(keys.meta))
    return client.pubsub()


def _asks_sentinels(client: Any) -> bool:
    return hasattr(getattr(client, "connection_pool", None), "check_master")


def _check_place(client: Any, pubsub: Any) -> None:
    """Raise Unavailable when the connection leads to a server that lives on after another was promoted: it says nothing."""
    from blocksd.mirror.sentinel import is_left_behind  # not before it is needed: redis-py takes its time

    if is_left_behind(client, pubsub.connection):
        raise Unavailable("the server listened to is no longer the master")
