"""Pings systemd's watchdog while the daemon is healthy."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from blocksd.model.problem import FOLDER, SERVER, WATCHER
from blocksd.monitoring import sd_notify
from blocksd.monitoring.health import Vitals, faults_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from blocksd.core.core import Core
    from blocksd.monitoring.events import Notices

PING_SECONDS = 1.0
"""The least time between two pings while a round makes progress."""

ROUND_SECONDS = 600.0
"""How long a round counts as progress: a round is bounded, and takes a fraction of that on a disk that works."""

_START_SECONDS = 60.0  # how much longer systemd is asked to wait while the start makes progress


class Watchdog:
    """Checks the daemon's health. A fault is logged when two checks in a row find it, and when it is over."""

    def __init__(self, notices: Notices, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._notices = notices
        self._clock = clock
        self._checked_at = 0.0
        self._pinged_at = 0.0
        self._faults: list[str] = []
        self._reported: list[str] = []

    def check(self, vitals: Vitals, *, is_starting: bool) -> None:
        """Ping the watchdog if the daemon is healthy; called once a second."""
        found = faults_of(vitals)
        self._checked_at = self._clock()
        if not found:
            self._ping(is_starting=is_starting)
        lasting = [fault for fault in found if fault in self._faults]
        self._faults = found
        if lasting and lasting != self._reported:
            self._reported = lasting
            self._notices.post(f"unhealthy: {', '.join(lasting)}; watchdog pings stopped", "error")
        elif not found and self._reported:
            self._reported = []
            self._notices.post("healthy again; watchdog pings resumed", "info")

    def report_progress(self, *, is_starting: bool) -> None:
        """Ping the watchdog during a long round, if the last check found no fault. Cheap when no ping is due."""
        now = self._clock()
        if now - self._pinged_at >= PING_SECONDS and not self._faults and now - self._checked_at < ROUND_SECONDS:
            self._ping(is_starting=is_starting)

    def _ping(self, *, is_starting: bool) -> None:
        self._pinged_at = self._clock()
        sd_notify.watchdog()
        if is_starting:
            sd_notify.starting(_START_SECONDS)


def vitals_of(
    core: Core,
    *,
    is_polling: bool,
    is_watching: bool,
    is_reading: bool,
    is_server_running: bool,
    failing: tuple[str, ...] = (),
) -> Vitals:
    """Return the vitals of a core, with the facts that only its service knows."""
    problems, projector = core.problems, core.projector
    return Vitals(
        is_polling=is_polling,
        is_watching=is_watching,
        is_watch_loss_reported=WATCHER in problems or FOLDER in problems,
        is_in_sync=projector.is_in_sync,
        is_catching_up=projector.is_busy,
        is_unreachable_reported=projector.is_said_to_be_unreachable or projector.is_held,
        silent_seconds=projector.silent_seconds,
        is_reading=is_reading,
        is_server_running=is_server_running,
        is_server_loss_reported=SERVER in problems,
        failing=failing,
    )
