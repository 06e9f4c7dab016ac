"""A Lua script of the package, called on a server now, with its outcome waited for later."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from blocksd.connection import translated


class Script:
    """One script on one server, and at most one call of it under way, on a connection of its own.

    Both steps of a call raise Unavailable when the server does not serve, Misconfigured when it refuses the login, and
    an error of the script's own as it is; after any of them nothing is under way.
    """

    def __init__(self, client: Any, name: str, *, url: str) -> None:
        self._client = client
        self._url = url
        self._script = client.register_script(files("blocksd").joinpath(name).read_text(encoding="utf-8"))
        self._connection: Any = None
        self._under_way: tuple[Any, ...] | None = None

    @property
    def server(self) -> str | None:
        """What the server has called itself, and its version; None before the first call, and of a cluster."""
        greeting = getattr(self._connection, "handshake_metadata", None) or {}
        name, version = greeting.get("server"), greeting.get("version")
        return f"{str(name).capitalize()} {version}" if name and version else None

    @property
    def is_under_way(self) -> bool:
        """Whether a call has been sent that was not waited for."""
        return self._under_way is not None

    def send(self, keys: tuple[str, ...], arguments: tuple[str, ...]) -> None:
        """Call the script, which may be run twice if the connection was lost: `outcome` tells of the later one."""
        import redis

        words = self._under_way = (self._script.sha, len(keys), *keys, *arguments)
        try:
            with translated(self._url):
                if self._connection is None and hasattr(self._client, "connection_pool"):
                    self._connection = self._client.connection_pool.get_connection()
                if self._connection is not None:
                    try:
                        self._connection.send_command("EVALSHA", *words)
                    except redis.ConnectionError:  # the server went and came back while nothing was sent
                        self._connection.disconnect()
                        self._connection.send_command("EVALSHA", *words)
        except BaseException:
            self._abandon()
            raise

    def outcome(self) -> Any:
        """What the script returns in the call that is under way, which then is no more."""
        import redis

        assert self._under_way is not None
        words, self._under_way = self._under_way, None
        try:
            with translated(self._url):
                try:
                    if self._connection is not None:
                        return self._connection.read_response()
                    return self._client.evalsha(*words)  # a cluster's client finds the node for each command
                except redis.exceptions.NoScriptError:
                    self._client.script_load(self._script.script)
                    return self._client.evalsha(*words)
        except BaseException:
            self._abandon()
            raise

    def _abandon(self) -> None:
        """The connection is in doubt: an outcome read from it later might be that of another call."""
        self._under_way = None
        if self._connection is not None:
            self._connection.disconnect()
