"""What systemd is told."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from blocksd.monitoring import sd_notify as notify

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The socket that systemd would listen on."""
    address = os.path.relpath(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(address)
        listening.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        yield listening


def test_states_are_one_datagram_each(systemd: socket.socket) -> None:
    """As sd_notify(3) has them; the status is UTF-8 and always one line."""
    notify.ready()
    notify.watchdog()
    notify.status("serving 4 blocks – seq 41\nmirror level")
    notify.reloading()
    notify.stopping()
    heard = [systemd.recv(1000).decode() for _ in range(5)]
    assert heard[:3] == ["READY=1", "WATCHDOG=1", "STATUS=serving 4 blocks – seq 41 mirror level"]
    assert heard[3].startswith("RELOADING=1\nMONOTONIC_USEC=")
    assert heard[4] == "STOPPING=1"


def test_abstract_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that begins with `@` is no file."""
    name = f"blocksd-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0{name}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        notify.ready()
        assert listening.recv(1000) == b"READY=1"


def test_nobody_listens(systemd: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """A systemd that does not read, one that has gone, or none: the service goes on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending:
        sending.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                sending.sendto(b"STATUS=", os.environ["NOTIFY_SOCKET"])
    notify.watchdog(0)
    systemd.close()
    notify.ready()
    monkeypatch.delenv("NOTIFY_SOCKET")
    notify.ready()
