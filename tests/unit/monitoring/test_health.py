"""What keeps the watchdog from being fed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from blocksd.monitoring.watchdog import SILENT_SECONDS, Vitals, faults_of

WELL = Vitals(
    is_polling=False,
    is_watching=True,
    is_watch_loss_reported=False,
    is_in_sync=True,
    is_catching_up=False,
    is_unreachable_reported=False,
    silent_seconds=1.0,
    is_reading=True,
    is_server_running=True,
    is_server_loss_reported=False,
)
LATE = SILENT_SECONDS + 1.0


@pytest.mark.parametrize(
    "known",
    [
        {},
        {"is_watching": False, "is_polling": True},
        {"is_watching": False, "is_watch_loss_reported": True},
        {"is_in_sync": False, "is_catching_up": True},
        {"is_in_sync": False, "is_unreachable_reported": True, "silent_seconds": 86_400.0},
        {"is_in_sync": False, "is_catching_up": True, "is_unreachable_reported": True},
        {"silent_seconds": SILENT_SECONDS},
        {"is_server_running": False, "is_server_loss_reported": True},
    ],
)
def test_what_is_well_or_was_said_is_fed(known: dict[str, Any]) -> None:
    """Polling, a folder that cannot be watched, a Redis that is away: starting again would not mend any of it."""
    assert faults_of(replace(WELL, **known)) == []


@pytest.mark.parametrize(
    ("ailing", "words"),
    [
        ({"is_watching": False}, "the folder is not watched"),
        ({"is_in_sync": False}, "the mirror is not kept in sync"),
        ({"silent_seconds": LATE}, "Redis has not answered for 15 s"),
        ({"is_in_sync": False, "is_catching_up": True, "silent_seconds": LATE}, "Redis has not answered for 15 s"),
        ({"is_reading": False}, "the inboxes are not read"),
        ({"is_server_running": False}, "the embedded server does not run"),
    ],
)
def test_what_is_dead_in_silence_is_not(ailing: dict[str, Any], words: str) -> None:
    """Each part of the daemon that does nothing, without anyone having been told, is a reason."""
    assert faults_of(replace(WELL, **ailing)) == [words]


def test_all_reasons_are_named() -> None:
    """Not only the first."""
    assert len(faults_of(replace(WELL, is_watching=False, is_in_sync=False, is_reading=False))) == 3
