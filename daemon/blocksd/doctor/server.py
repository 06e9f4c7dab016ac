"""Facts about a Redis server that a daemon depends on."""

from __future__ import annotations

import re
import time
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from blocksd.errors import BlocksdError
from blocksd.mirror.acl import daemon_commands
from blocksd.mirror.connection import connect, masked, no_server, translated

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from blocksd.mirror.keys import Keys

_ROUND_TRIPS = 9
_WITH_SUBCOMMANDS = ("client", "memory", "script", "xinfo")


@dataclass(frozen=True, slots=True)
class Memory:
    """The server's use and limit of memory, in bytes (0: no limit), and what it does at the limit."""

    used: int
    most: int
    policy: str


@dataclass(frozen=True, slots=True)
class Persistence:
    """The persistence of a server: by an append-only file, by snapshots (None: unknown), and True if the last write failed."""

    appends: bool
    snapshots: str | None
    has_failed: bool


@dataclass(frozen=True, slots=True)
class Listening:
    """The addresses where a server listens; `is_protected`: clients without a password must be on its machine."""

    bind: str
    port: int
    is_protected: bool


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answers. `url` has no password; `hosts` are those it names, none for a Unix socket.

    `asks_login`: the server requires a password; `has_login`: `url` gives one. `offset` is by how many seconds its clock is
    ahead. `lacking` are the ACL rules that `user` lacks. None stands for what this user may not ask.
    """

    url: str
    hosts: tuple[str, ...]
    user: str
    has_login: bool
    asks_login: bool
    kind: str
    version: str
    mode: str
    role: str
    latency: float
    offset: float | None = None
    memory: Memory | None = None
    persistence: Persistence | None = None
    listening: Listening | None = None
    lacking: tuple[str, ...] | None = None


def look(url: str, keys: Keys) -> Server:
    """Collect the facts about the server at `url`, and the rights of its user in a namespace. Nothing is written.

    Raises:
        Unavailable: it does not serve.
        Misconfigured: it refuses the login, or `url` is none, or that of a sentinel.
    """
    client = connect(url)
    try:
        with translated(url):
            node = client
            if hasattr(client, "get_node_from_key"):  # a cluster: the node that has the namespace
                node = client.get_redis_connection(client.get_node_from_key(keys.meta))
            return _look(node, url, keys)
    finally:
        client.close()


def _look(client: Any, url: str, keys: Keys) -> Server:
    parts = urlsplit(url)
    places = parts.netloc.rpartition("@")[2].split(",") if parts.scheme != "unix" else []
    has_login = parts.password is not None or "password=" in parts.query
    hello = client.execute_command("HELLO")
    if hello["mode"] == "sentinel":
        raise no_server(url)
    config = _ask(client, "CONFIG", "GET", "save", "bind", "port", "protected-mode")
    return Server(
        url=masked(url),
        hosts=tuple(urlsplit(f"//{place}").hostname or "localhost" for place in places),
        user=_ask(client, "ACL", "WHOAMI") or parts.username or "default",
        has_login=has_login,
        asks_login=has_login and _asks_login(url),
        kind={"redis": "Redis", "valkey": "Valkey"}.get(hello["server"], hello["server"]),
        version=hello["version"],
        mode=hello["mode"],
        role=hello["role"],
        latency=_latency(client),
        offset=_offset(client),
        memory=_memory(client),
        persistence=_persistence(client, config),
        listening=_listening(config),
        lacking=_lacking(client, keys),
    )


def _asks_login(url: str) -> bool:
    """Return True if the server refuses clients without a password. Sentinels and clusters are not tried."""
    if "+" in url.partition("://")[0]:
        return True
    bare = re.sub(r"password=[^&#]*", "", re.sub(r"://[^/@]*@", "://", url))
    client = connect(bare)
    try:
        with translated(bare):
            client.ping()
    except BlocksdError:
        return True
    finally:
        client.close()
    return False


def _ask(client: Any, *words: str) -> Any:
    """Return the answer to a command; None: this user may not ask, or a key is of another type."""
    import redis

    try:
        return client.execute_command(*words)
    except redis.exceptions.NoPermissionError:
        return None
    except redis.ResponseError as error:
        if str(error).lower().startswith(("wrongtype", "moved", "err", "unknown")):  # it does not know the command
            return None
        raise


def _latency(client: Any) -> float:
    """Return the median of some round trips, in seconds."""
    times = []
    for _ in range(_ROUND_TRIPS):
        begun = time.perf_counter()
        client.echo("")  # a server that cannot write to its disk refuses a PING
        times.append(time.perf_counter() - begun)
    return median(times)


def _offset(client: Any) -> float | None:
    before = time.time()
    answer = _ask(client, "TIME")
    after = time.time()
    return None if answer is None else int(answer[0]) + int(answer[1]) / 1e6 - (before + after) / 2


def _memory(client: Any) -> Memory | None:
    info = _ask(client, "INFO", "memory")
    if not info or "maxmemory_policy" not in info:
        return None
    return Memory(int(info["used_memory"]), int(info["maxmemory"]), info["maxmemory_policy"])


def _persistence(client: Any, config: Mapping[str, str] | None) -> Persistence | None:
    info = _ask(client, "INFO", "persistence")
    if not info or "aof_enabled" not in info:
        return None
    failed = "err" in (info["aof_last_write_status"], info["rdb_last_bgsave_status"])
    return Persistence(bool(info["aof_enabled"]), None if not config else config.get("save", ""), failed)


def _listening(config: Mapping[str, str] | None) -> Listening | None:
    if not config or "bind" not in config:
        return None
    return Listening(config["bind"], int(config.get("port", "0")), config.get("protected-mode") == "yes")


def _lacking(client: Any, keys: Keys) -> tuple[str, ...] | None:
    """Return the ACL rules that this user lacks to be the daemon's.

    Each command is queued in a transaction that is then discarded: the server checks the rights when it queues.
    """
    import redis

    lacking: list[str] = []
    with _connection(client) as connection:
        try:
            _send(connection, "MULTI")
        except redis.ResponseError:
            return None
        for words in daemon_commands(keys):
            try:
                _send(connection, *words)
            except redis.exceptions.NoPermissionError as error:
                lacking.append(_rule(words, str(error), keys))
            except redis.ResponseError:
                continue  # a replica, or one without memory left, refuses for other reasons
    return tuple(dict.fromkeys(lacking))


@contextmanager
def _connection(client: Any) -> Iterator[Any]:
    """Provide a connection that is closed afterwards, which discards the transaction."""
    connection = client.connection_pool.get_connection()
    try:
        yield connection
    finally:
        connection.disconnect()
        client.connection_pool.release(connection)


def _send(connection: Any, *words: str | int) -> Any:
    connection.send_command(*words)
    return connection.read_response()


def _rule(words: tuple[str | int, ...], refusal: str, keys: Keys) -> str:
    """Return the ACL rule that a refusal names."""
    if "to run the" in refusal:
        command = str(words[0]).lower()
        return f"+{command}|{str(words[1]).lower()}" if command in _WITH_SUBCOMMANDS else f"+{command}"
    return f"&{keys.namespace}:*" if "channel" in refusal else f"~{keys.namespace}:*"
