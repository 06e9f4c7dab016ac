"""How long the parts of a round take."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blocksd.monitoring.timings import timed
from rig import Clock

if TYPE_CHECKING:
    from collections.abc import Iterator


def stages_of(*effects: tuple[str, float], look: float = 0.0) -> list[tuple[str, float]]:
    """What is told of a round with these effects, each of which takes so many seconds."""
    clock = Clock()
    told: list[tuple[str, float]] = []

    def work() -> Iterator[str]:
        clock.advance(look)
        for effect, seconds in effects:
            yield effect
            clock.advance(seconds)

    timed(work(), lambda stage, seconds: told.append((stage, seconds)), clock=clock)
    return told


def test_each_part_ends_where_the_next_begins() -> None:
    """What comes before the first effect is looking."""
    told = stages_of(("journal", 2.0), ("project", 4.0), ("mirror", 8.0), look=1.0)
    assert told == [("look", 1.0), ("journal", 2.0), ("project", 4.0), ("mirror", 8.0)]


def test_look_that_finds_nothing_is_not_told() -> None:
    """Else the many rounds in which nothing happens would hide how long it takes when something does."""
    assert stages_of(("mirror", 8.0), look=1.0) == [("mirror", 8.0)]
