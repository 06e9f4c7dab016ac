"""The embedded server: starts it, takes over one that runs, and ends it with its daemon."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from blocksd.embedded import probe
from blocksd.embedded.binary import Binary, find_binary
from blocksd.embedded.data import ServerData
from blocksd.embedded.endpoint import Address, Endpoint, free_port
from blocksd.errors import Unavailable
from blocksd.settings.record import inode_of

if TYPE_CHECKING:
    from collections.abc import Callable

SILENT_SECONDS = 30.0
"""How long a server that starts may neither answer nor work before it counts as hung."""

STOP_SECONDS = 1.5
"""How long a server has to end by itself. The whole daemon has 5 seconds to stop."""

_ATTEMPTS = 2  # with the same data
_LOADING_SECONDS = 0.25  # between two looks at a server that loads its data

MORTAL = """
import ctypes, os, signal, sys
os.umask(0o077)  # its files are for its user alone
ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
if os.getppid() == int(sys.argv[1]):  # else the parent has ended already
    os.execv(sys.argv[2], sys.argv[2:])
"""
"""A program that becomes another one, which ends with the thread that started it. (setpriv(1) needs calls that a hardened service may not make.)"""


class EmbeddedServer:
    """A server private to this user: its data in the state directory, on a Unix socket and a loopback port.

    The kernel ends it when the thread that started it ends, however the daemon ends. A server that runs all the same is
    taken over. Its data are disposable: data that another kind or major version wrote, or that cannot be loaded, are set
    aside. `start` blocks while the data load; another thread may call `stop` meanwhile.
    """

    def __init__(self, state: str) -> None:
        self._endpoint = Endpoint(state)
        self._directory = self._endpoint.directory
        self._data = ServerData(self._directory)
        self.on_progress: Callable[[str], object] = lambda _: None
        """Called repeatedly while `start` waits, with how far the server has come."""
        self._child: subprocess.Popen[bytes] | None = None
        self._ending = threading.Event()
        self._was_ended = False  # the last server, because it hung
        self.binary: Binary | None = None
        self.address: Address | None = None
        self.messages: list[str] = []  # why data were set aside or the server was ended; for the log, which empties it
        self._last: Address | None = None  # the address to keep should the files be removed
        self._identity: tuple[int, int] | None = None  # device and inode of the directory of the server that runs

    def prepare(self) -> Address:
        """Return the address the server is going to have, and find its program, without starting it.

        Raises:
            Misconfigured: no server runs, and no program is installed.
            OSError: the state directory cannot be used.
        """
        self._endpoint.make_directories()
        known = self._endpoint.read() or self._last
        password = self._endpoint.password(known)
        if known is not None and self._is_ours(known.pid):
            return replace(known, pid=0, socket=self._endpoint.socket_path(), password=password)
        self.binary = find_binary()
        port = free_port(known.port if known is not None else 0)
        self._last = Address(0, port, self._endpoint.socket_path(), password)
        return self._last

    def start(self) -> Address:
        """Run the server: take over one that runs, else start one on the same data and, if free, the same port.

        Raises:
            Misconfigured: no server program is installed.
            Unavailable: the server does not start; the message has the last line of its log.
            OSError: the state directory cannot be used.
        """
        wanted = self.prepare()
        known = self._endpoint.read()
        if known is not None and self._is_ours(known.pid):
            if (known.socket, known.password) == (wanted.socket, wanted.password) and self._comes_up(known):
                self.binary, self.address, self._last = None, known, known
                self._identity = inode_of(self._directory)
                return known
            probe.end_process(known.pid, STOP_SECONDS)  # it hangs, and holds the data
        self.binary = self.binary or find_binary()
        message = self._data.set_aside_foreign(self.binary)
        if message is not None:
            self.messages.append(message)
        for _ in range(_ATTEMPTS):
            address = self._launch(wanted)
            if self._comes_up(address):
                return self._serve(address)
            if self._ending.is_set() or self._was_ended or not self._data.exist:
                break
        else:  # each attempt with the data failed: try without them
            message = self._data.set_aside(self.binary, f"they cannot be loaded: {self._last_words()}")
            address = self._launch(wanted)
            if self._comes_up(address):
                self.messages.append(message)
                return self._serve(address)
            self._data.put_back()  # the data are not the reason
        raise Unavailable(f"the embedded server does not start: {self._last_words()}", path=self._directory)

    def _launch(self, wanted: Address) -> Address:
        assert self.binary is not None
        address = replace(wanted, port=free_port(wanted.port))
        with suppress(FileNotFoundError):
            os.unlink(address.socket)
        settings = self._endpoint.write_settings(address)
        # The kernel ends the server when the calling thread ends: it must live as long as the daemon.
        self._was_ended = False
        self._child = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", MORTAL, str(os.getpid()), self.binary.path, settings],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C is for the daemon, which then ends the server
        )
        self._last = address = replace(address, pid=self._child.pid)
        self._endpoint.record(address)
        return address

    def _serve(self, address: Address) -> Address:
        assert self.binary is not None
        self._data.mark_written_by(self.binary)
        self.address = address
        self._endpoint.publish(address)
        self._identity = inode_of(self._directory)
        return address

    def is_in_place(self) -> bool:
        """Return False if the running server's directory, socket or data were removed.

        Then clients cannot connect, and writes are lost, so it must be started again. Removed files that only hold its
        address are written again.
        """
        address = self.address
        if address is None or self._identity is None:
            return True
        needed = address.socket, os.path.join(self._directory, "appendonlydir")
        try:
            if inode_of(self._directory) != self._identity or None in map(inode_of, needed):
                return False
        except OSError:  # they cannot be looked at for now, so nothing tells that they were removed
            return True
        with suppress(OSError):  # a full disk, for example; the next call tries again
            self._endpoint.restore(address)
        return True

    def answers(self, seconds: float) -> bool:
        """Return True if the server replies within so many seconds, even that it loads, is busy or is full."""
        return self.address is not None and probe.answers(self.address, seconds)

    def end_for_restart(self, why: str) -> None:
        """End the server. The next `start` keeps its password, its data if they are there, and, if free, its port."""
        self.messages.append(why)
        self._last = self.address
        is_ending = self._ending.is_set()
        self.stop()
        if is_ending:
            self._ending.set()

    def _comes_up(self, address: Address) -> bool:
        """Wait until the server serves. Return False if it ended, or hung and was ended.

        A server that loads its data is alive, however long that takes. So is one whose process works.
        """
        silent_since, worked = time.monotonic(), -1
        while not self._ending.is_set():
            state = probe.state_of(address)
            if state == "serves":
                return True
            if not self._lives(address.pid):
                return False
            now = time.monotonic()
            work = probe.work_of(address.pid)
            if state is not None or work != worked:
                silent_since, worked = now, work
            if state == "refuses" or now > silent_since + SILENT_SECONDS:
                self._was_ended = state != "refuses"
                break
            self.on_progress(state if state is not None else "it does not answer yet")
            self._ending.wait(probe.POLL_SECONDS if state is None else _LOADING_SECONDS)
        if self._child is not None and self._child.poll() is None:
            self._child.kill()
            self._child.wait()
        return False

    def _lives(self, pid: int) -> bool:
        if self._child is not None and self._child.pid == pid:
            return self._child.poll() is None
        return probe.is_alive(pid)

    def is_running(self) -> bool:
        """Return True if the server process exists, whether it answers or not."""
        if self._child is not None:
            return self._child.poll() is None
        return self.address is not None and probe.is_alive(self.address.pid)

    def cancel_start(self) -> None:
        """End a start that is under way; none begins before `stop` is called."""
        self._ending.set()

    def stop(self, *, grace: float = STOP_SECONDS) -> None:
        """End the server, by force after `grace` seconds. Its data stay on disk."""
        self._ending.set()
        if self._child is not None:
            self._child.terminate()
            try:
                self._child.wait(grace)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()
        elif self.address is not None:
            probe.end_process(self.address.pid, grace)
        self._child = self.address = None
        self._ending.clear()

    def _is_ours(self, pid: int) -> bool:
        """Return True if the process is a server in this directory: another process may have been given its pid."""
        try:
            return bool(pid) and os.path.samefile(f"/proc/{pid}/cwd", self._directory)
        except OSError:
            return False

    def _last_words(self) -> str:
        return probe.last_words(os.path.join(self._directory, "redis.log"))
