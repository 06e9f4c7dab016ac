"""What is noted, and how seldom."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blocksd.monitoring.events import SELDOM_SECONDS, Notes, ServiceListener
from rig import Clock

if TYPE_CHECKING:
    from blocksd.monitoring.events import Level


class Heard(ServiceListener):
    """A listener that remembers what is noted."""

    def __init__(self) -> None:
        self.notes: list[tuple[Level, str]] = []

    def on_note(self, message: str, level: Level) -> None:
        self.notes.append((level, message))


def test_every_listener_is_told() -> None:
    """In their order, each time."""
    one, two = Heard(), Heard()
    notes = Notes([one, two])
    notes.say("first", "info")
    notes.say("first", "info")
    assert one.notes == two.notes == [("info", "first"), ("info", "first")]


def test_what_happens_often_is_said_seldom() -> None:
    """Each thing for itself: one that happens all the time keeps no other from being said."""
    heard, clock = Heard(), Clock()
    notes = Notes([heard], clock=clock)
    for what in ("storm", "flood", "storm"):
        notes.say_seldom(what, what)
    clock.advance(SELDOM_SECONDS - 1)
    notes.say_seldom("storm", "storm")
    assert heard.notes == [("warning", "storm"), ("warning", "flood")]
    clock.advance(1)
    notes.say_seldom("storm", "storm again")
    assert heard.notes[2:] == [("warning", "storm again")]
