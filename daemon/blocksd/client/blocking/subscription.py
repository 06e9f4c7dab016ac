# Made of subscription_async.py by tests/generate_client.py: edit that, and run this.
"""The connection on which a watch listens."""

from contextlib import suppress
from typing import Any

from blocksd.errors import Unavailable
from blocksd.mirror.connection import connect
from blocksd.mirror.keys import Keys
from blocksd.protocol import wire
from blocksd.protocol.steps import Connect, Heard, Listen, Ping, Subscribe
from blocksd.settings.record import looked_up

_SHARDED = ("smessage", "ssubscribe", "sunsubscribe")


class Subscription:
    """A connection that listens to channels of one namespace. A `Connect` opens it, also anew."""

    def __init__(self, url: str, keys: Keys) -> None:
        self._url = url
        self._keys = keys
        self._client: Any = None
        self._pubsub: Any = None

    def perform(self, step: Connect | Subscribe | Ping | Listen) -> Heard | None:
        """Raises Unavailable when Redis does not serve."""
        with wire.reading_mirror(self._url):
            if isinstance(step, Listen):
                return _heard(self._pubsub.get_message(timeout=step.seconds), self._pubsub)
            if isinstance(step, Subscribe):
                command = ("s" if _is_cluster(self._client) else "") + ("unsubscribe" if step.off else "subscribe")
                getattr(self._pubsub, command)(*step.channels)
            elif isinstance(step, Ping):
                if _is_cluster(self._client):  # by a command on the key the client learns which node has it
                    self._client.exists(self._keys.meta)
                elif _asks_sentinels(self._client):
                    self._client.connection_pool.check_master()
                    _check_role(self._client.execute_command("HELLO"))  # on another connection to the same server
                _check_place(self._client, self._pubsub, self._keys)
                self._pubsub.ping()
            else:
                self.close()
                self._url = looked_up(self._url)
                # Kept, since a connection is cut when the client it came from is collected.
                self._client = connect(
                    self._url, reply_seconds=wire.LISTEN_REPLY_SECONDS, protocol=wire.PROTOCOL, asynchronous=False
                )
                self._pubsub = _pubsub(self._client, self._keys)
        return None

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._client is not None:
            with suppress(Exception):  # of a connection that is given up
                self._pubsub.close()
                self._client.close()
            self._client = self._pubsub = None


def _heard(message: dict[str, Any] | None, pubsub: Any) -> Heard | None:
    """Return a message, its kind as without shards. Raises Unavailable if the node has ended a subscription: the slot has moved."""
    if message is None:
        return None
    kind, channel = message["type"], message["channel"] or ""
    if kind == "sunsubscribe" and channel in pubsub.shard_channels:
        raise Unavailable("another node of the cluster has the namespace now")
    return Heard(kind.removeprefix("s") if kind in _SHARDED else kind, channel, str(message["data"]))


def _is_cluster(client: Any) -> bool:
    return hasattr(client, "get_node_from_key")


def _pubsub(client: Any, keys: Keys) -> Any:
    """Return a subscription that is not connected yet.

    On a cluster it is at one node, the one that has the keys: only that one tells in their order. redis-py's own follows the
    slots from node to node, so that a subscriber would not learn when it may have missed something.
    """
    if not _is_cluster(client):
        return client.pubsub()
    at_node = client.pubsub(node=client.get_node_from_key(keys.meta))
    plain: Any = type(at_node).__base__
    return plain(at_node.connection_pool)


def _asks_sentinels(client: Any) -> bool:
    return hasattr(getattr(client, "connection_pool", None), "check_master")


def _check_role(greeting: list[Any]) -> None:
    """Raise Unavailable unless the server is a master: what a replica passes on may come later than what its master shows."""
    if dict(zip(greeting[::2], greeting[1::2], strict=True)).get("role") != "master":
        raise Unavailable("the server listened to is a replica now")


def _check_place(client: Any, pubsub: Any, keys: Keys) -> None:
    """Raise Unavailable when the connection leads to a server that lives on after another was promoted.

    By Sentinel, such a server says nothing. In a cluster, messages reach a replica apart from the keys, and later.
    """
    from blocksd.mirror.sentinel import is_left_behind  # not before it is needed: redis-py takes its time

    connection = pubsub.connection
    if _is_cluster(client):
        node = client.get_node_from_key(keys.meta)
        is_elsewhere = connection is not None and (node.host, node.port) != (connection.host, connection.port)
    else:
        is_elsewhere = is_left_behind(client, connection)
    if is_elsewhere:
        raise Unavailable("the server listened to is no longer the master")
