"""A failover by a real sentinel: the daemon, its clients and their watches go on at the promoted server."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import redis

from blocksd import Client
from blocksd.client.blocking.subscription import Subscription
from blocksd.doctor.server import look
from blocksd.errors import Misconfigured, Unavailable
from blocksd.mirror.acl import users
from blocksd.mirror.keys import Keys
from blocksd.mirror.sentinel import is_left_behind
from blocksd.protocol import watching as watching_module
from blocksd.protocol.steps import Connect, Ping, Subscribe
from blocksd.requests.request import Entry
from following import WAYS, Follower, client_of
from rig import Rig, assert_level
from sentinels import Watched
from support import certified, eventually, require, valkey_binary

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow


@pytest.fixture
def watched() -> Iterator[Watched]:
    made = Watched(valkey_binary(), password="sesame")
    yield made
    made.close()


def follow_to(rig: Rig, server: int, watched: Watched) -> float:
    """Rounds in real time, as the service does them, until the mirror on this server is in sync; seconds since the promotion."""
    promoted_at = 0.0

    def is_in_sync() -> bool:
        nonlocal promoted_at
        if not promoted_at and watched.is_promoted(server):
            promoted_at = time.monotonic()
        rig.round()
        rig.clock.now = 1000.0 + time.monotonic()
        time.sleep(min(rig.core.wait_seconds(), 0.02))
        try:
            place = watched.raw[server].hmget("blocks:meta", "epoch", "seq")
        except redis.ConnectionError:  # a server that is promoted cuts its clients off
            return False
        return bool(promoted_at) and rig.is_settled() and place == [rig.journal.epoch, str(rig.journal.seq)]

    eventually(is_in_sync, "in sync at the promoted server")
    return time.monotonic() - promoted_at


@pytest.fixture
def rig(tmp_path: Path, watched: Watched) -> Iterator[Rig]:
    """A daemon in sync at the first server, whose replica has everything."""
    made = Rig(tmp_path / "one", watched.url)
    made.write("notes", "one\n")
    made.settle()
    eventually(lambda: watched.raw[1].hget("blocks:meta", "seq") == "1", "the replica has it")
    yield made
    made.crash()


@pytest.fixture(params=["blocking", "asyncio"])
def follower(request: pytest.FixtureRequest, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Iterator[Follower]:
    monkeypatch.setattr(watching_module, "LISTEN_SECONDS", 0.05)
    monkeypatch.setattr(watching_module, "PROVE_SECONDS", 0.5)
    made = Follower(request.param, rig.url)
    yield made
    made.close()


def test_dead_master(watched: Watched, rig: Rig, follower: Follower) -> None:
    """The master dies: what was saved meanwhile is shown by the promoted server, and a watch has it."""
    watched.servers[0].kill()
    rig.write("notes", "two\n")
    assert follow_to(rig, 1, watched) < 5.0
    assert_level(rig, watched.raw[1])
    assert watched.raw[1].hget("blocks:block:notes", "value") == "two"
    assert follower.until(2)[-1] == ("updated", 2)


def test_master_that_lives_on(watched: Watched, rig: Rig, follower: Follower) -> None:
    """The old master is made a replica while connections to it are open: no write goes there, requests are answered."""
    watched.fail_over()
    rig.write("notes", "two\n")
    assert follow_to(rig, 1, watched) < 5.0
    assert_level(rig, watched.raw[1])
    assert follower.until(2)[-1] == ("updated", 2)


def test_master_that_hangs(watched: Watched, rig: Rig) -> None:
    """It takes connections and answers nothing: a client that is waiting for it soon asks for another."""
    with Client(rig.url) as client:
        assert client.blocks.retrieve("notes").value == "one"
        watched.servers[0].pause()
        longest = 0.0

        def is_served() -> bool:
            nonlocal longest
            began = time.monotonic()
            try:
                return client.blocks.retrieve("notes").value == "one"
            except Unavailable:
                return False
            finally:
                longest = max(longest, time.monotonic() - began)

        eventually(is_served, "the promoted server serves")
        assert watched.is_promoted(1)
        assert longest < 5.0, "two seconds, not the ten that a client has"


def test_connection_to_a_former_master_is_given_up(rig: Rig) -> None:
    """A server that still answers, though another was promoted, is neither written to nor listened to any more."""
    subscription = Subscription(rig.url, rig.mirror.keys)
    subscription.perform(Connect())
    subscription.perform(Subscribe(("x",)))
    subscription.perform(Ping())
    pools = [subscription._client.connection_pool, rig.client.connection_pool]
    for pool in pools:
        pool._checked_at = float("inf")
        pool.proxy.master_address = ("127.0.0.1", 1)
    with pytest.raises(Unavailable, match="no longer the master"):
        subscription.perform(Ping())
    subscription.close()
    connection = rig.mirror._apply._connection
    assert is_left_behind(rig.client, connection)
    rig.mirror.apply([("PUBLISH", "x", "y")])
    assert not is_left_behind(rig.client, connection)
    assert pools[1].master_address == (connection.host, connection.port)


def test_request_that_the_promoted_server_does_not_have_is_sent_again(watched: Watched, rig: Rig) -> None:
    """It was put into the inbox of a master that lives on for seconds, and gives no error, while another is in force."""
    watched.raw[1].config_set("masterauth", "wrong")
    watched.raw[0].execute_command("CLIENT", "KILL", "TYPE", "replica")
    with Client(rig.url) as client, ThreadPoolExecutor(1) as pool:
        request = pool.submit(client.blocks.append, "notes", "two")
        eventually(lambda: watched.raw[0].xlen("blocks:inbox:operator"), "it is in the inbox")
        watched.fail_over()
        follow_to(rig, 1, watched)

        def is_answered() -> bool:
            for entry, fields in watched.raw[1].xrange("blocks:inbox:operator"):  # as the reader does
                rig.core.inbox.add([Entry("operator", entry, fields["request"])])
            rig.round()
            rig.clock.now = 1000.0 + time.monotonic()
            return request.done()

        eventually(is_answered, "it is answered")
        assert request.result().value == "one\ntwo"


def test_subscription_at_a_replica_is_given_up(watched: Watched, rig: Rig) -> None:
    """Also when the sentinels do not answer: what a replica passes on may come later than what the master shows."""
    subscription = Subscription(rig.url, rig.mirror.keys)
    subscription.perform(Connect())
    subscription.perform(Subscribe(("x",)))
    subscription.perform(Ping())
    subscription._client.connection_pool._checked_at = float("inf")
    watched.raw[0].replicaof("127.0.0.1", watched.ports[1])
    with pytest.raises(Unavailable, match="a replica"):
        subscription.perform(Ping())
    subscription.close()


def test_sentinel_that_is_named_as_a_server(tmp_path: Path) -> None:
    """The daemon, a client and the checks say what it is."""
    watched = Watched(valkey_binary())
    url = f"redis://127.0.0.1:{watched.ports[2]}"
    try:
        with pytest.raises(Misconfigured, match="is a sentinel"):
            look(url, Keys("blocks"))
        for way in WAYS:
            with client_of(way, url) as client, pytest.raises(Misconfigured, match="is a sentinel"):
                client.blocks.list()
        rig = Rig(tmp_path, url)
        rig.round()
        assert isinstance(rig.heard.away[0], Misconfigured)
        rig.crash()
    finally:
        watched.close()


def test_tls_and_logins(tmp_path: Path) -> None:
    """All speak TLS, the sentinel has one login, the servers have that of `blocksd acl`: also the promoted one is reached by it."""
    watched = Watched(require("redis-server"), password="sesame", certified=certified(tmp_path))
    rig = None
    try:
        for raw in watched.raw:
            for line in users(Keys("blocks"), ["ann"]):
                _, user, *rules = line.replace("PASSWORD", ">hush").split()
                raw.execute_command("ACL", "SETUSER", user, *rules)
        rig = Rig(tmp_path / "one", watched.url.replace("://", "://blocks-daemon:hush@"))
        rig.write("notes", "---\nagents: [ann]\n---\none\n")
        rig.settle()
        eventually(lambda: watched.raw[1].hget("blocks:meta", "seq") == "1", "the replica has it")
        url = watched.url.replace("://", "://blocks-agent-ann:hush@")
        followers = [Follower(way, url, agent="ann") for way in WAYS]
        watched.fail_over()
        rig.write("notes", "---\nagents: [ann]\n---\ntwo\n")
        follow_to(rig, 1, watched)
        for follower in followers:
            assert follower.until(2)[-1] == ("updated", 2)
            follower.close()
        for url in (watched.url.replace("sesame", "wrong"), watched.url.replace("://", "://blocks-agent-ann:wrong@")):
            with Client(url) as client, pytest.raises(Misconfigured, match="login"):
                client.blocks.retrieve("notes")
    finally:
        if rig is not None:
            rig.crash()
        watched.close()
