"""What listeners receive: notices, and how long the stages of a round took."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blocksd.monitoring.events import RARE_SECONDS, Notices, ServiceListener, time_stages
from rig import Clock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blocksd.monitoring.events import Level


class Heard(ServiceListener):
    """A listener that remembers what is noted."""

    def __init__(self) -> None:
        self.notes: list[tuple[Level, str]] = []

    def on_notice(self, message: str, level: Level) -> None:
        self.notes.append((level, message))


def test_every_listener_is_told() -> None:
    """In their order, each time."""
    one, two = Heard(), Heard()
    notices = Notices([one, two])
    notices.post("first", "info")
    notices.post("first", "info")
    assert one.notes == two.notes == [("info", "first"), ("info", "first")]


def test_what_happens_often_is_said_seldom() -> None:
    """Each thing for itself: one that happens all the time keeps no other from being said."""
    heard, clock = Heard(), Clock()
    notices = Notices([heard], clock=clock)
    for what in ("storm", "flood", "storm"):
        notices.post_rarely(what, what)
    clock.advance(RARE_SECONDS - 1)
    notices.post_rarely("storm", "storm")
    assert heard.notes == [("warning", "storm"), ("warning", "flood")]
    clock.advance(1)
    notices.post_rarely("storm", "storm again")
    assert heard.notes[2:] == [("warning", "storm again")]


def stages_of(*effects: tuple[str, float], look: float = 0.0) -> list[tuple[str, float]]:
    """What is told of a round with these effects, each of which takes so many seconds."""
    clock = Clock()
    told: list[tuple[str, float]] = []

    def work() -> Iterator[str]:
        clock.advance(look)
        for effect, seconds in effects:
            yield effect
            clock.advance(seconds)

    time_stages(work(), lambda stage, seconds: told.append((stage, seconds)), clock=clock)
    return told


def test_each_part_ends_where_the_next_begins() -> None:
    """What comes before the first effect is looking."""
    told = stages_of(("journal", 2.0), ("project", 4.0), ("mirror", 8.0), look=1.0)
    assert told == [("look", 1.0), ("journal", 2.0), ("project", 4.0), ("mirror", 8.0)]


def test_look_that_finds_nothing_is_not_told() -> None:
    """Else the many rounds in which nothing happens would hide how long it takes when something does."""
    assert stages_of(("mirror", 8.0), look=1.0) == [("mirror", 8.0)]
