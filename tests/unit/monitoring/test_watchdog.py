"""The watchdog is fed for as long as nothing ails."""

from __future__ import annotations

from dataclasses import replace

import pytest

from blocksd.monitoring.events import Level, Notices, ServiceListener
from blocksd.monitoring.watchdog import PING_SECONDS, ROUND_SECONDS, Vitals, Watchdog
from rig import Clock

WELL = Vitals(
    is_polling=False,
    is_watching=True,
    is_watch_loss_reported=False,
    is_in_sync=True,
    is_catching_up=False,
    is_unreachable_reported=False,
    silent_seconds=0.0,
    is_reading=True,
    is_server_running=True,
    is_server_loss_reported=False,
)
DEAF = replace(WELL, is_reading=False)
BLIND = replace(WELL, is_watching=False)


class Patient(ServiceListener):
    """A daemon's watchdog, what systemd is sent, and what is noted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: list[str] = []
        self.notes: list[tuple[Level, str]] = []
        self.clock = Clock()
        self.watchdog = Watchdog(Notices([self]), clock=self.clock)
        monkeypatch.setattr("blocksd.monitoring.sd_notify._send", lambda state, *_: self.sent.append(state))

    def on_notice(self, message: str, level: Level) -> None:
        self.notes.append((level, message))

    def beat(self, *moments: Vitals, is_starting: bool = False) -> None:
        for vitals in moments:
            self.watchdog.check(vitals, is_starting=is_starting)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> Patient:
    return Patient(monkeypatch)


def test_start_that_goes_on_may_take_longer(patient: Patient) -> None:
    """For as long as nothing ails."""
    patient.beat(WELL)
    assert patient.sent == ["WATCHDOG=1"]
    patient.beat(WELL, is_starting=True)
    assert patient.sent[1:] == ["WATCHDOG=1", "EXTEND_TIMEOUT_USEC=60000000"]
    patient.beat(DEAF, is_starting=True)
    assert len(patient.sent) == 3


def test_what_ails_for_a_moment_is_not_said(patient: Patient) -> None:
    """Though the watchdog is not fed meanwhile; one thing after the other lasts no longer than each."""
    patient.beat(DEAF, WELL, DEAF, BLIND, WELL)
    assert patient.sent == ["WATCHDOG=1"] * 2
    assert patient.notes == []


def test_what_lasts_is_said_once(patient: Patient) -> None:
    """And when it is over."""
    patient.beat(DEAF, DEAF, DEAF, WELL, WELL)
    assert patient.sent == ["WATCHDOG=1"] * 2
    assert patient.notes == [
        ("error", "unhealthy: the inboxes are not read; watchdog pings stopped"),
        ("info", "healthy again; watchdog pings resumed"),
    ]


def test_round_that_makes_progress_is_fed(patient: Patient) -> None:
    """Once a second at most, however many effects it has."""
    patient.beat(WELL)
    for _ in range(50):
        patient.watchdog.report_progress(is_starting=False)
    assert patient.sent == ["WATCHDOG=1"]
    for second in range(1, 4):
        patient.clock.advance(PING_SECONDS)
        for _ in range(50):
            patient.watchdog.report_progress(is_starting=False)
        assert patient.sent == ["WATCHDOG=1"] * (1 + second)
    patient.clock.advance(PING_SECONDS)
    patient.watchdog.report_progress(is_starting=True)
    assert patient.sent[-1] == "EXTEND_TIMEOUT_USEC=60000000"


def test_progress_is_no_cure(patient: Patient) -> None:
    """What ailed before the round goes on ailing; and a round without an end is a hang."""
    patient.beat(DEAF)
    patient.clock.advance(PING_SECONDS)
    patient.watchdog.report_progress(is_starting=False)
    assert patient.sent == []
    patient.beat(WELL)
    patient.clock.advance(ROUND_SECONDS)
    patient.watchdog.report_progress(is_starting=False)
    assert patient.sent == ["WATCHDOG=1"]


def test_loop_that_only_fails_is_not_fed(patient: Patient) -> None:
    """Though it goes round."""
    patient.beat(*[replace(WELL, failing=("do a round", "see to the embedded server"))] * 2)
    assert patient.sent == []
    words = "each attempt fails to do a round, to see to the embedded server"
    assert patient.notes == [("error", f"unhealthy: {words}; watchdog pings stopped")]
