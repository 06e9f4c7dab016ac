"""Health checks: named predicates that decide whether the watchdog is pinged.

systemd restarts a daemon that hangs, or half of which is dead. A fault that the daemon knows and has reported is no reason
for a restart: a folder that cannot be watched, or a Redis that is unreachable, would be the same afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass

SILENT_SECONDS = 15.0
"""How long Redis may be silent while the mirror counts as in sync, or as catching up."""


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
