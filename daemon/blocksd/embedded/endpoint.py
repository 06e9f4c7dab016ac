"""The address of the embedded server, and the files that hold it."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import socket
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from urllib.parse import quote

from blocksd.errors import Misconfigured, Unavailable
from blocksd.settings.record import write_private

_SOCKET_CHARS = 100  # the kernel takes 107


@dataclass(frozen=True, slots=True)
class Address:
    """The address of an embedded server. `url` is for the daemon and its commands, `tcp_url` for other programs."""

    pid: int
    port: int
    socket: str
    password: str

    @property
    def url(self) -> str:
        return f"unix://:{self.password}@{quote(self.socket)}"

    @property
    def tcp_url(self) -> str:
        return f"redis://default:{self.password}@127.0.0.1:{self.port}/0"  # redis-cli wants a user, too


class Endpoint:
    """The files with the server's address and password, in the state directory and in the server's directory."""

    def __init__(self, state: str) -> None:
        self.directory = os.path.join(state, "redis")
        self._record_path = os.path.join(self.directory, "server.json")
        self._url_path = os.path.join(state, "redis-url")
        self._password_path = os.path.join(state, "redis-password")

    def make_directories(self) -> None:
        """Make the state directory and the server's, for this user alone."""
        os.makedirs(self.directory, mode=0o700, exist_ok=True)
        os.chmod(self.directory, 0o700)

    def read(self) -> Address | None:
        """Return the address of the server that ran last, if it is recorded."""
        try:
            with open(self._record_path, encoding="utf-8") as file:
                return Address(**json.load(file))
        except (OSError, ValueError, TypeError):
            return None

    def record(self, address: Address) -> None:
        write_private(self._record_path, json.dumps(asdict(address)))

    def publish(self, address: Address) -> None:
        """Write the URL for people and other programs."""
        write_private(self._url_path, address.tcp_url + "\n")

    def restore(self, address: Address) -> None:
        """Write the files again that were removed while the server runs."""
        if not os.path.lexists(self._record_path):
            self.record(address)
        if not os.path.lexists(self._url_path):
            self.publish(address)
        self.password(address)

    def password(self, known: Address | None) -> str:
        """Return the password of the state directory; it is made once, and outlasts the server's data."""
        with suppress(FileNotFoundError), open(self._password_path, encoding="ascii") as file:
            password = file.read().strip()
            if password:
                return password
        password = known.password if known is not None else secrets.token_urlsafe(24)
        write_private(self._password_path, password + "\n")
        return password

    def socket_path(self) -> str:
        """Return the path of the Unix socket; one in a private temporary directory where the state's path is too long."""
        path = os.path.join(self.directory, "redis.sock")
        if len(path) <= _SOCKET_CHARS:
            return path
        name = f"blocksd-{os.getuid()}-{hashlib.sha256(self.directory.encode()).hexdigest()[:12]}"
        private = os.path.join(tempfile.gettempdir(), name)
        os.makedirs(private, mode=0o700, exist_ok=True)
        status = os.lstat(private)
        if status.st_uid != os.getuid() or status.st_mode & 0o077:
            raise Misconfigured(f"{private} is not a private directory of this user", key="state_dir")
        return os.path.join(private, "redis.sock")

    def write_settings(self, address: Address) -> str:
        """Write the server's settings, and return the path of the file."""
        path = os.path.join(self.directory, "redis.conf")
        settings = {
            "bind": "127.0.0.1",
            "port": str(address.port),
            "unixsocket": f'"{address.socket}"',
            "unixsocketperm": "700",
            "requirepass": address.password,
            "dir": f'"{self.directory}"',
            "logfile": '"redis.log"',
            "daemonize": "no",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": '""',
            "maxmemory-policy": "noeviction",
            # No request is nearly as long, nor is any argument of apply.lua: one revision of the largest block possible.
            "proto-max-bulk-len": "64mb",
            "client-query-buffer-limit": "128mb",
        }
        write_private(path, "".join(f"{key} {value}\n" for key, value in settings.items()))
        return path


def free_port(wanted: int) -> int:
    """Return the wanted loopback port if it is free, else another. A program that takes it first makes the start fail."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise Unavailable("no loopback port is free")
