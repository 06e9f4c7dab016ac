"""Hosts of tests: their wire carries packets, late, partly or not at all; and what stands on three of them survives that."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

import pytest

from hosts import Host, Network
from printing import Printed, check_numbers, has_seq
from support import Daemon, RedisServer, eventually, valkey_binary

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
