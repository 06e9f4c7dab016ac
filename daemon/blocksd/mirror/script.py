"""Calls of a Lua script: sent now, with the result read later."""

from __future__ import annotations

from hashlib import sha1
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from hiredis import pack_command

from blocksd.errors import Unavailable
from blocksd.mirror.connection import raise_translated, translated

if TYPE_CHECKING:
    from collections.abc import Sequence


def packed(*words: str | int) -> list[bytes]:
    """Return a command for `send_packed_command`: redis-py would look at each word in Python."""
    return [pack_command(words)]  # type: ignore[arg-type]  # its stub takes one word


class Script:
    """One script on one server, with at most one call under way, on its own connection.

    Both steps of a call raise Unavailable when the server does not serve, Damaged when a command of the script fails,
    Misconfigured when the server refuses the login; after any of them nothing is under way.
    """

    def __init__(self, client: Any, name: str, *, url: str) -> None:
        self._client = client
        self._url = url
        self.is_on_cluster = not hasattr(client, "connection_pool")
        """True if the keys may be spread over several nodes."""
        self._text = files(__package__).joinpath(name).read_text(encoding="utf-8")
        self._name = sha1(self._text.encode(), usedforsecurity=False).hexdigest()  # as the server calls it
        self._connection: Any = None
        self._has_sentinels = False
        # The words of a call that was sent, and whose result was not read.
        self.under_way: tuple[Any, ...] | None = None

    @property
    def server(self) -> str | None:
        """The server's name and version; None before the first call, and for a cluster."""
        greeting = getattr(self._connection, "handshake_metadata", None) or {}
        name, version = greeting.get("server"), greeting.get("version")
        return f"{str(name).capitalize()} {version}" if name and version else None

    def send(self, keys: tuple[str, ...], arguments: tuple[str, ...]) -> None:
        """Call the script. It may run twice if the connection was lost; `outcome` returns the later result."""
        words = self.under_way = (len(keys), *keys, *arguments)
        try:
            self._connect()
            if self._connection is not None:
                command = packed("EVALSHA", self._name, *words)
                try:
                    self._connection.send_packed_command(command)
                except _redis().ConnectionError:  # the server went and came back while nothing was sent
                    self._connection.disconnect()
                    self._connection.connect()
                    self._connection.send_packed_command(command)
        except BaseException as error:
            self._abandon()
            raise_translated(error, self._url)
            raise

    def outcome(self) -> list[Any]:
        """Wait for the call under way, and return its result."""
        assert self.under_way is not None
        words, self.under_way = self.under_way, None
        try:
            try:
                if self._connection is not None:
                    return _rows(self._connection.read_response(), self._url)
            except _redis().exceptions.NoScriptError:
                pass
            # A cluster's client finds the node for each command.
            return _rows(self._evaluate(words), self._url)
        except BaseException as error:
            self._abandon()
            raise_translated(error, self._url)
            raise

    def call(self, keys: Sequence[str], arguments: Sequence[str]) -> list[Any]:
        """Call the script on any connection, and return its result."""
        with translated(self._url):
            return _rows(self._evaluate((len(keys), *keys, *arguments)), self._url)

    def _evaluate(self, words: tuple[Any, ...]) -> Any:
        try:
            return self._client.evalsha(self._name, *words)
        except _redis().exceptions.NoScriptError:
            # With its text, which the server keeps, and not loaded first: it may be flushed again in between.
            return self._client.eval(self._text, *words)

    def _connect(self) -> None:
        """Connect, if necessary, to the present master."""
        if self.is_on_cluster:
            return
        if self._connection is None:
            pool = self._client.connection_pool
            self._connection, self._has_sentinels = pool.get_connection(), hasattr(pool, "master_address")
            return
        if self._has_sentinels:
            from blocksd.mirror.sentinel import is_left_behind

            if is_left_behind(self._client, self._connection):
                self._connection.disconnect()
        if not self._connection.is_connected:
            # By itself it would connect to its old address, without asking the sentinels.
            self._connection.connect()

    def _abandon(self) -> None:
        """Drop the connection: a result read from it later might belong to another call."""
        self.under_way = None
        if self._connection is not None:
            self._connection.disconnect()


def _redis() -> Any:
    """Import redis-py, which loads slowly, where its errors are told apart."""
    import redis

    return redis


def _rows(outcome: Any, url: str) -> list[Any]:
    """Return the list that a script returned. Raises Unavailable if the server is not Redis."""
    if not isinstance(outcome, list) or not outcome:
        from blocksd.mirror.connection import masked

        raise Unavailable(f"what answers at {masked(url)} is not Redis: it answers a script with {outcome!r:.80}")
    return outcome
