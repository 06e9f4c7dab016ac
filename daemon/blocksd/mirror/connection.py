"""Clients for Redis URLs, which fail fast, and the translation of their errors."""

from __future__ import annotations

import re
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote, urlsplit

from blocksd.errors import BlocksdError, Damaged, Misconfigured, Unavailable

if TYPE_CHECKING:
    from redis import RedisError

CONNECT_SECONDS = 1.0
REPLY_SECONDS = 2.0
"""How long the daemon waits for a reply. Then it goes on without Redis, so that the folder does not wait."""

MOST_CONNECTIONS = 10_000
"""How many connections a client may open: as many as a server takes unless it is configured otherwise. Each call that waits
for a reply has one, and redis-py would refuse the hundred and first."""

_SCRIPT_NOT_PERMITTED = ("NOPERM", "ACL failure in script", "The user executing the script can't")
"""Texts by which servers refuse a script's commands or keys to its user, without an error code."""

_BASIC_COMMAND_UNKNOWN = re.compile(
    r"(?:ERR )?unknown command ['`](?:HGET|HMGET|HGETALL|EVALSHA|ZRANGE|ZRANGEBYLEX|CLUSTER)['`]", re.IGNORECASE
)
_LISTS = ("redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")
_CLUSTERS = ("redis+cluster://", "rediss+cluster://")
_OPTIONS = ("ssl_", "sentinel_username", "sentinel_password", "username", "password", "client_name")
_LONGEST = 600  # of a message: any program may answer
_MAY_PASS = frozenset(
    (
        "ClusterError",
        "ReadOnlyError",
        "OutOfMemoryError",
        "NoScriptError",
        "ExecAbortError",
        "AskError",
        "TryAgainError",
    )
)
_WORDS_THAT_MAY_PASS = (
    *("LOADING", "MISCONF", "OOM", "READONLY", "CLUSTERDOWN", "TRYAGAIN", "MASTERDOWN", "NOREPLICAS", "BUSY"),
    *("NOSCRIPT", "UNKILLABLE", "MOVED", "ASK", "UNBLOCKED", "EXECABORT"),
)
_FORMS = (
    "redis://, rediss://, unix://, redis+sentinel://host:port,…/service, redis+cluster://host:port,…, "
    "and rediss+sentinel:// and rediss+cluster:// for TLS"
)


def connect(
    url: str, *, reply_seconds: float = REPLY_SECONDS, asynchronous: bool = False, protocol: int | None = None
) -> Any:
    """Return a client for the server at `url`, of `redis` or, if `asynchronous`, of `redis.asyncio`. Nothing is sent yet.

    Forms: `redis://`, `rediss://` and `unix://` as redis-py reads them; `redis+sentinel://[user:password@]host:port,
    host:port/service[/db]`, with `?sentinel_username=` and `&sentinel_password=` for the sentinels' own login;
    `redis+cluster://[user:password@]host:port,host:port`; `rediss+…` for TLS. An IPv6 address in a list of hosts is in
    brackets. A client by Sentinel follows a failover, and waits for no reply longer than REPLY_SECONDS.

    A command is sent once: redis-py would send it again when a reply is lost, and it would run twice. `protocol` is the
    version of RESP, 2 or 3.

    Raises:
        Misconfigured: `url` is none of these forms.
    """
    from blocksd.mirror import sentinel  # imported when needed, because redis-py loads slowly
    from blocksd.mirror.clients import LazyCluster, LendingPool

    package = "redis.asyncio" if asynchronous else "redis"
    redis, cluster, retry, backoff = map(
        import_module, (package, f"{package}.cluster", f"{package}.retry", "redis.backoff")
    )
    from redis import __version__, driver_info

    options: dict[str, Any] = {
        "decode_responses": True,
        "encoding_errors": "surrogateescape",
        "legacy_responses": False,
        "socket_timeout": reply_seconds,
        "socket_connect_timeout": CONNECT_SECONDS,
        "retry": retry.Retry(backoff.NoBackoff(), 0),
        "max_connections": MOST_CONNECTIONS,
        # Without it redis-py reads its version from its package's metadata, once for each connection.
        "driver_info": driver_info.DriverInfo(lib_version=__version__),
    }
    if protocol is not None:
        options["protocol"] = protocol
    try:
        scheme, _, rest = url.partition("://")
        if scheme in ("redis", "rediss", "unix"):
            parts = urlsplit(url)
            if scheme != "unix" and "@" in parts.path + parts.fragment:
                raise ValueError("'/', '?' and '#' in a password must be percent-encoded")
            if not asynchronous:
                return redis.Redis.from_url(url, **options)
            return redis.Redis.from_pool(LendingPool.from_url(url, **options))
        if scheme in _LISTS:
            place = _Place.of(rest)
            if scheme.startswith("rediss"):
                options["ssl"] = True
            if scheme.endswith("sentinel"):
                # A master that hangs is replaced: after each timeout the sentinels are asked for the present one.
                options["socket_timeout"] = min(reply_seconds, REPLY_SECONDS)
                service, _, db = place.path.strip("/").partition("/")
                if not service:
                    raise ValueError("the name of the service is missing, as in redis+sentinel://host:port/service")
                login = {name: place.options.pop(f"sentinel_{name}", None) for name in ("username", "password")}
                shared = {name: value for name, value in place.options.items() if name.startswith("ssl_")}
                options["db"] = int(db or 0)
                return sentinel.master_client(
                    service,
                    place.hosts,
                    {**options, **place.options},
                    {**options, "db": 0, "socket_timeout": CONNECT_SECONDS, **shared, **login},
                    asynchronous=asynchronous,
                )
            # A shard that is lost stops the namespaces on it, and no other ones.
            options |= {"require_full_coverage": False, **place.options}

            def cluster_client() -> Any:
                nodes = [cluster.ClusterNode(host, port) for host, port in place.hosts]
                with translated(url):
                    return cluster.RedisCluster(startup_nodes=nodes, **options)

            return cluster_client() if asynchronous else LazyCluster(cluster_client)
    except (ValueError, TypeError) as error:
        raise Misconfigured(f"{masked(url)} is not a Redis URL: {error}", url=masked(url)) from None
    raise Misconfigured(f"{masked(url)} is not a Redis URL: the forms are {_FORMS}", url=masked(url))


