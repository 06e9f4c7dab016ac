# Made of transport_async.py by tests/generate_client.py: edit that, and run this.
"""The connection on which a client asks: commands and requests to one namespace of one server."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from time import sleep
from typing import Any
from weakref import WeakSet

from blocksd.errors import Misconfigured, Unavailable
from blocksd.mirror.connection import check_namespace, connect, is_answer
from blocksd.mirror.keys import Keys
from blocksd.model.revision import OPERATOR
from blocksd.protocol import wire
from blocksd.protocol.sight import Written, no_mirror
from blocksd.protocol.wire import Command, Request


class Transport:
    """One namespace of one server. Several threads may use it at once."""

    def __init__(self, url: str, namespace: str, by: str | None = None) -> None:
        """Nothing is sent yet. `by` says who the operator is.

        Raises:
            Misconfigured: `url` is none of Redis, `namespace` is none, or it is not in braces and `url` is of a cluster.
        """
        self.url = url
        self.by = by
        self.keys = Keys(namespace)
        check_namespace(url, namespace)
        self.may_run_scripts = True
        """False once the server has refused a script."""
        self.opened: WeakSet[Any] = WeakSet()  # watches, to be closed with the client
        self.labels: dict[str, str] = {}  # of blocks that were read by id: hints, which are checked at each use
        self.written = Written()
        self._connect()

    def _connect(self) -> None:
        self._redis = connect(self.url, reply_seconds=wire.REPLY_SECONDS, asynchronous=False)

    def ask(self, *commands: Command, together: bool = False) -> list[Any]:
        """Send commands in one round trip; their replies. With `together`, no other command comes between them.

        Raises:
            Unavailable: Redis does not serve, or the mirror is being repaired.
        """
        if not commands:
            return []
        while True:
            try:
                return self._send(commands, together=together)
            except (Unavailable, Misconfigured) as error:
                self._map_cluster()
                # Asked again where the daemon's server is now. What is asked are reads, and requests, which are done once.
                self.url = wire.moved_to(self.url, error)
                self._connect()

    def _map_cluster(self) -> None:
        """Ask a cluster again which node has which slots: redis-py would go on asking a node that is lost."""
        if hasattr(self._redis, "get_node_from_key"):
            with suppress(Exception):  # the call has failed anyway
                self._redis.nodes_manager.initialize()

    def _send(self, commands: Sequence[Command], *, together: bool) -> list[Any]:
        with wire.reading_mirror(self.url):
            pool = getattr(self._redis, "connection_pool", None)
            if pool is not None and not together:
                return self._send_on(pool, commands)
            pipeline = self._redis.pipeline(transaction=together)  # of a cluster, too, which has several pools
            for command in commands:
                pipeline.execute_command(*command)
            replies: list[Any] = pipeline.execute()
            return replies

    def _send_on(self, pool: Any, commands: Sequence[Command]) -> list[Any]:
        """Send commands on a connection, as a pipeline of redis-py does at twice the cost of what it sends."""
        connection = pool.get_connection()
        replies: list[Any] = []
        refusal: Exception | None = None
        try:
            data = wire.packed(commands)
            connection.send_packed_command([data])
            for command in commands:
                try:
                    replies.append(self._redis.parse_response(connection, command[0]))
                except Exception as error:
                    if not is_answer(error):
                        raise
                    refusal = refusal or error  # after it come the replies to the other commands
        except BaseException:
            connection.disconnect()  # replies that are still to come are nobody's
            raise
        finally:
            pool.release(connection)
        if refusal is not None:
            raise refusal
        return replies

    def read(self, *commands: Command, together: bool = False) -> list[Any]:
        """Send commands that read the mirror, as `ask` does: what they do not find is not there.

        Raises:
            Unavailable: Redis does not serve, or it has no mirror, or one that is being built anew.
        """
        if not commands:
            return []
        # Last: a mirror that is built anew is without its epoch from before the beginning.
        *replies, epoch = self.ask(*commands, ("HGET", self.keys.meta, "epoch"), together=together)
        if epoch is None:
            raise no_mirror(self.url)
        return replies

    def request(self, actor: str, op: str, args: Mapping[str, Any] | None = None, **terms: Any) -> dict[str, Any]:
        """Make one request of the daemon; its reply. `terms` are those of `Request`.

        Raises:
            Unavailable: there was no reply in time; whether it was done is not known. Facts: `request_id`.
            NotFound: `actor` is no agent that is known.
            BlocksdError: the daemon refuses.
        """
        if actor == OPERATOR:
            terms = {"by": self.by, **terms}
        label = None
        try:
            reply = self._exchange(Request(self.keys, actor, op, args=args, **terms))
            label = reply.get("label")
        finally:  # also after an error: it may have been done
            self.written.add(op, args, label)
        return reply

    def _exchange(self, request: Request) -> dict[str, Any]:
        while request.is_open:
            request.aim(self._master())
            try:
                request.check(self.ask(*request.check_commands()))
                replies = self.ask(*request.commands())
            except Unavailable as error:
                sleep(request.failed(error))
                continue
            if (reply := request.take(replies)) is not None:
                return reply
        raise request.unanswered()

    def _master(self) -> object:
        """Return the server that sentinels name as the master; None without sentinels, or before the first connection."""
        pool: Any = getattr(self._redis, "connection_pool", None)
        if not hasattr(pool, "check_master"):
            return None
        pool.check_master()
        return pool.master_address

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()
