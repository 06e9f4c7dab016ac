"""Starts the embedded server again when it has ended: the more often it does, the later."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from blocksd.errors import Misconfigured, Unavailable
from blocksd.problem import SERVER, Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from blocksd.embedded import EmbeddedServer
    from blocksd.listener import Notes
    from blocksd.problems import Problems

FIRST_SECONDS, LONGEST_SECONDS = 1.0, 60.0
"""Between two starts."""


class Supervisor:
    """Keeps a server running that was started. That it cannot is a problem, that it had to is noted."""

    def __init__(
        self,
        server: EmbeddedServer,
        state: str,
        problems: Problems,
        notes: Notes,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`state` is the state directory, where the server has its log."""
        self._server = server
        self._log = os.path.join(state, "redis", "redis.log")
        self._problems = problems
        self._notes = notes
        self._clock = clock
        self._start_at, self._wait_seconds = 0.0, FIRST_SECONDS  # when it may be started again, and how long after that

    def keep(self) -> None:
        """Once a second: start it again if it has ended, and has not just been started."""
        now = self._clock()
        if self._server.is_running():
            if now > self._start_at + LONGEST_SECONDS:
                self._wait_seconds = FIRST_SECONDS
            return
        if now < self._start_at:
            return
        self._start_at = now + self._wait_seconds
        self._wait_seconds = min(2 * self._wait_seconds, LONGEST_SECONDS)
        try:
            self._server.start()
        except (Unavailable, Misconfigured) as error:
            hint = f"see {self._log}; it is tried again"
            message = f"the embedded server has ended, and does not start: {error.message}"
            self._problems.set(Problem(SERVER, error.code, message, hint))
            return
        self._problems.remove(SERVER)
        self._notes.say("the embedded server had ended; it was started again", "warning")
