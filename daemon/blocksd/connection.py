"""A Redis URL → a client that fails fast, and what its failures mean."""

from __future__ import annotations

import re
from contextlib import contextmanager
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


def connect(url: str, *, reply_seconds: float | None = REPLY_SECONDS) -> Any:
    """A client for the server at `url`; nothing is sent yet. `reply_seconds` None waits for ever, for subscribers.

    Forms: `redis://`, `rediss://` and `unix://` as redis-py reads them; `redis+sentinel://[user:password@]host:port,
    host:port/service[/db]`; `redis+cluster://[user:password@]host:port,host:port`. A command is sent once: redis-py
    would send it again when a reply is lost, and it would run twice.

    Raises:
        Misconfigured: `url` is none of these forms.
    """
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    options: dict[str, Any] = {
        "decode_responses": True,
        "encoding_errors": "surrogateescape",
        "legacy_responses": False,
        "socket_timeout": reply_seconds,
        "socket_connect_timeout": CONNECT_SECONDS,
        "retry": Retry(NoBackoff(), 0),
    }
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
            import redis.sentinel as sentinel_module

            make_sentinel: Any = sentinel_module.Sentinel
            sentinels = make_sentinel(_hosts(parts.netloc), sentinel_kwargs=options)
            return sentinels.master_for(service, db=int(db or 0), **login, **options)
        if parts.scheme == "redis+cluster":
            import redis.cluster as cluster_module

            make_node: Any = cluster_module.ClusterNode
            nodes = [make_node(host, port) for host, port in _hosts(parts.netloc)]
            with translated(url):  # a cluster client asks for the slots at once
                return cluster_module.RedisCluster(startup_nodes=nodes, **login, **options)
    except ValueError as error:
        raise Misconfigured(f"{masked(url)} is not a Redis URL: {error}", url=masked(url)) from None
    raise Misconfigured(f"{masked(url)} is not a Redis URL: the forms are {_FORMS}", url=masked(url))


def masked(url: str) -> str:
    """The URL without its password, for messages; also one that is wrong, for the message that says so."""
    scheme, mark, rest = re.sub("([?&]password=)[^&#]*", r"\1***", url).partition("://")
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
    except (
        redis.ConnectionError,
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
