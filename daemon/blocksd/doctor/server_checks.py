"""Checks of a Redis server: pure functions from facts to findings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blocksd.doctor.finding import Finding, dotted, numbers, size
from blocksd.doctor.server import Server
from blocksd.embedded.binary import FLOOR, Binary
from blocksd.errors import BlocksdError, Misconfigured

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blocksd.doctor.server import Listening, Memory, Persistence
    from blocksd.settings.config import Config

Redis = Server | Binary | BlocksdError
"""The server in use, the program that a daemon would start, or why there is neither."""

_OLDEST = {"Redis": FLOOR, "Valkey": (7, 2)}
_SLOW_REPLY_SECONDS = 0.02
_FULL = 0.9
_CLOCK_SECONDS = 2.0


def server(redis: Redis, config: Config, *, is_copy: bool = False) -> Iterator[Finding]:
    """Yield the findings about the server in use, about the program that would be started, or that there is neither."""
    check = "redis.server"
    if isinstance(redis, Binary):
        yield Finding(check, "ok", f"none is configured: the daemon starts {redis.path} ({redis.name})")
        return
    if isinstance(redis, BlocksdError):
        yield Finding(check, "wrong", redis.message, _reach(redis))
        return
    yield Finding(check, "ok", f"{redis.kind} {redis.version} at {redis.url}")
    yield version(redis.kind, redis.version)
    yield from mode(redis, config)
    yield latency(redis.latency)
    yield memory(redis.user, redis.memory)
    yield persistence(redis.user, redis.persistence)
    yield rights(redis.user, redis.lacking, is_copy=is_copy)
    yield exposure(redis)


def _reach(error: BlocksdError) -> str:
    if not isinstance(error, Misconfigured):
        return "start it, or name another with --redis URL"
    if error.facts.get("key") == "redis":
        return ""  # the message has the advice
    if error.facts.get("lacks") not in ("login", "right"):
        return "correct the URL: --redis, or 'redis' in blocksd.toml"
    return "correct the URL, its user and its password: --redis, or 'redis' in blocksd.toml; 'blocksd acl' prints users"


def version(kind: str, number: str) -> Finding:
    check, oldest = "redis.version", _OLDEST.get(kind)
    if oldest is None:
        return Finding(check, "unknown", f"{kind} {number} is neither Redis nor Valkey, and is not tested")
    if numbers(number) < oldest:
        return Finding(
            check,
            "wrong",
            f"{kind} {number} is older than {dotted(oldest)}",
            f"upgrade it to {dotted(oldest)} or newer",
        )
    return Finding(check, "ok", f"{kind} {number} is new enough")


def mode(server: Server, config: Config) -> Iterator[Finding]:
    if server.role != "master":
        yield Finding(
            "redis.role",
            "wrong",
            f"the server is a {server.role}, and refuses writes",
            "name its primary with --redis, or all sentinels: redis+sentinel://host:port,…/service",
        )
    if server.mode == "cluster" and not (config.redis or "").startswith(("redis+cluster://", "rediss+cluster://")):
        yield Finding("redis.mode", "wrong", "the server is one of a cluster", "--redis redis+cluster://host:port,…")
    elif server.mode == "cluster" and not config.namespace.startswith("{"):
        yield Finding(
            "redis.mode",
            "wrong",
            f"the keys of the namespace {config.namespace!r} are spread over the cluster",
            f"put it in braces: --namespace '{{{config.namespace}}}'",
        )


def latency(seconds: float) -> Finding:
    text = f"a round trip takes {seconds * 1000:.1f} ms"
    if seconds > _SLOW_REPLY_SECONDS:
        return Finding(
            "redis.latency",
            "warning",
            f"{text}, and every write takes a few",
            "use a nearer server: --redis URL",
        )
    return Finding("redis.latency", "ok", text)


def memory(name: str, found: Memory | None) -> Finding:
    check = "redis.memory"
    if found is None:
        return Finding(check, "unknown", "this user may not ask about memory", f"'ACL SETUSER {name} +info'")
    if not found.most:
        return Finding(check, "ok", "its memory has no limit, so no key is evicted")
    if found.policy != "noeviction":
        return Finding(
            check,
            "wrong",
            f"at its limit of {size(found.most)} it evicts keys ({found.policy}): blocks, requests or the lease",
            "'CONFIG SET maxmemory-policy noeviction', and the same in redis.conf",
        )
    if found.used > _FULL * found.most:
        return Finding(
            check,
            "warning",
            f"{size(found.used)} of {size(found.most)} are used; at the limit it refuses writes",
            "raise maxmemory: 'CONFIG SET maxmemory', and the same in redis.conf",
        )
    return Finding(check, "ok", f"{size(found.used)} of {size(found.most)} are used, and no key is evicted")


def persistence(name: str, found: Persistence | None) -> Finding:
    check = "redis.persistence"
    if found is None:
        return Finding(
            check, "unknown", "this user may not ask how data are kept on disk", f"'ACL SETUSER {name} +info'"
        )
    if found.has_failed:
        return Finding(
            check,
            "wrong",
            "its last write to disk has failed, and it may refuse writes",
            "its log says why; most often its disk is full, or it may not write to 'dir' of redis.conf",
        )
    if found.appends:
        return Finding(check, "ok", "it keeps an append-only file")
    lost = "the mirror is rebuilt, but waiting requests and replies are lost"
    advice = "if they must not be: 'CONFIG SET appendonly yes', and the same in redis.conf"
    if found.snapshots is None:
        return Finding(check, "unknown", f"it keeps no append-only file; if it ends without a snapshot, {lost}", advice)
    if found.snapshots:
        return Finding(check, "ok", f"it keeps snapshots: of what came since the last, {lost}", advice)
    return Finding(check, "ok", f"it keeps nothing on disk: when it ends, {lost}", advice)


def rights(name: str, lacking: tuple[str, ...] | None, *, is_copy: bool = False) -> Finding:
    check = "redis.rights"
    if lacking is None:
        return Finding(
            check, "unknown", f"the rights of the user {name!r} could not be checked", f"'ACL SETUSER {name} +multi'"
        )
    if lacking and is_copy:  # what a follower itself lacks, it reports
        message = f"the user {name!r} has fewer rights than a daemon: a follower needs those only to be promoted"
        return Finding(check, "ok", message, "before a promotion, name the daemon's user in the URL of Redis")
    if lacking:
        return Finding(
            check,
            "wrong",
            f"the user {name!r} lacks rights that a daemon needs: {' '.join(lacking)}",
            f"'ACL SETUSER {name}' with these, or the daemon's user as 'blocksd acl' prints it",
        )
    return Finding(check, "ok", f"the user {name!r} has all rights that a daemon needs")


def exposure(server: Server) -> Finding:
    """Check that nobody else can read the blocks or change them."""
    check, listening = "redis.exposure", server.listening
    far = next((host for host in server.hosts if not _is_local(host)), None)
    if server.asks_login and far is not None and not server.url.startswith("rediss:"):
        return Finding(
            check,
            "warning",
            f"password and texts travel to {far} in the clear",
            "use TLS (rediss://), a tunnel, or a private network",
        )
    if server.asks_login:
        return Finding(check, "ok", "it asks for a password")
    if far is not None or (listening is not None and _is_open(listening)):
        return Finding(
            check,
            "warning",
            "anyone who reaches it over the network may read and change everything, without a password",
            "load users as 'blocksd acl' prints them, then 'ACL SETUSER default off'; or 'bind 127.0.0.1' in redis.conf",
        )
    if server.has_login:
        return Finding(
            check,
            "warning",
            "its default user needs no password and may do everything, so the rights of other users protect nothing",
            "'ACL SETUSER default off', or give it a password",
        )
    return Finding(check, "ok", "it asks for no password, and is reached from this machine")


def _is_open(listening: Listening) -> bool:
    addresses = listening.bind.split() or ["*"]
    is_far = any(not _is_local(address.removeprefix("-")) for address in addresses)
    return is_far and listening.port != 0 and not listening.is_protected


def _is_local(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def clock(name: str, offset: float | None) -> Finding:
    check = "clock.redis"
    if offset is None:
        return Finding(check, "unknown", "this user may not ask for Redis' time", f"'ACL SETUSER {name} +time'")
    if abs(offset) > _CLOCK_SECONDS:
        way = "ahead of" if offset > 0 else "behind"
        return Finding(
            check,
            "warning",
            f"Redis' clock is {abs(offset):.0f} s {way} this machine's: times and deadlines are wrong",
            "'timedatectl set-ntp true' on both machines",
        )
    return Finding(check, "ok", f"Redis' clock and this machine's are {abs(offset) * 1000:.0f} ms apart")
