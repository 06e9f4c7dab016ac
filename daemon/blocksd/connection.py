"""A Redis URL → a client that fails fast, and what its failures mean."""

from __future__ import annotations

import re
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from blocksd.errors import Misconfigured, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

CONNECT_SECONDS = 1.0
REPLY_SECONDS = 2.0
"""How long the daemon waits for Redis before it goes on without: the folder does not wait with it."""

_SCRIPT_NOT_PERMITTED = ("NOPERM", "ACL failure in script", "The user executing the script can't")
"""How servers say, without an error code, that a script's commands or keys are more than its user may touch."""

_FORMS = "redis://, rediss://, unix://, redis+sentinel://host:port,…/service or redis+cluster://host:port,…"


def connect(
    url: str, *, reply_seconds: float = REPLY_SECONDS, asynchronous: bool = False, protocol: int | None = None
) -> Any:
    """A client for the server at `url`, of `redis` or, `asynchronous`, of `redis.asyncio`; nothing is sent yet.

    Forms: `redis://`, `rediss://` and `unix://` as redis-py reads them; `redis+sentinel://[user:password@]host:port,
    host:port/service[/db]`; `redis+cluster://[user:password@]host:port,host:port`. A command is sent once: redis-py
    would send it again when a reply is lost, and it would run twice. `protocol` is that of the wire (RESP 2 or 3).

    Raises:
        Misconfigured: `url` is none of these forms.
    """
    package = "redis.asyncio" if asynchronous else "redis"
    redis, sentinel, cluster, retry, backoff = map(
        import_module, (package, f"{package}.sentinel", f"{package}.cluster", f"{package}.retry", "redis.backoff")
    )
    options: dict[str, Any] = {
        "decode_responses": True,
        "encoding_errors": "surrogateescape",
        "legacy_responses": False,
        "socket_timeout": reply_seconds,
        "socket_connect_timeout": CONNECT_SECONDS,
        "retry": retry.Retry(backoff.NoBackoff(), 0),
    }
    if protocol is not None:
        options["protocol"] = protocol
    try:
        parts = urlsplit(url)
        if parts.scheme != "unix" and "@" in parts.path + parts.fragment:
            raise ValueError("'/', '?' and '#' in a password must be percent-encoded")
        if parts.scheme in ("redis", "rediss", "unix"):
            return redis.Redis.from_url(url, **options)
        user, password = parts.username, parts.password
        login: dict[str, Any] = {"username": user and unquote(user), "password": password and unquote(password)}
        if parts.scheme == "redis+sentinel":
            service, _, db = parts.path.strip("/").partition("/")
            sentinels = sentinel.Sentinel(_hosts(parts.netloc), sentinel_kwargs=options)
            return sentinels.master_for(service, db=int(db or 0), **login, **options)
        if parts.scheme == "redis+cluster":
            nodes = [cluster.ClusterNode(host, port) for host, port in _hosts(parts.netloc)]
            with translated(url):  # a cluster client asks for the slots at once
                return cluster.RedisCluster(startup_nodes=nodes, **login, **options)
    except ValueError as error:
        raise Misconfigured(f"{masked(url)} is not a Redis URL: {error}", url=masked(url)) from None
    raise Misconfigured(f"{masked(url)} is not a Redis URL: the forms are {_FORMS}", url=masked(url))


def masked(url: str) -> str:
    """The URL without its password, for messages; also one that is wrong, for the message that says so."""
    url = re.sub("([?&]password=)[^&#]*", r"\1***", url)
    scheme, mark, rest = url.partition("://") if "://" in url else ("", "", url)
    login, _, place = rest.rpartition("@")
    user, colon, _ = login.partition(":")
    return f"{scheme}{mark}{user}:***@{place}" if colon else f"{scheme}{mark}{rest}"


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Raise redis-py's errors as ours: Unavailable for what may pass by itself, Misconfigured for what will not.

    A command's own error (a key of the wrong type, say) passes through.
    """
    import redis

    try:
        yield
    except (
        redis.AuthenticationError,
        redis.exceptions.NoPermissionError,
        redis.exceptions.AuthorizationError,
    ) as error:
        raise Misconfigured(f"Redis at {masked(url)} refuses the login: {error}", url=masked(url)) from error
    except redis.ConnectionError as error:
        cause = error.__cause__ or error.__context__  # where redis.asyncio puts a login that was refused
        if isinstance(cause, (redis.AuthenticationError, redis.exceptions.NoPermissionError)):
            raise Misconfigured(f"Redis at {masked(url)} refuses the login: {cause}", url=masked(url)) from error
        raise Unavailable(f"Redis at {masked(url)} does not serve: {error}", url=masked(url)) from error
    except (
        redis.TimeoutError,
        redis.exceptions.ClusterError,
        redis.exceptions.RedisClusterException,
        redis.exceptions.ReadOnlyError,
        redis.exceptions.OutOfMemoryError,
        redis.exceptions.MasterDownError,
    ) as error:
        raise Unavailable(f"Redis at {masked(url)} does not serve: {error}", url=masked(url)) from error
    except redis.ResponseError as error:
        word = str(error).partition(" ")[0]
        if word in ("NOAUTH", "WRONGPASS", "NOPERM") or any(text in str(error) for text in _SCRIPT_NOT_PERMITTED):
            raise Misconfigured(f"Redis at {masked(url)} refuses the login: {error}", url=masked(url)) from error
        if word in (
            "LOADING",
            "MISCONF",
            "OOM",
            "READONLY",
            "CLUSTERDOWN",
            "TRYAGAIN",
            "MASTERDOWN",
            "NOREPLICAS",
            "BUSY",
        ):
            raise Unavailable(f"Redis at {masked(url)} does not serve: {error}", url=masked(url)) from error
        raise


def _hosts(netloc: str) -> list[tuple[str, int]]:
    hosts = []
    for place in netloc.rpartition("@")[2].split(","):
        host, _, port = place.rpartition(":")
        hosts.append((host, int(port)))
    return hosts
