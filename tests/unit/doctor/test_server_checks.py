"""What facts about a Redis server mean: each check, fit and unfit."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.doctor import server_checks as checks
from blocksd.doctor.server import Listening, Memory, Persistence, Server
from blocksd.embedded.binary import Binary
from blocksd.errors import Misconfigured, Unavailable
from blocksd.settings.config import Config
from support import advises

if TYPE_CHECKING:
    from blocksd.doctor.finding import Finding

SERVER = Server(
    url="redis://127.0.0.1:6379",
    hosts=("127.0.0.1",),
    user="default",
    has_login=False,
    asks_login=False,
    kind="Valkey",
    version="9.1.2",
    mode="standalone",
    role="master",
    latency=0.0002,
    offset=0.001,
    memory=Memory(2**20, 0, "noeviction"),
    persistence=Persistence(appends=True, snapshots="", has_failed=False),
    listening=Listening("127.0.0.1 -::1", 6379, is_protected=True),
    lacking=(),
)
CONFIG = Config(redis="redis://127.0.0.1:6379")


def states(redis: Any, config: Config = CONFIG) -> dict[str, str]:
    return {finding.check: finding.state for finding in checks.server(redis, config)}


def test_sound_server() -> None:
    """Nothing is to be changed of a server that is as it should be."""
    assert set(states(SERVER).values()) == {"ok"}
    assert set(states(SERVER)) == {
        f"redis.{name}" for name in ("server", "version", "latency", "memory", "persistence", "rights", "exposure")
    }


def test_no_server() -> None:
    """The one that would be started is named; why none serves is said, with what to do."""
    (started,) = checks.server(Binary("/usr/bin/redis-server", "Redis 7.0.15"), CONFIG)
    advises(started, "ok", "/usr/bin/redis-server (Redis 7.0.15)")
    (away,) = checks.server(Unavailable("Redis at x does not serve: refused"), CONFIG)
    advises(away, "wrong", "does not serve", "--redis URL")
    (refused,) = checks.server(Misconfigured("Redis at x refuses the login", lacks="login"), CONFIG)
    advises(refused, "wrong", "blocksd acl")
    (wrong,) = checks.server(Misconfigured("x is not a Redis URL"), CONFIG)
    advises(wrong, "wrong", "correct the URL: --redis")
    assert "acl" not in wrong.advice
    (none,) = checks.server(Misconfigured("none is installed: give --redis URL", key="redis"), CONFIG)
    assert (none.state, none.advice) == ("wrong", "")


@pytest.mark.parametrize(
    ("kind", "version", "state"),
    [
        ("Redis", "7.0.15", "ok"),
        ("Redis", "8.2", "ok"),
        ("Redis", "6.2.14", "wrong"),
        ("Valkey", "7.2.5", "ok"),
        ("Valkey", "7.1", "wrong"),
        ("dragonfly", "1.2", "unknown"),
    ],
)
def test_version(kind: str, version: str, state: str) -> None:
    """Redis from 7.0, Valkey from 7.2; of others nothing is known."""
    advises(checks.version(kind, version), state, version)


def test_mode() -> None:
    """It is a primary; a cluster is named as one, and its namespace is in braces."""
    assert list(checks.mode(SERVER, CONFIG)) == []
    (replica,) = checks.mode(replace(SERVER, role="replica"), CONFIG)
    advises(replica, "wrong", "refuses writes", "redis+sentinel://")
    clustered = replace(SERVER, mode="cluster")
    (cluster,) = checks.mode(clustered, CONFIG)
    advises(cluster, "wrong", "redis+cluster://")
    config = Config(redis="redis+cluster://127.0.0.1:7000")
    (spread,) = checks.mode(clustered, config)
    advises(spread, "wrong", "--namespace '{blocks}'")
    for scheme in ("redis", "rediss"):
        config = Config(redis=f"{scheme}+cluster://127.0.0.1:7000", namespace="{blocks}")
        assert list(checks.mode(clustered, config)) == []


def test_latency() -> None:
    """A server that is far away makes every write slow."""
    advises(checks.latency(0.001), "ok", "1.0 ms")
    advises(checks.latency(0.08), "warning", "80.0 ms", "nearer")


def test_memory() -> None:
    """A server with a limit does not evict, and has some left."""
    advises(checks.memory("ann", Memory(5, 0, "allkeys-lru")), "ok", "no limit")
    advises(checks.memory("ann", Memory(5, 2**30, "noeviction")), "ok")
    for policy in ("allkeys-lru", "volatile-ttl"):
        advises(checks.memory("ann", Memory(5, 2**30, policy)), "wrong", policy, "maxmemory-policy noeviction")
    advises(checks.memory("ann", Memory(2**30 - 1, 2**30, "noeviction")), "warning", "CONFIG SET maxmemory")
    advises(checks.memory("ann", None), "unknown", "ACL SETUSER ann +info")


def test_persistence() -> None:
    """None is needed, since the mirror is rebuilt; that waiting requests and replies are lost without it is said."""

    def kept(*, appends: bool = False, snapshots: str | None = "", has_failed: bool = False) -> Finding:
        return checks.persistence("ann", Persistence(appends, snapshots, has_failed))

    advises(kept(appends=True), "ok")
    advises(kept(snapshots="3600 1"), "ok", "since the last", "appendonly yes")
    advises(kept(), "ok", "requests and replies are lost", "appendonly yes")
    advises(kept(snapshots=None), "unknown", "appendonly yes")
    advises(kept(appends=True, has_failed=True), "wrong", "has failed", "log")
    advises(checks.persistence("ann", None), "unknown", "ACL SETUSER ann +info")


def test_rights() -> None:
    """What the user lacks is named as ACL rules."""
    advises(checks.rights("ann", ()), "ok", "'ann'")
    advises(checks.rights("ann", ("+hset", "~blocks:*")), "wrong", "+hset ~blocks:*", "ACL SETUSER ann", "blocksd acl")
    advises(checks.rights("ann", None), "unknown", "ACL SETUSER ann +multi")
    advises(checks.rights("ann", ("+hset",), is_copy=True), "ok", "only to be promoted", "daemon's user")


def test_exposure() -> None:
    """Nobody reads along, or may do everything without a password, who is not on this machine."""
    local = replace(SERVER, listening=None)
    far = replace(local, url="redis://db.example:6379", hosts=("db.example",))
    guarded = replace(far, has_login=True, asks_login=True)
    for fine in (local, replace(local, hosts=()), replace(local, hosts=("::1",)), replace(local, hosts=("localhost",))):
        advises(checks.exposure(fine), "ok")
    advises(checks.exposure(far), "warning", "without a password", "ACL SETUSER default off")
    advises(checks.exposure(guarded), "warning", "in the clear", "rediss://")
    advises(checks.exposure(replace(guarded, url="rediss://db.example")), "ok")
    advises(checks.exposure(replace(local, has_login=True)), "warning", "protect nothing", "ACL SETUSER default off")


@pytest.mark.parametrize(
    ("bind", "port", "is_protected", "state"),
    [
        ("127.0.0.1 -::1", 6379, False, "ok"),
        ("127.0.0.1 -::1", 6379, True, "ok"),
        ("* -::*", 6379, True, "ok"),
        ("* -::*", 6379, False, "warning"),
        ("", 6379, False, "warning"),
        ("10.0.0.5", 6379, False, "warning"),
        ("* -::*", 0, False, "ok"),
    ],
)
def test_open_to_the_network(bind: str, port: int, is_protected: bool, state: str) -> None:
    """A server reached on this machine may be open to others all the same."""
    server = replace(SERVER, listening=Listening(bind, port, is_protected))
    advises(checks.exposure(server), state)
    asking = replace(server, has_login=True, asks_login=True)
    advises(checks.exposure(asking), "ok")


def test_clock() -> None:
    """Two clocks that differ are named, with which is ahead."""
    advises(checks.clock("ann", 0.01), "ok", "10 ms")
    advises(checks.clock("ann", 30.0), "warning", "30 s ahead of", "timedatectl")
    advises(checks.clock("ann", -30.0), "warning", "30 s behind")
    advises(checks.clock("ann", None), "unknown", "ACL SETUSER ann +time")
