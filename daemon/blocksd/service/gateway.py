"""The gateway's process under `blocksd run --http`: started, restarted when it ends, and ended with the daemon."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

from blocksd.embedded.server import MORTAL
from blocksd.model.faults import Failed
from blocksd.model.problem import GATEWAY, Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from blocksd.model.problem import Problems
    from blocksd.monitoring.events import Notices
    from blocksd.settings.config import Config

FIRST_SECONDS, LONGEST_SECONDS = 1.0, 60.0
"""The shortest and the longest pause between two starts."""

LATE, MOST_LATE = 15, 60
"""How many looks, one a second, find no ping of a gateway before it has a problem, and before it is ended, to be restarted."""

STOP_SECONDS = 3.0
"""How long the gateway has to end by itself. The whole daemon has 5 seconds to stop."""

_PASSED = ("namespace", "redis", "by", "listen", "hosts", "tokens", "tokens_file", "certificate", "certificate_key")
_SYSTEMDS = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "CREDENTIALS_DIRECTORY", "STATE_DIRECTORY")


class GatewayProcess:
    """Keeps one gateway running, from a thread that starts it and reads its log.

    The kernel ends the gateway when that thread ends, however the daemon ends. `report`, called by the main loop, sets and
    removes the problem that it does not run. Reports of failures of the thread go to `sink`.
    """

    def __init__(self, config: Config, problems: Problems, notices: Notices, sink: Callable[[Failed], object]) -> None:
        """Take the settings in force: the gateway has the same, and no others."""
        self._problems = problems
        self._notices = notices
        self._sink = sink
        self._environ = environ_of(config)
        self._thread: threading.Thread | None = None
        self._child: subprocess.Popen[str] | None = None
        self._is_ending = False
        self._wake = threading.Event()
        self._pings: _Pings | None = None
        self._late = 0
        self._pause_seconds = FIRST_SECONDS
        self.url = "{}:{}".format(*config.gateway_address)
        self.phase = "starting"
        self._last_words, self._next_step = "", ""
        self._reason = "", ""
        """The last words and the next step of the gateway that ended last."""

    def start(self) -> None:
        """Start the thread, or start it again if it has ended."""
        if not self._is_ending and (self._thread is None or not self._thread.is_alive()):
            self._thread = threading.Thread(target=self._run, name="gateway", daemon=True)
            self._thread.start()

    def reload(self) -> None:
        """Have the gateway read its file of tokens again; one that does not run is started at once."""
        if self.phase == "serving":
            self._signal(signal.SIGHUP)
        self._wake.set()

    def begin_stop(self) -> None:
        """Tell the gateway to end; no other one is started."""
        if not self._is_ending:  # a second signal would cut requests off
            self._is_ending = True
            self._wake.set()
            self._signal(signal.SIGTERM)

    def stop(self) -> None:
        """End the gateway, by force if it takes longer than `STOP_SECONDS`."""
        self.begin_stop()
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)
            self._signal(signal.SIGKILL)
            self._thread.join(STOP_SECONDS)

    # --- in its own thread ---

    def _run(self) -> None:
        while not self._is_ending:
            began = time.monotonic()
            try:
                self._run_once()
            except OSError as error:
                why = f"its process cannot be run: {error.strerror or error}"
                hint = "see how many processes and open files this user may have, and what memory is left"
                self.phase, self._reason = "failed", (why, hint)
            except Exception as error:  # noqa: BLE001  # an internal error: it is logged, and retried
                self.phase, self._reason = "failed", (repr(error), "")
                self._sink(Failed("running the gateway", error))
            if not self._is_ending:
                self._wake.wait(self._pause(time.monotonic() - began))
                self._wake.clear()

    def _run_once(self) -> None:
        """Run a gateway until it ends, and pass on what it logs."""
        self._last_words = self._next_step = ""
        words = [sys.executable, "-I", "-S", "-c", MORTAL, str(os.getpid())]
        with (
            closing(_Pings()) as pings,
            subprocess.Popen(
                [*words, sys.executable, "-P", "-m", "blocksd", "serve"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env={**self._environ, "NOTIFY_SOCKET": pings.address},
                encoding="utf-8",
                errors="backslashreplace",
                start_new_session=True,  # a Ctrl-C is for the daemon, which then ends the gateway
            ) as child,
        ):
            self._pings, self._child = pings, child
            if self._is_ending:  # since before it was there to be told
                child.terminate()
            assert child.stderr is not None
            for line in child.stderr:
                self._hear(line.rstrip("\n"))
            code = child.wait()
        self._pings = self._child = None
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        self.phase, self._reason = "failed", (self._last_words or f"it ended with {how}", self._next_step)

    def _hear(self, line: str) -> None:
        """Pass a line of the gateway's log on to the daemon's; its failure becomes the problem."""
        event: dict[str, Any] = {}
        with suppress(ValueError):
            event = json.loads(line)
        if not isinstance(event, dict) or "message" not in event:
            event = {"message": line, "level": "warning"}
        message: str = event["message"]
        if event.get("event") == "failure":
            self._last_words, self._next_step = message, event["hint"]
            return
        if event.get("event") == "serving":
            self.phase, self.url = "serving", event["url"]
        elif event.get("event") == "stop":
            return
        self._last_words = message if event["level"] != "info" else ""
        self._notices.post(f"the gateway: {message}", event["level"])

    def _pause(self, lived_seconds: float) -> float:
        """Return how long to wait before the next start: twice as long each time, until one has lived for long."""
        if lived_seconds > LONGEST_SECONDS:
            self._pause_seconds = FIRST_SECONDS
        pause, self._pause_seconds = self._pause_seconds, min(2 * self._pause_seconds, LONGEST_SECONDS)
        return pause

    # --- in the main thread ---

    def _signal(self, number: signal.Signals) -> None:
        child = self._child
        if child is not None:
            child.send_signal(number)

    def report(self) -> None:
        """Set or remove the problem, restart a dead thread, and end a gateway that hangs; once a second."""
        if self._thread is not None:
            self.start()
        self._look()
        if self.phase == "serving" and self._late >= LATE:
            message = f"the gateway at {self.url} does not respond"
            hint = (
                "it is restarted if that lasts for a minute; see if it is stopped (SIGSTOP), or the machine overloaded"
            )
            self._problems.set(Problem(GATEWAY, "unavailable", message, hint))
        elif self.phase == "serving":
            self._problems.remove(GATEWAY)
        elif self.phase == "failed":
            why, next_step = self._reason
            hint = "; ".join(filter(None, (next_step, "it is retried")))
            message = f"the gateway at {self.url} does not run: {why}"
            self._problems.set(Problem(GATEWAY, "unavailable", message, hint))

    def _look(self) -> None:
        """Count how long the gateway has not pinged, by looks: a daemon that was suspended itself has seen none.

        The ping comes from the event loop that answers requests. One that starts does not ping yet.
        """
        pings, child = self._pings, self._child
        self._late = 0 if pings is None or child is None or pings.came_from(child.pid) else self._late + 1
        if child is not None and self._late >= MOST_LATE and not self._is_ending:
            self._late, self._last_words = 0, "it did not respond, and was ended"
            child.kill()

    def as_json(self) -> dict[str, Any]:
        """Return what `blocksd status` shows."""
        child = self._child
        return {"url": self.url, "phase": self.phase, "pid": None if child is None else child.pid}


class _Pings:
    """A socket for the notifications that a gateway sends as to systemd, which would ping its watchdog so."""

    _CREDENTIALS = struct.Struct("3i")  # of ucred: the kernel's word on the sender's pid, uid and gid
    _MOST = 100

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind("")  # the kernel finds a free abstract name
        self.address = f"@{self._socket.getsockname()[1:].decode('ascii')}"

    def came_from(self, pid: int) -> bool:
        """Return True if this process has sent something since the last call. Others on this machine could send, too."""
        senders: set[int] = set()
        with suppress(OSError):  # there is no more
            for _ in range(self._MOST):
                _, ancillary, _, _ = self._socket.recvmsg(64, socket.CMSG_SPACE(self._CREDENTIALS.size))
                senders.update(self._CREDENTIALS.unpack(data)[0] for _, _, data in ancillary)
        return pid in senders

    def close(self) -> None:
        """Close the socket; then nothing comes any more."""
        self._socket.close()


def environ_of(config: Config) -> dict[str, str]:
    """Return the environment of a gateway with these settings, which finds the embedded server by the state directory."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("BLOCKSD_") and name not in _SYSTEMDS  # what systemd says is for the daemon alone
    }
    given = {f"BLOCKSD_{name.upper()}": getattr(config, name) for name in _PASSED}
    given |= {"BLOCKSD_CONFIG": os.devnull, "BLOCKSD_STATE_DIR": config.state, "BLOCKSD_LOG_FORMAT": "json"}
    return {**kept, **{name: value for name, value in given.items() if value is not None}}
