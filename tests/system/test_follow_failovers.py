"""Followers, when another server, or one that lacks what they have seen, has the namespace."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.mirror.acl import users
from blocksd.mirror.keys import Keys
from clusters import NODES, Cluster
from followers import Follower, Hosts, same, save
from sentinels import Watched
from support import Daemon, certified, eventually, require, valkey_binary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support import Spares

pytestmark = pytest.mark.slow


@pytest.fixture
def hosts(tmp_path: Path, spares: Spares) -> Iterator[Hosts]:
    with spares.lend(valkey_binary()) as server:
        made = Hosts(server, tmp_path)
        yield made
        made.end()


class Photo:
    """All that a server has, to be put back later."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._keys = {key: client.dump(key) for key in client.scan_iter()}

    def put_back(self) -> None:
        """Put it back in the place of all that is there, and cut all clients off."""
        with self._client.pipeline() as commands:
            commands.flushall()
            for key, data in self._keys.items():
                commands.restore(key, 0, data)
            commands.execute()
        cut_off(self._client)


def cut_off(client: Any) -> None:
    for kind in ("normal", "pubsub"):
        client.execute_command("CLIENT", "KILL", "TYPE", kind)


def is_behind(status: dict[str, Any]) -> bool:
    return any("is older than this copy" in problem["message"] for problem in status["problems"])


def test_mirror_that_is_older_than_the_copies(hosts: Hosts) -> None:
    """Its old texts are not written over new ones, nor are new files removed: the copies wait until it has caught up."""
    hosts.save("notes.md", "first\n")
    hosts.leader.start()
    copies = [hosts.follower("one", read_only=False).start(), hosts.follower("two").start()]
    client = hosts.server.client(decode_responses=False)
    photo = Photo(client)
    for path, text in (("notes.md", "second\n"), ("new.md", "new\n")):
        hosts.save(path, text, copies[0].folder)
    for copy in copies:
        same(hosts.folder, copy.folder)
    before = [copy.folder.joinpath(name).stat() for copy in copies for name in ("notes.md", "new.md")]
    assert hosts.leader.process is not None
    hosts.leader.process.send_signal(signal.SIGSTOP)
    photo.put_back()
    for copy in copies:
        eventually(lambda copy=copy: is_behind(copy.status()), "it is reported")  # type: ignore[misc]
    hosts.save("mine.md", "saved meanwhile\n", copies[0].folder)
    hosts.leader.process.send_signal(signal.SIGCONT)
    for copy in copies:
        eventually(lambda copy=copy: copy.status()["in_sync"], "it is in sync")  # type: ignore[misc]
    eventually((hosts.folder / "mine.md").exists, "the new file has arrived")
    for copy in copies:
        same(hosts.folder, copy.folder)
    after = [copy.folder.joinpath(name).stat() for copy in copies for name in ("notes.md", "new.md")]
    assert [one.st_ino for one in after] == [one.st_ino for one in before], "nothing was written"
    assert hosts.leader.values("notes") == ["first", "second"]
    assert hosts.leader.values("new") == ["new"]
    client.close()


def sentinels_with_tls(path: Path) -> tuple[Any, Callable[[Any], None]]:
    """Two servers and their sentinel, which speak TLS alone, and a failover."""
    servers = Watched(require("redis-server"), password="sesame", certified=certified(path))

    def fail(servers: Watched) -> None:
        servers.fail_over()
        eventually(lambda: servers.is_promoted(1), "the replica is promoted")

    return servers, fail


def cluster(_path: Path) -> tuple[Any, Callable[[Any], None]]:
    """Three masters, and the move of the namespace's slot to another of them."""

    def move(servers: Cluster) -> None:
        key = "{team}:meta"
        source = servers.number(key)
        list(servers.move(servers.slot(key), source, (source + 1) % NODES))

    return Cluster(), move


@pytest.mark.parametrize("kind", [sentinels_with_tls, cluster])
def test_followers_with_logins(tmp_path: Path, kind: Callable[[Path], tuple[Any, Callable[[Any], None]]]) -> None:
    """The users of `blocksd acl` are enough for followers, also where the namespace is after a failover."""
    folder = tmp_path / "leader"
    save(folder / "notes.md", "one\n")
    with ExitStack() as stack:
        servers, fail = kind(tmp_path)
        stack.callback(servers.close)
        for raw in servers.raw:
            for line in users(Keys("{team}"), []):
                _, user, *rules = line.replace("PASSWORD", ">hush").split()
                raw.execute_command("ACL", "SETUSER", user, *rules)

        def at(user: str, password: str = "hush") -> tuple[str, ...]:
            url = servers.url.replace("://", f"://team-{user}:{password}@")
            return ("--redis", url, "--namespace", "{team}")

        leader = Daemon(folder, tmp_path / "leader-state", *at("daemon")).start()
        stack.callback(leader.stop)
        wrong = Follower(tmp_path / "wrong", tmp_path / "wrong-state", *at("reader", "shout")).start(ready=False)
        assert wrong.process is not None
        assert wrong.process.wait(20) == 2
        assert "refuses the login" in wrong.said()
        assert "shout" not in wrong.said()
        copies = [
            Follower(tmp_path / "writable", tmp_path / "writable-state", *at("operator")),
            Follower(tmp_path / "read-only", tmp_path / "read-only-state", *at("reader"), "--read-only"),
        ]
        for copy in copies:
            stack.callback(copy.start().stop)
            same(folder, copy.folder)
        fail(servers)
        save(folder / "notes.md", "two\n")
        save(copies[0].folder / "new.md", "new\n")
        eventually((folder / "new.md").exists, "the new file has arrived")
        for copy in copies:
            same(folder, copy.folder)
            assert "hush" not in copy.said()
            assert "sesame" not in copy.said()
            eventually(lambda copy=copy: copy.status()["in_sync"], "it is in sync")  # type: ignore[misc]


def test_cluster_that_comes_later(tmp_path: Path) -> None:
    """A leader and a follower that start while no node of the cluster runs wait for it."""
    folder = tmp_path / "leader"
    save(folder / "notes.md", "one\n")
    with ExitStack() as stack:
        servers = Cluster()
        stack.callback(servers.close)
        for server in servers.servers:
            server.kill()
        at = ("--redis", servers.url, "--namespace", "{team}")
        leader = Daemon(folder, tmp_path / "leader-state", *at).start()
        stack.callback(leader.stop)
        copy = Follower(tmp_path / "copy", tmp_path / "copy-state", *at).start(ready=False)
        stack.callback(copy.stop)
        eventually(lambda: "does not serve" in copy.said(), "it waits for the leader")
        for number in range(NODES):
            servers.start(number)
        same(folder, copy.folder)
