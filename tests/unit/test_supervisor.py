"""The embedded server is started again when it has ended."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.errors import Misconfigured, Unavailable
from blocksd.listener import Notes, ServiceListener
from blocksd.problem import SERVER
from blocksd.problems import Problems
from blocksd.supervisor import LONGEST_SECONDS, Supervisor
from rig import Clock

if TYPE_CHECKING:
    from blocksd.errors import BlocksdError
    from blocksd.listener import Level


class Deceased:
    """An embedded server that has ended, and starts again when it can."""

    def __init__(self) -> None:
        self.starts = 0
        self.obstacle: BlocksdError | None = Unavailable("the embedded server does not start: no space")
        self.is_there = False

    def is_running(self) -> bool:
        return self.is_there

    def start(self) -> None:
        self.starts += 1
        if self.obstacle is not None:
            raise self.obstacle
        self.is_there = True


class Supervised(ServiceListener):
    """A server that is looked after when a test says so, and what is said of it."""

    def __init__(self) -> None:
        self.server = Deceased()
        server: Any = self.server
        self.clock = Clock()
        self.problems = Problems(lambda: 0.0)
        self.notes: list[tuple[Level, str]] = []
        self.supervisor = Supervisor(server, "/state", self.problems, Notes([self]), clock=self.clock)

    def on_note(self, message: str, level: Level) -> None:
        self.notes.append((level, message))

    def keep(self, seconds: float) -> None:
        """A tick, so much later than the last."""
        self.clock.advance(seconds)
        self.supervisor.keep()


@pytest.fixture
def supervised() -> Supervised:
    return Supervised()


def test_server_that_does_not_start_is_said_once(supervised: Supervised) -> None:
    """However often it is tried, and whatever the reason; then, once, that it runs."""
    server, problems = supervised.server, supervised.problems
    for _ in range(5):
        supervised.keep(LONGEST_SECONDS)
    assert (server.starts, problems.changes) == (5, 1)
    problem = problems[SERVER]
    assert problem.message == (
        "the embedded server has ended, and does not start: the embedded server does not start: no space"
    )
    assert problem.hint == "see /state/redis/redis.log; it is tried again"
    server.obstacle = Misconfigured("no server is installed any more")
    for _ in range(3):
        supervised.keep(LONGEST_SECONDS)
    assert (server.starts, problems.changes) == (8, 2)
    assert supervised.notes == []
    server.obstacle = None
    for _ in range(3):
        supervised.keep(LONGEST_SECONDS)
    assert (server.starts, problems.changes, dict(problems)) == (9, 3, {})
    assert supervised.notes == [("warning", "the embedded server had ended; it was started again")]


def test_server_that_keeps_ending_is_started_ever_later(supervised: Supervised) -> None:
    """The daemon has other things to do than to wait for it."""
    server, clock = supervised.server, supervised.clock
    times: list[float] = []
    while len(times) < 9:
        supervised.keep(1.0)
        if server.starts > len(times):
            times.append(clock())
    waits = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]


def test_server_that_has_run_for_long_is_started_at_once(supervised: Supervised) -> None:
    """That it ended often was another time."""
    server = supervised.server
    for _ in range(9):
        supervised.keep(LONGEST_SECONDS)
    server.obstacle = None
    supervised.keep(LONGEST_SECONDS)
    supervised.keep(2 * LONGEST_SECONDS + 1)
    server.is_there = False
    server.obstacle = Unavailable("no space")
    before = server.starts
    supervised.keep(1.0)
    supervised.keep(1.0)
    assert server.starts == before + 2
