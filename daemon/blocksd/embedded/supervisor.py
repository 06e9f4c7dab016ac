"""Keeps the embedded server running, from a thread that starts it, watches it and restarts it."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from blocksd.embedded.server import STOP_SECONDS
from blocksd.errors import BlocksdError
from blocksd.model.faults import Failed
from blocksd.model.problem import SERVER, Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from blocksd.embedded.server import EmbeddedServer
    from blocksd.model.problem import Problems
    from blocksd.monitoring.events import Notices

FIRST_SECONDS, LONGEST_SECONDS = 1.0, 60.0
"""The shortest and the longest pause between two starts."""

SLOW_SECONDS = 1.0
"""A start that takes longer is reported; changes are journaled meanwhile."""

PROBE_SECONDS = 1.0
"""Between two probes of a running server, and how long a reply may take."""

_PROGRESS_SECONDS = 10.0  # between two log lines about progress
_WATCH_SECONDS = 0.25
_CLOSE_SECONDS = 1.5  # after the order to stop, while the daemon may still write to the mirror


@dataclass(frozen=True, slots=True)
class ServerState:
    """The state of the server. `detail` is how far a start has come, or why it failed, or is not watched."""

    phase: Literal["starting", "serving", "silent", "unwatched", "failed"]
    detail: str = ""
    code: str = "unavailable"


class Supervisor:
    """Keeps a server running. A failure is a problem, a restart a log line.

    The thread that starts the server lives as long as the daemon: the kernel ends the server with it. The thread passes
    `state` to `sink` when it changes; `report`, called by the main loop, sets and removes the problem.
    """

    silent_probes = 2
    """After so many unanswered probes the server is reported as silent, and the daemon stops waiting for it."""

    hung_probes = 10
    """After so many it is restarted. Probes are counted, not seconds, because the daemon itself may have been halted."""

    def __init__(
        self,
        server: EmbeddedServer,
        state: str,
        problems: Problems,
        notices: Notices,
        sink: Callable[[ServerState | Failed], object],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Supervise a server whose log is in the state directory `state`."""
        self._server = server
        self._log_path = os.path.join(state, "redis", "redis.log")
        self._problems = problems
        self._notices = notices
        self._sink = sink
        self._clock = clock
        self._pause_seconds = FIRST_SECONDS  # before the next start
        self._ending, self._is_closed = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self.state = ServerState("starting")
        self._starts = 0  # that succeeded
        self._reported_starts = 0
        self.is_blocked = False  # another daemon owns the state directory: no start there
        self._started_at = clock()  # of the start under way
        self._progress_at = 0.0

    def start(self) -> None:
        """Start the thread, or start it again if it has ended."""
        if not self.is_alive and not self._ending.is_set():
            self._thread = threading.Thread(target=self._run, name="server", daemon=True)
            self._thread.start()

    @property
    def is_alive(self) -> bool:
        """True if the thread is alive, whether the server runs or not."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def is_serving(self) -> bool:
        return self.state.phase == "serving"

    def begin_stop(self) -> None:
        """Have the server end soon, after a moment for the last writes. A start under way is cancelled."""
        self._ending.set()
        self._server.cancel_start()

    def stop(self) -> None:
        """End the server at once: the daemon writes no more."""
        self._is_closed.set()
        self.begin_stop()
        if self._thread is None:
            self._server.stop()
        else:
            self._thread.join(2 * STOP_SECONDS)

    # --- in its own thread ---

    def _run(self) -> None:
        while not self._ending.is_set():
            began = self._clock()
            try:
                if self.start_server():
                    self._watch()
            except OSError as error:
                self._starts -= self._server.is_running()  # it is found again, and was not started anew
                self._set_state(ServerState("unwatched", _reason(error)))
            except Exception as error:  # noqa: BLE001  # an internal error: the server is looked for and started again
                self._fail("watching the embedded server", error)
            if not self._ending.is_set():
                self._ending.wait(self.pause(self._clock() - began))
        self._is_closed.wait(_CLOSE_SECONDS)
        self._server.stop()

    def _watch(self) -> None:
        """Wait until the server has ended. End it if it hangs, or if its files were removed: no client can find it."""
        probe_at, unanswered = self._clock() + PROBE_SECONDS, 0
        while self._server.is_running() and not self._ending.wait(_WATCH_SECONDS):
            if not self.is_blocked and not self._server.is_in_place():
                directory = os.path.dirname(self._log_path)
                self._server.end_for_restart(
                    f"the files of the embedded server in {directory} were removed while it ran: it is restarted, and "
                    "the mirror is rebuilt"
                )
                return
            if self._clock() < probe_at:
                continue
            probe_at = self._clock() + PROBE_SECONDS
            unanswered = 0 if self._server.answers(PROBE_SECONDS) else unanswered + 1
            if unanswered >= self.hung_probes:
                seconds = unanswered * PROBE_SECONDS
                self._server.end_for_restart(
                    f"the embedded server did not answer for {seconds:g} seconds: it was ended, and is restarted"
                )
                return
            if unanswered == self.silent_probes:
                self._set_state(ServerState("silent"))
            elif not unanswered and not self.is_serving:
                self._set_state(ServerState("serving"))

    def start_server(self) -> bool:
        """Start the server and wait for it. Return True if it serves."""
        if self.is_blocked:
            self._set_state(ServerState("failed", "another daemon owns its directory"))
            return False
        self._set_state(ServerState("starting"))
        try:
            self._server.start()
        except BlocksdError as error:
            self._set_state(ServerState("failed", error.message, error.code))
            return False
        except OSError as error:
            self._set_state(ServerState("failed", _reason(error)))
            return False
        except Exception as error:  # noqa: BLE001  # an internal error, which is logged with its traceback; it is retried
            self._fail("starting the embedded server", error)
            return False
        self._starts += 1
        self._set_state(ServerState("serving"))
        return True

    def _fail(self, during: str, error: Exception) -> None:
        self._sink(Failed(during, error))
        self._set_state(ServerState("failed", repr(error), "internal_error"))

    def pause(self, lived_seconds: float) -> float:
        """Return how long to wait before the next start: twice as long each time, until the server has lived for long."""
        if lived_seconds > LONGEST_SECONDS:
            self._pause_seconds = FIRST_SECONDS
            return 0.0
        pause = self._pause_seconds
        self._pause_seconds = min(2 * pause, LONGEST_SECONDS)
        return pause

    def on_progress(self, detail: str) -> None:
        """Record how far the start under way has come; the server calls this."""
        self.state = ServerState("starting", detail)

    def _set_state(self, state: ServerState) -> None:
        if state.phase == "starting":
            self._started_at = self._clock()
        self.state = state
        self._sink(state)

    # --- in the main thread ---

    def report(self) -> None:
        """Report the state as a problem and in the log, and restart a dead thread; once a second, and at a change."""
        self.start()
        state, starts = self.state, self._starts
        while self._server.messages:
            self._notices.post(self._server.messages.pop(0), "warning")
        if state.phase == "serving":
            if starts > max(self._reported_starts, 1):
                self._notices.post("the embedded server had ended and was restarted", "warning")
            self._reported_starts = starts
            self._problems.remove(SERVER)
        elif state.phase == "silent":
            hint = f"if that lasts, it is restarted; see {self._log_path}"
            message = "the embedded server does not answer: changes are still journaled, and the mirror follows"
            self._problems.set(Problem(SERVER, state.code, message, hint))
        elif state.phase == "unwatched":
            hint = "repair that; the server runs on as far as it can, and watching it is retried"
            self._problems.set(
                Problem(SERVER, state.code, f"the embedded server cannot be watched: {state.detail}", hint)
            )
        elif state.phase == "failed":
            hint = f"see {self._log_path}; it is retried"
            ended = "has ended, and does not start" if starts else "does not start"
            self._problems.set(Problem(SERVER, state.code, f"the embedded server {ended}: {state.detail}", hint))
        elif self._clock() > self._started_at + SLOW_SECONDS:
            self._report_progress(state)

    def _report_progress(self, state: ServerState) -> None:
        if SERVER not in self._problems:
            message = "the embedded server is not ready yet: changes are still journaled, and the mirror follows"
            self._problems.set(Problem(SERVER, "starting", message, f"see {self._log_path}", warning=True))
        now = self._clock()
        if state.detail and now >= self._progress_at:
            self._progress_at = now + _PROGRESS_SECONDS
            self._notices.post(f"the embedded server is not ready yet: {state.detail}", "info")


def _reason(error: OSError) -> str:
    """Return what the system refused, and of which file."""
    return f"{error.filename or 'its files'}: {error.strerror or error}"
