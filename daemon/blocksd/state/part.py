"""What the parts of a daemon's core share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from blocksd.journal.journal import Journal
    from blocksd.model.faults import Faults
    from blocksd.model.problem import Problems
    from blocksd.state.schedule import Schedule
    from blocksd.state.state import State


@dataclass(frozen=True, slots=True)
class Shared:
    """All that the parts of a core share. `clock` is monotonic, in seconds; `wall` is the time of day."""

    journal: Journal
    state: State
    problems: Problems
    faults: Faults
    schedule: Schedule
    clock: Callable[[], float]
    wall: Callable[[], float]


class Part:
    """One part of a core: what it needs besides is in its constructor."""

    def __init__(self, shared: Shared) -> None:
        self._journal = shared.journal
        self._state = shared.state
        self._problems = shared.problems
        self._faults = shared.faults
        self._schedule = shared.schedule
        self._clock = shared.clock
        self._wall = shared.wall
