"""The gateway's process under `blocksd run --http`: started, restarted when it ends, and ended with the daemon."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
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
        self._pause_seconds = FIRST_SECONDS
        self.url = "{}:{}".format(*config.gateway_address)
        self.phase = "starting"
        self._last_words, self._next_step = "", ""

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
            except Exception as error:  # noqa: BLE001  # no memory, no process: it is logged, and retried
                self.phase, self._last_words = "failed", repr(error)
                self._sink(Failed("running the gateway", error))
            if not self._is_ending:
                self._wake.wait(self._pause(time.monotonic() - began))
                self._wake.clear()

    def _run_once(self) -> None:
        """Run a gateway until it ends, and pass on what it logs."""
        self._last_words = self._next_step = ""
        words = [sys.executable, "-I", "-S", "-c", MORTAL, str(os.getpid())]
        with subprocess.Popen(
            [*words, sys.executable, "-P", "-m", "blocksd", "serve"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=self._environ,
            encoding="utf-8",
            errors="backslashreplace",
            start_new_session=True,  # a Ctrl-C is for the daemon, which then ends the gateway
        ) as child:
            self._child = child
            if self._is_ending:  # since before it was there to be told
                child.terminate()
            assert child.stderr is not None
            for line in child.stderr:
                self._hear(line.rstrip("\n"))
            code = child.wait()
        self._child = None
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        self.phase, self._last_words = "failed", self._last_words or f"it ended with {how}"

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
        """Set or remove the problem, and restart a dead thread; once a second."""
        if self._thread is not None:
            self.start()
        if self.phase == "serving":
            self._problems.remove(GATEWAY)
        elif self.phase == "failed":
            hint = "; ".join(filter(None, (self._next_step, "it is retried")))
            message = f"the gateway at {self.url} does not run: {self._last_words}"
            self._problems.set(Problem(GATEWAY, "unavailable", message, hint))

    def as_json(self) -> dict[str, Any]:
        """Return what `blocksd status` shows."""
        child = self._child
        return {"url": self.url, "phase": self.phase, "pid": None if child is None else child.pid}


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
