"""Each kind of work has one time."""

from __future__ import annotations

from blocksd.state.schedule import NEVER, Schedule


def test_earliest_time_is_next() -> None:
    """Of all kinds of work, or but for some, or of some only; never, if there is none."""
    schedule = Schedule()
    assert schedule.next() == NEVER
    schedule["sweep"], schedule["mirror"], schedule["scrub"] = 30.0, 20.0, 10.0
    assert schedule.next() == 10.0
    assert schedule.next(but=("scrub", "retention")) == 20.0
    assert schedule.next(only=("retry", "sweep")) == 30.0
    assert schedule.next(only=("retry",)) == NEVER


def test_work_is_hastened_and_never_put_off() -> None:
    """What is due earlier stays so."""
    schedule = Schedule()
    schedule.hasten("files", 5.0)
    schedule.hasten("files", 9.0)
    assert schedule["files"] == 5.0
    schedule.hasten("files", 0.0)
    assert schedule["files"] == 0.0
