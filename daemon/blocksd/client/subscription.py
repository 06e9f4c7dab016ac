"""The connection on which a watch listens: blocking, and for asyncio."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from blocksd.client.runner import reading_mirror
from blocksd.client.watching import Connect, Heard, Listen, Ping, Subscribe
from blocksd.errors import Unavailable
from blocksd.mirror.connection import connect
from blocksd.settings.record import looked_up

if TYPE_CHECKING:
    from blocksd.mirror.keys import Keys

_REPLY_SECONDS = 5.0
_PROTOCOL = 2  # in which a pong comes in order with the messages, and looks like one


def _heard(message: dict[str, Any] | None) -> Heard | None:
    return None if message is None else Heard(message["type"], message["channel"] or "", str(message["data"]))


def _pubsub(client: Any, keys: Keys) -> Any:
    if hasattr(client, "get_node_from_key"):  # a cluster: only the node that has the keys tells in their order
        return client.pubsub(node=client.get_node_from_key(keys.meta))
    return client.pubsub()


def _asks_sentinels(client: Any) -> bool:
    return hasattr(getattr(client, "connection_pool", None), "check_master")


def _check_place(client: Any, pubsub: Any) -> None:
    """Raise Unavailable when the connection leads to a server that lives on after another was promoted: it says nothing."""
    from blocksd.mirror.sentinel import is_left_behind

    if is_left_behind(client, pubsub.connection):
        raise Unavailable("the server listened to is no longer the master")


class Subscription:
    """What is published on the channels of one namespace, for blocking code. A `Connect` opens it, also anew."""

    def __init__(self, url: str, keys: Keys) -> None:
        self._url = url
        self._keys = keys
        self._client: Any = None
        self._pubsub: Any = None

    def perform(self, step: Connect | Subscribe | Ping | Listen) -> Heard | None:
        """Raises Unavailable when Redis does not serve."""
        with reading_mirror(self._url):
            if isinstance(step, Listen):
                return _heard(self._pubsub.get_message(timeout=step.seconds))
            if isinstance(step, Subscribe):
                (self._pubsub.unsubscribe if step.off else self._pubsub.subscribe)(*step.channels)
            elif isinstance(step, Ping):
                if _asks_sentinels(self._client):
                    self._client.connection_pool.check_master()
                _check_place(self._client, self._pubsub)
                self._pubsub.ping()
            else:
                self.close()
                self._url = looked_up(self._url)
                # Kept, since a connection is cut when the client it came from is collected.
                self._client = connect(self._url, reply_seconds=_REPLY_SECONDS, protocol=_PROTOCOL)
                self._pubsub = _pubsub(self._client, self._keys)
        return None

    def close(self) -> None:
        if self._client is not None:
            with suppress(Exception):  # of a connection that is given up
                self._pubsub.close()
                self._client.close()
            self._client = self._pubsub = None


class AsyncSubscription:
    """What is published on the channels of one namespace, for asyncio code. A `Connect` opens it, also anew."""

    def __init__(self, url: str, keys: Keys) -> None:
        self._url = url
        self._keys = keys
        self._client: Any = None
        self._pubsub: Any = None

    async def perform(self, step: Connect | Subscribe | Ping | Listen) -> Heard | None:
        """Raises Unavailable when Redis does not serve."""
        with reading_mirror(self._url):
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
                self._client = connect(self._url, reply_seconds=_REPLY_SECONDS, protocol=_PROTOCOL, asynchronous=True)
                if hasattr(self._client, "get_node_from_key"):
                    await self._client.initialize()  # else it does not know which node has the keys
                self._pubsub = _pubsub(self._client, self._keys)
        return None

    async def close(self) -> None:
        if self._client is not None:
            with suppress(Exception):  # of a connection that is given up
                await self._pubsub.aclose()
                await self._client.aclose()
            self._client = self._pubsub = None
