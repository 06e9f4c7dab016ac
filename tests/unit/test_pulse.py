"""The watchdog is fed for as long as nothing ails."""

from __future__ import annotations

from dataclasses import replace

import pytest

from blocksd.health import Vitals
from blocksd.listener import Level, Notes, ServiceListener
from blocksd.pulse import Pulse

WELL = Vitals(
    is_polling=False,
    is_watching=True,
    is_blindness_said=False,
    is_level=True,
    is_levelling=False,
    is_absence_said=False,
    silent_seconds=0.0,
    is_reading=True,
    is_server_running=True,
    is_server_loss_said=False,
)
DEAF = replace(WELL, is_reading=False)
BLIND = replace(WELL, is_watching=False)


class Patient(ServiceListener):
    """A daemon's pulse, what systemd is sent, and what is noted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: list[str] = []
        self.notes: list[tuple[Level, str]] = []
        self.pulse = Pulse(Notes([self]))
        monkeypatch.setattr("blocksd.notify._send", self.sent.append)

    def on_note(self, message: str, level: Level) -> None:
        self.notes.append((level, message))

    def beat(self, *moments: Vitals, is_starting: bool = False) -> None:
        for vitals in moments:
            self.pulse.beat(vitals, is_starting=is_starting)


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
        ("error", "not well: nobody reads the inboxes; the watchdog is not fed"),
        ("info", "well again; the watchdog is fed"),
    ]
