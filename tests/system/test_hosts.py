"""Hosts of tests: their wire carries packets, late, partly or not at all; and what stands on three of them survives that."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import redis

from hosts import Host, Network
from printing import Printed, check_numbers, has_seq
from support import DEADLINE, MORTAL, Daemon, RedisServer, eventually, valkey_binary

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PORT = 5000


@pytest.fixture
def network() -> Iterator[Network]:
    made = Network(3)
    yield made
    made.close()


def bound(host: Host) -> socket.socket:
    """A socket of a host for datagrams, which waits for none."""
    made = host.inside(lambda: socket.socket(type=socket.SOCK_DGRAM))
    made.setblocking(False)
    made.bind((host.address, PORT))
    return made


def came(receiver: socket.socket) -> list[bytes]:
    """The datagrams that have come."""
    found = []
    while True:
        try:
            found.append(receiver.recv(100))
        except BlockingIOError:
            return found


def test_wire(network: Network) -> None:
    """Hosts on one side of a partition hear each other, and no one else; after it all do. Packets may be late or lost."""
    sockets = [bound(host) for host in network.hosts]
    one, two, three = sockets
    places = [(host.address, PORT) for host in network.hosts]
    two.sendto(b"first", places[0])
    assert eventually(lambda: came(one)) == [b"first"]
    network.cut(network.hosts[0])
    one.sendto(b"lost", places[1])
    two.sendto(b"lost", places[0])
    three.sendto(b"beside", places[1])
    assert eventually(lambda: came(two)) == [b"beside"]
    network.join()
    network.seconds = 0.05
    began = time.monotonic()
    two.sendto(b"late", places[0])
    assert eventually(lambda: came(one)) == [b"late"]
    assert time.monotonic() - began >= 0.05
    network.seconds, network.loss, passed = 0.0, 0.25, network.passed
    dropped = network.dropped
    for _ in range(100):
        two.sendto(b"perhaps", places[0])
    eventually(lambda: network.passed + network.dropped >= passed + dropped + 100, "all packets were met")
    assert 10 <= network.dropped - dropped <= 45
    with pytest.raises(OSError, match="unreachable"):
        two.sendto(b"out", ("192.0.2.1", PORT))
    for each in sockets:
        each.close()


class Places:
    """A daemon on the first host, its Redis on the second, `blocksd watch` on the third."""

    def __init__(self, network: Network, directory: Path) -> None:
        self.daemon_host, self.redis_host, self.watch_host = network.hosts
        self.folder = directory / "blocks.d"
        self.folder.mkdir()
        (self.folder / "notes.md").write_text("0\n")
        self.server = RedisServer(valkey_binary(), self.redis_host.under)
        self.server.start("--port", str(PORT), "--bind", self.redis_host.address, "--protected-mode", "no")
        self.url = f"redis://{self.redis_host.address}:{PORT}"
        self.daemon = Daemon(self.folder, directory / "state", "--redis", self.url, under=self.daemon_host.under)
        self.daemon.start()
        self.printed = Printed(self.url, directory / "printed", under=self.watch_host.under)
        self.count = 0
        self.save()
        eventually(self._is_heard, "the watch listens")

    def save(self) -> None:
        self.count += 1
        (self.folder / "notes.md").write_text(f"{self.count}\n")

    def _is_heard(self) -> bool:
        """Return True if the watch has printed something; until it listens, there must be more to hear."""
        self.save()
        return bool(self.printed.all())

    def until_all_is_told(self) -> None:
        """Wait until the watch has printed a change that is made now; it has every one, in order."""
        self.save()
        eventually(lambda: self.daemon.values("notes")[-1] == str(self.count), "it is journaled")
        last = len(self.daemon.values("notes"))
        eventually(lambda: has_seq(self.printed.all, last), "it is told")
        assert check_numbers(self.printed.all(), last) == 0, "no reset was due"

    def close(self) -> None:
        self.printed.close()
        self.daemon.kill()
        self.server.remove()


@pytest.fixture
def places(network: Network, tmp_path: Path) -> Iterator[Places]:
    made = Places(network, tmp_path)
    yield made
    made.close()


@pytest.mark.slow
def test_partitions_and_a_bad_wire(network: Network, places: Places) -> None:
    """Without a packet that says so: the daemon goes on journaling, agents wait, and a watch misses nothing."""
    network.cut(places.watch_host)
    places.save()
    eventually(lambda: places.server.client().hget("blocks:block:notes", "value") == str(places.count), "it is shown")
    network.join()
    places.until_all_is_told()
    network.cut(places.daemon_host)
    places.save()
    eventually(lambda: "Redis is unreachable" in places.daemon.said(), "the daemon has noticed")
    places.save()
    network.join()
    places.until_all_is_told()
    network.seconds, network.loss = 0.01, 0.1
    for _ in range(10):
        places.save()
        eventually(lambda: places.daemon.values("notes")[-1] == str(places.count), "it is journaled")
    places.until_all_is_told()
    assert network.dropped > 0
    assert places.daemon.stop() == 0


def is_master(raw: Any) -> bool:
    with suppress(redis.ConnectionError):  # a server that is promoted cuts its clients off
        return bool(raw.role()[0] == "master")
    return False


@pytest.mark.slow
def test_daemon_and_old_master_are_cut_off_from_the_promoted_one(network: Network, tmp_path: Path) -> None:
    """Two masters: saves go on at one, requests wait at the other. Then all of it is in force, once, at the promoted one."""
    here, there, agents = network.hosts
    folder, settings = tmp_path / "blocks.d", tmp_path / "sentinel.conf"
    folder.mkdir()
    (folder / "notes.md").write_text("one\n")
    settings.write_text(
        f"port {PORT + 1}\nbind {there.address}\nprotected-mode no\nsentinel monitor main {here.address} {PORT} 1\n"
        "sentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 2000\n"
    )
    url = f"redis+sentinel://{there.address}:{PORT + 1}/main"
    with ExitStack() as stack:
        raw = []
        for host in (here, there):
            server = RedisServer(valkey_binary(), host.under)
            stack.callback(server.remove)
            options = ("--bind", host.address, "--protected-mode", "no", "--repl-diskless-sync-delay", "0")
            server.start("--port", str(PORT), *options)
            raw.append(server.client())
        raw[1].replicaof(here.address, PORT)
        eventually(lambda: raw[1].info("replication")["master_link_status"] == "up", "the replica follows")
        words = [*MORTAL, *there.under, valkey_binary(), str(settings), "--sentinel"]
        sentinel = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        stack.callback(sentinel.wait)
        stack.callback(sentinel.kill)
        daemon = Daemon(folder, tmp_path / "state", "--redis", url, under=here.under).start()
        stack.callback(daemon.kill)
        printed = Printed(url, tmp_path / "printed", under=agents.under)
        stack.callback(printed.close)

        def is_heard() -> bool:
            (folder / "other.md").write_text(f"{time.monotonic()}\n")
            return bool(printed.all())

        eventually(is_heard, "the watch listens")
        last_text = (folder / "other.md").read_text().strip()
        eventually(lambda: raw[1].hget("blocks:block:other", "value") == last_text, "the replica has all")
        eventually(lambda: has_seq(printed.all, int(raw[1].hget("blocks:meta", "seq"))), "the watch has all")
        eventually(lambda: "known-replica" in settings.read_text(), "the sentinel knows the replica")
        network.cut(here)
        eventually(partial(is_master, raw[1]), "the replica is promoted")
        (folder / "notes.md").write_text("one\ntwo\n")
        eventually(
            lambda: raw[0].hget("blocks:block:notes", "value") == "one\ntwo", "the daemon goes on with its master"
        )
        append = [*agents.under, sys.executable, "-m", "blocksd", "append", "notes", "three", "--redis", url]
        asking = subprocess.Popen(append, stdout=subprocess.DEVNULL)
        stack.callback(asking.wait)
        eventually(lambda: raw[1].xlen("blocks:inbox:operator"), "the request waits at the promoted server")
        network.join()
        assert asking.wait(DEADLINE) == 0
        eventually(
            lambda: raw[1].hget("blocks:block:notes", "value") == "one\ntwo\nthree", "the promoted one shows all"
        )
        assert (folder / "notes.md").read_text() == "one\ntwo\nthree\n"
        last = int(raw[1].hget("blocks:meta", "seq"))
        eventually(lambda: has_seq(printed.all, last), "all is told")
        # A reset is due if the watch heard the save of its old master: for a while the promoted one shows less.
        assert check_numbers(printed.all(), last) <= 1
        assert daemon.stop() == 0