def database_of(url: str) -> int:
    """Return the number of the database that a URL names. Raises Misconfigured as `connect` does."""
    if url.startswith(_CLUSTERS):
        return 0
    client = connect(url)
    try:
        return int(client.connection_pool.connection_kwargs.get("db") or 0)
    finally:
        client.close()


class _Place(NamedTuple):
    """The parts of a URL with a list of hosts, after its scheme."""

    hosts: list[tuple[str, int]]
    path: str
    options: dict[str, Any]

    @classmethod
    def of(cls, rest: str) -> _Place:
        """Parse `[user:password@]host:port,…[/path][?options]`. Raises ValueError for anything else."""
        from redis.connection import parse_url

        place, _, query = rest.partition("?")
        authority, slash, path = place.partition("/")
        if "@" in path + query.partition("=")[0] or "#" in rest:
            raise ValueError("'/', '?' and '#' in a password must be percent-encoded")
        login, _, listed = authority.rpartition("@")
        parse: Any = parse_url
        options: dict[str, Any] = parse(f"redis://localhost?{query}")  # as redis-py reads them, and numbers as numbers
        del options["host"]
        if unknown := sorted(name for name in options if not name.startswith(_OPTIONS)):
            raise ValueError(f"unknown option {unknown[0]!r}")
        user, colon, password = login.partition(":")
        if user:
            options["username"] = unquote(user)
        if colon:
            options["password"] = unquote(password)
        return cls([_host(one) for one in listed.split(",")], slash + path, options)


def _host(place: str) -> tuple[str, int]:
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%\w]+)\]|([^\[\]:@]+)):([0-9]{1,5})", place)
    if found is None or int(found[3]) > 65_535:
        raise ValueError(f"{place[:80]!r} is not host:port (an IPv6 address is in brackets)")
    return found[1] or found[2], int(found[3])


def masked(url: str) -> str:
    """Return a URL without its passwords, for messages. The URL may be invalid."""
    url = re.sub(r"([?&]\w*pas\w*=)[^&#]*", r"\1***", url)
    scheme, mark, rest = url.partition("://") if "://" in url else ("", "", url)
    login, _, place = rest.rpartition("@")
    user, colon, _ = login.partition(":")
    return f"{scheme}{mark}{user}:***@{place}" if colon else f"{scheme}{mark}{rest}"


def is_answer(error: BaseException) -> bool:
    """Return True if the server has answered a command with this error: what follows are the replies to other commands."""
    import redis

    return isinstance(error, redis.ResponseError)


def translated(url: str) -> Translated:
    """Return a context that translates errors of redis-py.

    Raises:
        Misconfigured: the server refuses the login or a right, and a retry would not help.
        Damaged: it refuses a command because of the value at a key (of another type, for example).
        Unavailable: anything else: it cannot be reached or does not serve for now, or what answers is no Redis.
    """
    return Translated(url)


class Translated:
    """The context of `translated`. A class, because one is entered for every command, and a generator would cost more."""

    __slots__ = ("_url",)

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> None:
        pass

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if error is not None:
            raise_translated(error, self._url)


