"""The socket that systemd passes to the gateway."""

from __future__ import annotations

import io
import os
import socket
from typing import TYPE_CHECKING

import pytest

from blocksd.errors import Misconfigured
from blocksd.http import server
from blocksd.http.server import _address, passed_listener
from blocksd.monitoring.log import EventLog
from blocksd.settings.config import Config

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Pass a file descriptor as systemd does, but for its number."""

    def put(number: int, *, count: str = "1", pid: int = os.getpid()) -> None:
        monkeypatch.setattr(server, "_PASSED", number)
        for name, value in (("PID", str(pid)), ("FDS", count), ("FDNAMES", "blocksd-http.socket")):
            monkeypatch.setenv(f"LISTEN_{name}", value)

    return put


def test_passed_socket_is_taken_once(passes: Callable[[int], None]) -> None:
    """By this process, and by none that it starts."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        passes(os.dup(listening.fileno()))
        passed = passed_listener()
        assert passed is not None
        with passed:
            assert passed.getsockname() == listening.getsockname()
            assert passed.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert not passed.get_inheritable()
        assert not [name for name in os.environ if name.startswith("LISTEN_")]
        assert passed_listener() is None


@pytest.mark.parametrize("how", [{"pid": 1}, {"count": "0"}, {"count": ""}])
def test_socket_of_another_process_is_left_alone(passes: Callable[..., None], how: dict[str, object]) -> None:
    """A variable that was inherited says nothing of this process."""
    passes(-1, **how)
    assert passed_listener() is None


def made(kind: str, directory: Path) -> socket.socket:
    """Return a socket of a kind that is not served at."""
    if kind == "udp":
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    if kind == "packets":
        packets = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        packets.bind(str(directory / "packets"))
        packets.listen()
        return packets
    return socket.socket()  # it does not listen


@pytest.mark.parametrize("kind", ["udp", "packets", "connection"])
def test_other_sockets_are_refused(passes: Callable[[int], None], kind: str, tmp_path: Path) -> None:
    """With what to write into the unit."""
    with made(kind, tmp_path) as other:
        passes(os.dup(other.fileno()))
        with pytest.raises(Misconfigured, match=r"ListenStream= and Accept=no"):
            passed_listener()


def test_what_is_no_socket_is_refused(passes: Callable[..., None]) -> None:
    """As are several."""
    with open(os.devnull, encoding="utf-8") as file:
        passes(file.fileno())
        with pytest.raises(Misconfigured, match="ListenStream="):
            passed_listener()
    passes(-1, count="2")
    with pytest.raises(Misconfigured, match="passes 2 sockets"):
        passed_listener()


def test_setting_and_socket_name_one_place(tmp_path: Path) -> None:
    """The setting may say the same, for `doctor`; another place is a mistake, and a Unix socket has no host."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        assert _address(Config(), None) == ("127.0.0.1", 8283)
        assert _address(Config(), listening) == ("127.0.0.1", port)
        assert _address(Config(listen=str(port)), listening) == ("127.0.0.1", port)
        with pytest.raises(Misconfigured, match=rf"listen is 9283, and systemd listens at 127\.0\.0\.1:{port}: remove"):
            _address(Config(listen="9283"), listening)
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "http"))
        assert _address(Config(), unix) == (None, 0)
        with pytest.raises(Misconfigured, match=f"systemd listens at {tmp_path}/http"):
            _address(Config(listen="9283"), unix)


def test_passed_socket_is_no_way_around_the_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without them only this machine is served, whoever listens."""
    with socket.create_server(("0.0.0.0", 0)) as listening:
        monkeypatch.setattr(server, "passed_listener", lambda: listening)
        with pytest.raises(Misconfigured, match="without tokens"):
            server.serve(Config(), "unix:///nowhere", EventLog(io.StringIO()))
