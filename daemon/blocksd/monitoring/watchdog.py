"""Pings systemd's watchdog while the daemon is healthy, by named predicates.

systemd restarts a daemon that hangs, or half of which is dead. A fault that the daemon knows and has reported is no reason
for a restart: a folder that cannot be watched, or a Redis that is unreachable, would be the same afterwards.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blocksd.model.problem import FOLDER, SERVER, WATCHER
from blocksd.monitoring import sd_notify

if TYPE_CHECKING:
    from collections.abc import Callable

    from blocksd.core.core import Core
    from blocksd.monitoring.events import Notices

SILENT_SECONDS = 15.0
"""How long Redis may be silent while the mirror counts as in sync, or as catching up."""

PING_SECONDS = 1.0
"""The least time between two pings while a round makes progress."""

ROUND_SECONDS = 600.0
"""How long a round counts as progress: a round is bounded, and takes a fraction of that on a disk that works."""

_START_SECONDS = 60.0  # how much longer systemd is asked to wait while the start makes progress


@dataclass(frozen=True, slots=True)
class Vitals:
    """The facts that health depends on, at one moment. The main loop proves that it is alive by asking for them."""

    is_polling: bool
    is_watching: bool  # file events arrive, by threads that are alive
    is_watch_loss_reported: bool
    is_in_sync: bool
    is_catching_up: bool
    is_unreachable_reported: bool
    silent_seconds: float  # since Redis last answered
    is_reading: bool  # the thread that reads inboxes is alive
    is_server_running: bool  # the embedded server; true if there is none
    is_server_loss_reported: bool
    failing: tuple[str, ...] = ()  # parts of the loop that have failed each time for long, each after "to"


def is_unwatched(vitals: Vitals) -> bool:
    """Return True if only the next full comparison would find a save, and no problem says so."""
    return not (vitals.is_polling or vitals.is_watching or vitals.is_watch_loss_reported)


def is_disconnected(vitals: Vitals) -> bool:
    """Return True if the mirror is neither in sync nor catching up, and no problem says so."""
    return not (vitals.is_in_sync or vitals.is_catching_up or vitals.is_unreachable_reported)


def is_stalled(vitals: Vitals) -> bool:
    """Return True if the mirror counts as in sync, or as catching up, but Redis has not answered for long."""
    return (vitals.is_in_sync or vitals.is_catching_up) and vitals.silent_seconds > SILENT_SECONDS


def is_serverless(vitals: Vitals) -> bool:
    """Return True if the embedded server does not run, and no problem says so."""
    return not (vitals.is_server_running or vitals.is_server_loss_reported)


def faults_of(vitals: Vitals) -> list[str]:
    """Return the reasons not to ping the watchdog, in words; none if the daemon is healthy or has reported its faults."""
    found = (
        (is_unwatched(vitals), "the folder is not watched"),
        (is_disconnected(vitals), "the mirror is not kept in sync"),
        (is_stalled(vitals), f"Redis has not answered for {SILENT_SECONDS:.0f} s"),
        (not vitals.is_reading, "the inboxes are not read"),
        (is_serverless(vitals), "the embedded server does not run"),
        (bool(vitals.failing), f"each attempt fails to {', to '.join(vitals.failing)}"),
    )
    return [words for is_found, words in found if is_found]


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