def raise_translated(error: BaseException, url: str) -> None:
    """Translate an error of redis-py, and raise the result. Errors of this package, and exits, are left alone."""
    if isinstance(error, BlocksdError) or not isinstance(error, Exception):
        return
    import redis

    if isinstance(error, redis.RedisError):
        raise _ours(error, url) from error
    if re.search("same (key )?slot", str(error)):  # RedisClusterException and its like
        raise _spread(url) from error
    if isinstance(error, redis.exceptions.RedisClusterException):
        raise _of_cluster(error, url) from error
    if isinstance(error, KeyError) and url.startswith(_CLUSTERS):  # redis-py looks for a slot in a map without it
        raise _without_slot(url) from error
    # Others of these; and what redis-py's parsing makes of bytes that are no reply.
    kind = "" if isinstance(error, OSError) or type(error).__module__.startswith("redis") else type(error).__name__
    why = f"what answers cannot be understood ({kind}: {error})" if kind else str(error)
    place = masked(url)
    raise Unavailable(f"Redis at {place} does not serve: {why}"[:_LONGEST], url=place) from error


def _ours(error: RedisError, url: str) -> BlocksdError:
    import redis

    place = masked(url)
    cause = error.__cause__ or error.__context__  # where redis.asyncio puts a login that was refused
    refusals = (
        redis.AuthenticationError,
        redis.exceptions.AuthorizationError,
        redis.exceptions.AuthenticationWrongNumberOfArgsError,
    )
    for one in (error, cause):
        is_answer = isinstance(one, redis.ResponseError)
        if isinstance(one, redis.exceptions.NoPermissionError) or (is_answer and _lacks_right(str(one))):
            message = f"Redis at {place} does not permit this to its user: {one}"
            return Misconfigured(message[:_LONGEST], url=place, lacks="right")
        if isinstance(one, refusals) or (is_answer and str(one).partition(" ")[0] in ("NOAUTH", "WRONGPASS")):
            from blocksd.mirror.sentinel import LOGIN, SAYS

            why = "it needs a password, and the URL has none" if str(one).startswith("HELLO must be called") else one
            message = f"Redis at {place} refuses the login: {why}"
            facts = {"hint": LOGIN} if str(one).startswith(SAYS) else {}
            return Misconfigured(message[:_LONGEST], url=place, lacks="login", **facts)
    if isinstance(error, redis.exceptions.ClusterCrossSlotError):
        return _spread(url)
    if isinstance(error, redis.exceptions.AskError) and not url.startswith(_CLUSTERS):  # MOVED is one
        message = f"{place} is a node of a cluster, which is named redis+cluster://host:port,host:port"
        return Misconfigured(message[:_LONGEST], url=place, lacks="cluster")
    if isinstance(error, redis.InvalidResponse):
        return Unavailable(f"what answers at {place} is not Redis: {error}"[:_LONGEST], url=place)
    is_refused = isinstance(error, redis.ResponseError) and _MAY_PASS.isdisjoint(
        kind.__name__ for kind in type(error).__mro__
    )
    if is_refused and _BASIC_COMMAND_UNKNOWN.match(str(error)):
        return no_server(url)
    if is_refused and str(error).partition(" ")[0] not in _WORDS_THAT_MAY_PASS:
        return Damaged(f"Redis at {place} refuses a command: {error}"[:_LONGEST], url=place)
    return Unavailable(f"Redis at {place} does not serve: {error}"[:_LONGEST], url=place)


def no_server(url: str) -> Misconfigured:
    """Return the error for what does not know commands that every server knows, such as a sentinel."""
    place = masked(url)
    message = (
        f"{place} is a sentinel, or lacks commands of Redis: sentinels are named redis+sentinel://host:port/service"
    )
    return Misconfigured(message[:_LONGEST], url=place)


def _of_cluster(error: Exception, url: str) -> BlocksdError:
    """Translate an error of a cluster's client by what one of the nodes has answered."""
    import redis

    place, cause = masked(url), error.__cause__ or error.__context__
    while cause is not None and not isinstance(cause, redis.RedisError):
        cause = cause.__cause__ or cause.__context__
    if "cluster support disabled" in str(cause):
        message = f"{place} is no cluster: a single server is named redis://host:port"
        return Misconfigured(message[:_LONGEST], url=place)
    if isinstance(error, redis.exceptions.SlotNotCoveredError):
        return _without_slot(url)
    if isinstance(cause, redis.RedisError):
        return _ours(cause, url)
    return Unavailable(f"Redis at {place} does not serve: {error}"[:_LONGEST], url=place)


def _without_slot(url: str) -> Unavailable:
    place = masked(url)
    message = f"Redis at {place} does not serve: no node of the cluster has the slot of the namespace"
    return Unavailable(message[:_LONGEST], url=place)


def check_namespace(url: str, namespace: str) -> None:
    """Raise Misconfigured if the keys of a namespace would be spread over a cluster."""
    if url.startswith(_CLUSTERS) and not namespace.startswith("{"):
        raise _spread(url)


def _spread(url: str) -> Misconfigured:
    place = masked(url)
    message = f"the keys of the namespace are spread over the cluster {place}: put it in braces, such as {{blocks}}"
    return Misconfigured(message[:_LONGEST], url=place, lacks="braces")


def _lacks_right(text: str) -> bool:
    return any(part in text for part in _SCRIPT_NOT_PERMITTED)
