"""Hosts for tests: network namespaces with addresses of their own, on a wire that can be cut, slow and lossy.

The wire is this process: each host has a TUN device, whose packets a thread takes from one and gives to another. So it
needs no support for faults in the kernel (`tc netem`), and no packet leaves it. A host ends with the tests.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import os
import random
import select
import socket
import struct
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from support import MORTAL, do_without, eventually, require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

T = TypeVar("T")

_DEVICE = "wire"
_PREFIX = (10, 77, 0)
_NEW_NET = 0x4000_0000  # CLONE_NEWNET
_SET_DEVICE = 0x4004_54CA  # TUNSETIFF
_TUN_WITHOUT_HEADER = 0x1001  # IFF_TUN | IFF_NO_PI
_LONGEST_PACKET = 65_535
_ADDRESSES = slice(12, 20)  # of an IPv4 packet: from where, to where


class Host:
    """One host: what is started with the words `under` before its own runs there."""

    def __init__(self, number: int) -> None:
        self.address = ".".join(map(str, (*_PREFIX, number)))
        self._process = subprocess.Popen([*MORTAL, "unshare", "--net", "sleep", "infinity"])
        self._namespace = f"/proc/{self._process.pid}/ns/net"
        self.under = ["nsenter", f"--net={self._namespace}"]
        eventually(self._is_apart, "the host has a network to itself")
        try:
            self.device = self.inside(_device)
        except OSError as error:
            do_without(f"no TUN device can be made here: {error}")
        for words in ("link set lo up", f"address add {self.address}/24 dev {_DEVICE}", f"link set {_DEVICE} up"):
            subprocess.run([*self.under, "ip", *words.split()], check=True)

    def _is_apart(self) -> bool:
        if self._process.poll() is not None:
            do_without("no network namespace can be made here")
        return os.readlink(self._namespace) != os.readlink("/proc/self/ns/net")

    def enter(self) -> None:
        """Put this thread into the network of this host, for good: what it opens and starts is of this network."""
        place = os.open(self._namespace, os.O_RDONLY)
        try:
            if ctypes.CDLL(None, use_errno=True).setns(place, _NEW_NET):
                raise OSError(ctypes.get_errno(), "setns")
        finally:
            os.close(place)

    def inside(self, make: Callable[[], T]) -> T:
        """Call `make` in the network of this host: the sockets that it makes are of this network."""

        def call() -> T:
            self.enter()
            return make()

        with ThreadPoolExecutor(1) as thread:  # which ends afterwards: it cannot be used for anything else
            return thread.submit(call).result()

    def close(self) -> None:
        os.close(self.device)
        self._process.kill()
        self._process.wait(10)


def _device() -> int:
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _SET_DEVICE, struct.pack("16sH14x", _DEVICE.encode(), _TUN_WITHOUT_HEADER))
    return device


class Network:
    """Hosts on one wire. Every packet comes `seconds` late, and the part `loss` of them never."""

    def __init__(self, count: int) -> None:
        for tool in ("ip", "nsenter", "setpriv", "unshare"):
            require(tool)
        if os.geteuid() != 0:
            do_without("only root may make hosts")
        self.hosts: list[Host] = []
        self.seconds = 0.0
        self.loss = 0.0
        self.passed = self.dropped = 0
        self._apart: frozenset[bytes] = frozenset()
        self._chance = random.Random(77)
        self._late: list[tuple[float, int, int, bytes]] = []  # due, number, device, packet
        self._call, self._called = socket.socketpair()
        self._thread = threading.Thread(target=self._pass_on, name="wire")
        try:
            for number in range(1, count + 1):
                self.hosts.append(Host(number))
        except BaseException:
            self._close_all()
            raise
        self._devices = {socket.inet_aton(host.address): host.device for host in self.hosts}
        self._thread.start()

    def cut(self, *hosts: Host) -> None:
        """Cut these hosts off from the others, not from each other. No packet is refused: each is lost."""
        self._apart = frozenset(socket.inet_aton(host.address) for host in hosts)

    def join(self) -> None:
        """End the partition."""
        self._apart = frozenset()

    def close(self) -> None:
        self._call.send(b".")
        self._thread.join()
        self._close_all()

    def _close_all(self) -> None:
        for host in self.hosts:
            host.close()
        self._call.close()
        self._called.close()

    def _pass_on(self) -> None:
        poll = select.poll()
        for handle in (*self._devices.values(), self._called.fileno()):
            poll.register(handle, select.POLLIN)
        while True:
            wait = max(0.0, self._late[0][0] - time.monotonic()) * 1000 if self._late else None
            ready = [handle for handle, _ in poll.poll(wait)]
            if self._called.fileno() in ready:
                return
            self._take(ready)
            while self._late and self._late[0][0] <= time.monotonic():
                _, _, device, packet = heapq.heappop(self._late)
                os.write(device, packet)

    def _take(self, ready: Iterable[int]) -> None:
        for handle in ready:
            packet = os.read(handle, _LONGEST_PACKET)
            places = packet[_ADDRESSES]
            source, target = places[:4], places[4:]
            device = self._devices.get(target) if packet[0] >> 4 == 4 else None
            is_cut = (source in self._apart) != (target in self._apart)
            if device is None or is_cut or self._chance.random() < self.loss:
                self.dropped += 1
                continue
            self.passed += 1
            heapq.heappush(self._late, (time.monotonic() + self.seconds, self.passed, device, packet))
