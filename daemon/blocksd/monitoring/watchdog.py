"""Feeds systemd's watchdog for as long as nothing ails the daemon."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from blocksd.model.problem import FOLDER, SERVER, WATCHER
from blocksd.monitoring import sd_notify as notify
from blocksd.monitoring.health import Vitals, ailments

if TYPE_CHECKING:
    from collections.abc import Callable

    from blocksd.core.core import Core
    from blocksd.monitoring.events import Notes

FED_SECONDS = 1.0
"""Between two feedings while a round makes progress."""

ROUND_SECONDS = 600.0
"""For how long one round counts as progress: it is bounded, and takes a fraction of that on a disk that works."""

_START_SECONDS = 60.0  # how much longer systemd is asked to wait, as long as the start goes on


class Pulse:
    """What ailed the daemon lately. It is said when it is seen a second time, and when it is over."""

    def __init__(self, notes: Notes, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._notes = notes
        self._clock = clock
        self._beat_at = 0.0
        self._fed_at = 0.0
        self._ailments: list[str] = []
        self._said: list[str] = []

    def beat(self, vitals: Vitals, *, is_starting: bool) -> None:
        """Once a second: feed the watchdog, unless something ails."""
        found = ailments(vitals)
        self._beat_at = self._clock()
        if not found:
            self._feed(is_starting=is_starting)
        lasting = [ailment for ailment in found if ailment in self._ailments]
        self._ailments = found
        if lasting and lasting != self._said:
            self._said = lasting
            self._notes.say(f"not well: {', '.join(lasting)}; the watchdog is not fed", "error")
        elif not found and self._said:
            self._said = []
            self._notes.say("well again; the watchdog is fed", "info")

    def progress(self, *, is_starting: bool) -> None:
        """A round goes on, and may take long: feed the watchdog, unless something ailed before it. Cheap if it is not due."""
        now = self._clock()
        if now - self._fed_at >= FED_SECONDS and not self._ailments and now - self._beat_at < ROUND_SECONDS:
            self._feed(is_starting=is_starting)

    def _feed(self, *, is_starting: bool) -> None:
        self._fed_at = self._clock()
        notify.watchdog()
        if is_starting:
            notify.starting(_START_SECONDS)


def vitals_of(
    core: Core,
    *,
    is_polling: bool,
    is_watching: bool,
    is_reading: bool,
    is_server_running: bool,
    failing: tuple[str, ...] = (),
) -> Vitals:
    """The vitals of a core, with what only its service knows."""
    problems, projector = core.problems, core.projector
    return Vitals(
        is_polling=is_polling,
        is_watching=is_watching,
        is_blindness_said=WATCHER in problems or FOLDER in problems,
        is_level=projector.is_in_sync,
        is_levelling=projector.is_busy,
        is_absence_said=projector.is_said_to_be_unreachable or projector.is_held,
        silent_seconds=projector.silent_seconds,
        is_reading=is_reading,
        is_server_running=is_server_running,
        is_server_loss_said=SERVER in problems,
        failing=failing,
    )
