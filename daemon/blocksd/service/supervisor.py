"""Has the embedded server run, from a thread that waits for it: started, and again when it has ended, and ended in order."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from blocksd.errors import BlocksdError
from blocksd.model.faults import Failed
from blocksd.model.problem import SERVER, Problem
from blocksd.service.embedded import STOP_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from blocksd.model.problems import Problems
    from blocksd.monitoring.events import Notices
    from blocksd.service.embedded import EmbeddedServer

FIRST_SECONDS, LONGEST_SECONDS = 1.0, 60.0
"""Between two starts."""

SLOW_SECONDS = 1.0
"""A start that takes longer is said; the folder goes on being journaled meanwhile."""

LOOK_SECONDS = 1.0
"""Between two looks at whether a server that runs answers; one that has not by then is unanswered."""

_PROGRESS_SECONDS = 10.0  # between two words on how far it has come
_WATCH_SECONDS = 0.25
_CLOSE_SECONDS = 1.5  # for so long after the word to stop the mirror may still be written


@dataclass(frozen=True, slots=True)
class ServerNews:
    """What has become of the server: it starts, serves, is silent, or has failed; `detail` says how far it is, or why."""

    state: Literal["starts", "serves", "silent", "failed"]
    detail: str = ""
    code: str = "unavailable"


class Supervisor:
    """Keeps a server running. That it cannot is a problem, that it had to is noted.

    The thread that starts the server lives as long as the daemon: the kernel ends the server with it. All that this
    thread tells the rest is `news`, which `sink` is given as it changes; `keep` says it where problems are said.
    """

    silent_looks = 2
    """After so many looks without an answer it is said that the server does not answer, and nothing waits for it."""

    hung_looks = 10
    """After so many it is ended and started again. Looks are counted, not seconds: the daemon itself may have been halted."""

    def __init__(
        self,
        server: EmbeddedServer,
        state: str,
        problems: Problems,
        notices: Notices,
        sink: Callable[[ServerNews | Failed], object],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`state` is the state directory, where the server has its log."""
        self._server = server
        self._log_path = os.path.join(state, "redis", "redis.log")
        self._problems = problems
        self._notices = notices
        self._sink = sink
        self._clock = clock
        self._wait_seconds = FIRST_SECONDS  # before the next start
        self._ending, self._is_closed = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self.news = ServerNews("starts")
        self._starts = 0  # that came to an end well
        self._told = 0  # of these
        self.is_barred = False  # the state directory is another daemon's: nothing is started there
        self._since = clock()  # when the start under way began
        self._progress_at = 0.0

    def start(self) -> None:
        """Begin, or begin again if the thread has ended."""
        if not self.is_alive and not self._ending.is_set():
            self._thread = threading.Thread(target=self._run, name="server", daemon=True)
            self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Return True if the thread lives, and with it whatever becomes of the server."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def is_serving(self) -> bool:
        return self.news.state == "serves"

    def begin_stop(self) -> None:
        """Have the server end soon, also if the daemon waits for it; it is given a moment for what is still written."""
        self._ending.set()
        self._server.give_up()

    def stop(self) -> None:
        """End the server; nothing is written to it any more."""
        self._is_closed.set()
        self.begin_stop()
        if self._thread is None:
            self._server.stop()
        else:
            self._thread.join(2 * STOP_SECONDS)

    # --- in its thread ---

    def _run(self) -> None:
        while not self._ending.is_set():
            began = self._clock()
            try:
                if self.start_server():
                    self._watch()
            except Exception as error:  # noqa: BLE001  # a fault of ours: the server is looked for and started again
                self._fail("watching the embedded server", error)
            if not self._ending.is_set():
                self._ending.wait(self.pause(self._clock() - began))
        self._is_closed.wait(_CLOSE_SECONDS)
        self._server.stop()

    def _watch(self) -> None:
        """Wait until the server has ended, or is to. It is ended if it hangs, or its directory was removed: no client finds it."""
        look_at, unanswered = self._clock() + LOOK_SECONDS, 0
        while self._server.is_running() and not self._ending.wait(_WATCH_SECONDS):
            if not self.is_barred and not self._server.is_in_place():
                self._server.end_for_lost_files()
                return
            if self._clock() < look_at:
                continue
            look_at = self._clock() + LOOK_SECONDS
            unanswered = 0 if self._server.answers(LOOK_SECONDS) else unanswered + 1
            if unanswered >= self.hung_looks:
                self._server.end_for_silence(unanswered * LOOK_SECONDS)
                return
            if unanswered == self.silent_looks:
                self._tell(ServerNews("silent"))
            elif not unanswered and not self.is_serving:
                self._tell(ServerNews("serves"))

    def start_server(self) -> bool:
        """Start the server, and wait until it serves; False when it does not."""
        if self.is_barred:
            self._tell(ServerNews("failed", "its directory is another daemon's now"))
            return False
        self._tell(ServerNews("starts"))
        try:
            self._server.start()
        except BlocksdError as error:
            self._tell(ServerNews("failed", error.message, error.code))
            return False
        except OSError as error:
            self._tell(ServerNews("failed", f"{error.filename or 'its files'}: {error.strerror or error}"))
            return False
        except Exception as error:  # noqa: BLE001  # a fault of ours, which is retried; it is logged with its traceback
            self._fail("starting the embedded server", error)
            return False
        self._starts += 1
        self._tell(ServerNews("serves"))
        return True

    def _fail(self, during: str, error: Exception) -> None:
        self._sink(Failed(during, error))
        self._tell(ServerNews("failed", repr(error), "internal_error"))

    def pause(self, lived_seconds: float) -> float:
        """How long to wait before the next start: longer each time, until it has lived for long. The first has no need to."""
        if lived_seconds > LONGEST_SECONDS:
            self._wait_seconds = FIRST_SECONDS
            return 0.0
        wait = self._wait_seconds
        self._wait_seconds = min(2 * wait, LONGEST_SECONDS)
        return wait

    def on_progress(self, detail: str) -> None:
        """How far the start under way has come; the server is to call it."""
        self.news = ServerNews("starts", detail)

    def _tell(self, news: ServerNews) -> None:
        if news.state == "starts":
            self._since = self._clock()
        self.news = news
        self._sink(news)

    # --- in the daemon's ---

    def keep(self) -> None:
        """Once a second, and when there is news: say how the server is, and see that the thread lives."""
        self.start()
        news, starts = self.news, self._starts
        while self._server.set_aside:
            self._notices.post(self._server.set_aside.pop(0), "warning")
        if news.state == "serves":
            if starts > max(self._told, 1):
                self._notices.post("the embedded server had ended; it was started again", "warning")
            self._told = starts
            self._problems.remove(SERVER)
        elif news.state == "silent":
            hint = f"if that lasts, it is ended and started again; see {self._log_path}"
            message = "the embedded server does not answer: the folder goes on being journaled, the mirror follows"
            self._problems.set(Problem(SERVER, news.code, message, hint))
        elif news.state == "failed":
            hint = f"see {self._log_path}; it is retried"
            ended = "has ended, and does not start" if starts else "does not start"
            self._problems.set(Problem(SERVER, news.code, f"the embedded server {ended}: {news.detail}", hint))
        elif self._clock() > self._since + SLOW_SECONDS:
            self._say_progress(news)

    def _say_progress(self, news: ServerNews) -> None:
        if SERVER not in self._problems:
            message = "the embedded server is not ready yet: the folder goes on being journaled, the mirror follows"
            self._problems.set(Problem(SERVER, "starting", message, f"see {self._log_path}", warning=True))
        now = self._clock()
        if news.detail and now >= self._progress_at:
            self._progress_at = now + _PROGRESS_SECONDS
            self._notices.post(f"the embedded server is not ready yet: {news.detail}", "info")
