"""The embedded server is started in a thread, and again when it has ended; what becomes of it is said in the daemon's."""

from __future__ import annotations

import errno
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.embedded.endpoint import Address
from blocksd.embedded.server import EmbeddedServer
from blocksd.embedded.supervisor import LONGEST_SECONDS, SLOW_SECONDS, ServerState, Supervisor
from blocksd.errors import Misconfigured, Unavailable
from blocksd.model.problem import SERVER, Problems
from blocksd.monitoring.events import Notices, ServiceListener
from rig import Clock
from support import DEADLINE, eventually

if TYPE_CHECKING:
    from pathlib import Path

    from blocksd.model.faults import Failed
    from blocksd.monitoring.events import Level


class Pretended:
    """An embedded server that starts when it can, and runs until a test ends it."""

    def __init__(self) -> None:
        self.starts = 0
        self.obstacle: Exception | None = Unavailable("the embedded server does not start: no space")
        self.is_there = False
        self.is_placed = True
        self.is_answering = True
        self.messages: list[str] = []
        self.calls: list[str] = []
        self.may_start = threading.Event()
        self.may_start.set()

    def is_running(self) -> bool:
        return self.is_there

    def start(self) -> None:
        self.starts += 1
        self.may_start.wait()
        if self.obstacle is not None:
            raise self.obstacle
        self.is_there = True

    def is_in_place(self) -> bool:
        return self.is_placed

    def answers(self, seconds: float) -> bool:  # the signature of what it pretends to be
        return self.is_answering

    def end_for_restart(self, why: str) -> None:
        self.calls.append(f"end: {why}")
        self.is_there, self.is_placed, self.is_answering = False, True, True

    def cancel_start(self) -> None:
        self.calls.append("cancel the start")
        self.may_start.set()

    def stop(self) -> None:
        self.calls.append("stop")
        self.is_there = False


class Supervised(ServiceListener):
    """A server that is started when a test says so, and what is said of it."""

    def __init__(self) -> None:
        self.server = Pretended()
        server: Any = self.server
        self.clock = Clock()
        self.problems = Problems(lambda: 0.0)
        self.notes: list[tuple[Level, str]] = []
        self.news: list[ServerState | Failed] = []
        self.supervisor = Supervisor(
            server, "/state", self.problems, Notices([self]), self.news.append, clock=self.clock
        )

    def on_notice(self, message: str, level: Level) -> None:
        self.notes.append((level, message))

    def report(self) -> None:
        """A tick, without the thread."""
        self.supervisor.start = lambda: None  # type: ignore[method-assign]  # a test is in its place
        self.supervisor.report()


@pytest.fixture
def supervised() -> Supervised:
    return Supervised()


def test_server_that_does_not_start_is_said_once(supervised: Supervised) -> None:
    """However often it is tried, and whatever the reason; then, once, that it runs."""
    server, problems = supervised.server, supervised.problems
    for _ in range(5):
        assert not supervised.supervisor.start_server()
        supervised.report()
    assert problems.changes == 1
    problem = problems[SERVER]
    assert problem.message == "the embedded server does not start: the embedded server does not start: no space"
    assert problem.hint == "see /state/redis/redis.log; it is retried"
    for obstacle in (
        Misconfigured("no server is installed any more"),
        OSError(28, "No space left on device", "/state"),
    ):
        server.obstacle = obstacle
        for _ in range(3):
            assert not supervised.supervisor.start_server()
            supervised.report()
    assert problems[SERVER].message == "the embedded server does not start: /state: No space left on device"
    assert problems.changes == 3
    assert supervised.notes == []
    server.obstacle = None
    for _ in range(2):
        assert supervised.supervisor.start_server()
        for _ in range(3):
            supervised.report()
    assert dict(problems) == {}
    assert supervised.notes == [("warning", "the embedded server had ended and was restarted")]
    server.obstacle = Unavailable("no space")
    supervised.supervisor.start_server()
    supervised.report()
    assert problems[SERVER].message == "the embedded server has ended, and does not start: no space"


def test_fault_of_ours_is_a_problem(supervised: Supervised) -> None:
    """The thread goes on, and the traceback is in the log."""
    supervised.server.obstacle = ZeroDivisionError("a fault")
    assert not supervised.supervisor.start_server()
    supervised.report()
    assert supervised.problems[SERVER].code == "internal_error"
    failures = [news for news in supervised.news if not isinstance(news, ServerState)]
    assert [failed.during for failed in failures] == ["starting the embedded server"] * len(failures)
    assert failures[0].error.__traceback__ is not None


def test_fault_while_it_is_watched(supervised: Supervised) -> None:
    """The thread goes on: the server is looked for again, and started if it has ended."""
    server = supervised.server
    server.obstacle = None
    looks = iter([KeyError("a fault of ours")])

    def is_in_place() -> bool:
        for fault in looks:
            raise fault
        return True

    server.is_in_place = is_in_place  # type: ignore[method-assign]  # a fault is in its place
    supervised.supervisor.pause = lambda *_: 0.0  # type: ignore[method-assign]  # without a pause
    Supervisor.start(supervised.supervisor)
    eventually(lambda: server.starts == 2, "it is looked for again")
    assert supervised.supervisor.is_alive
    assert [news.during for news in supervised.news if not isinstance(news, ServerState)] == [
        "watching the embedded server"
    ]
    supervised.supervisor.stop()


def test_system_that_refuses_while_it_is_watched(supervised: Supervised) -> None:
    """That is no fault of ours: the path and the reason are said once, the server is not ended, and it is tried again."""
    server, supervisor = supervised.server, supervised.supervisor
    server.obstacle = None
    refusals = iter([OSError(24, "Too many open files", "/state/redis")] * 3)

    def is_in_place() -> bool:
        for refusal in refusals:
            raise refusal
        return True

    server.is_in_place = is_in_place  # type: ignore[method-assign]  # a refusal is in its place
    said: list[tuple[str, str]] = []

    def pause(lived_seconds: float) -> float:  # noqa: ARG001  # named as the method names it
        supervised.report()
        said.append((supervised.problems[SERVER].message, supervised.problems[SERVER].hint))
        return 0.0

    supervisor.pause = pause  # type: ignore[method-assign]  # what is said while it waits
    Supervisor.start(supervisor)
    eventually(lambda: server.starts == 4, "it is watched again")
    assert {message for message, _ in said} == {
        "the embedded server cannot be watched: /state/redis: Too many open files"
    }
    assert all("retried" in hint for _, hint in said)
    assert server.calls == []
    assert [news for news in supervised.news if not isinstance(news, ServerState)] == []
    eventually(lambda: supervisor.is_serving, "it serves")
    supervised.report()
    assert SERVER not in supervised.problems
    assert supervised.notes == []
    supervisor.stop()


def test_server_whose_files_are_lost_is_started_again(supervised: Supervised) -> None:
    """But not in a directory that is another daemon's."""
    server, supervisor = supervised.server, supervised.supervisor
    server.obstacle = None
    supervisor.pause = lambda *_: 0.0  # type: ignore[method-assign]  # without a pause
    Supervisor.start(supervisor)
    eventually(lambda: supervisor.is_serving, "it serves")
    server.is_placed = False
    eventually(lambda: server.starts == 2, "it is started again")
    (said,) = server.calls
    assert "in /state/redis were removed while it ran" in said
    supervisor.is_blocked = True
    server.is_there = False
    eventually(lambda: supervisor.state.phase == "failed", "it is not started")
    assert "another daemon owns" in supervisor.state.detail
    assert server.starts == 2
    supervisor.stop()


def test_silent_server_is_a_problem_and_then_started_again(
    supervised: Supervised, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing waits for it meanwhile. One that answers again in time is left alone."""
    monkeypatch.setattr("blocksd.embedded.supervisor._WATCH_SECONDS", 0.001)
    server, supervisor, clock = supervised.server, supervised.supervisor, supervised.clock
    server.obstacle = None
    supervisor.pause = lambda *_: 0.0  # type: ignore[method-assign]  # without a pause

    def answers(seconds: float) -> bool:  # time passes only while it is looked at
        clock.advance(seconds)
        return server.is_answering

    server.answers = answers  # type: ignore[method-assign]  # a slow one is in its place
    watching = threading.Thread(target=supervisor._run, daemon=True)
    watching.start()
    eventually(lambda: supervisor.is_serving, "it serves")
    supervisor.hung_probes = 10**9
    server.is_answering = False

    def is_said() -> bool:
        clock.advance(1.0)
        return supervisor.state.phase == "silent"

    eventually(is_said, "it is said")
    supervised.report()
    assert supervised.problems[SERVER].message.startswith("the embedded server does not answer")
    assert not supervised.problems[SERVER].warning
    server.is_answering = True

    def is_over() -> bool:
        clock.advance(1.0)
        return supervisor.is_serving

    eventually(is_over, "it answers again")
    supervised.report()
    assert (dict(supervised.problems), server.starts, supervised.notes) == ({}, 1, [])
    supervisor.hung_probes = 10
    server.is_answering = False

    def is_started() -> bool:
        clock.advance(1.0)
        return server.starts == 2 and supervisor.is_serving

    eventually(is_started, "it is started again")
    (said,) = server.calls
    assert "did not answer for 10 seconds" in said
    supervisor.stop()
    watching.join(DEADLINE)


def test_start_that_takes_long_is_said(supervised: Supervised) -> None:
    """Once as a problem, and how far it has come every ten seconds; it is over when the server serves."""
    supervisor, clock, problems = supervised.supervisor, supervised.clock, supervised.problems
    supervised.report()
    assert SERVER not in problems
    clock.advance(SLOW_SECONDS + 0.1)
    for second in range(25):
        supervisor.on_progress(f"it loads its data: {second} %")
        supervised.report()
        clock.advance(1.0)
    assert problems.changes == 1
    assert problems[SERVER].warning
    assert [message.partition(": ")[2] for _, message in supervised.notes] == [
        f"it loads its data: {percent} %" for percent in (0, 10, 20)
    ]
    supervised.server.obstacle = None
    supervisor.start_server()
    supervised.report()
    assert dict(problems) == {}


def test_data_set_aside_are_said(supervised: Supervised) -> None:
    """Where they are, once."""
    supervised.server.messages = ["they are kept in /x"]
    supervised.report()
    supervised.report()
    assert supervised.notes == [("warning", "they are kept in /x")]


def test_server_that_keeps_ending_is_started_ever_later(supervised: Supervised) -> None:
    """The machine has other things to do; one that has run for long is started at once, and the next soon."""
    pause = supervised.supervisor.pause
    assert [pause(0.0) for _ in range(9)] == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    assert [pause(LONGEST_SECONDS + 1), pause(0.0), pause(0.0)] == [0.0, 1.0, 2.0]


def test_nobody_waits_for_a_start(supervised: Supervised) -> None:
    """The thread does; told to stop it gives up, and the server is ended last."""
    server, supervisor = supervised.server, supervised.supervisor
    server.may_start.clear()
    supervisor.start()
    eventually(lambda: server.starts)
    supervisor.report()
    assert supervisor.is_alive
    assert not supervisor.is_serving
    supervisor.begin_stop()
    assert server.calls[0] == "cancel the start"
    supervisor.stop()
    assert not supervisor.is_alive
    assert server.calls[-1] == "stop"


def test_server_is_started_again_by_the_thread(supervised: Supervised, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is seen to have ended; what has become of it is passed on."""
    monkeypatch.setattr("blocksd.embedded.supervisor._WATCH_SECONDS", 0.001)
    monkeypatch.setattr(supervised.supervisor, "pause", lambda _: 0.0)
    server = supervised.server
    server.obstacle = None
    supervised.supervisor.start()
    eventually(lambda: supervised.supervisor.is_serving)
    server.is_there = False
    eventually(lambda: server.starts == 2 and supervised.supervisor.is_serving)
    supervised.supervisor.stop()
    assert [getattr(news, "phase", "?") for news in supervised.news] == [
        "starting",
        "serving",
        "starting",
        "serving",
    ]
    assert not server.is_there


def test_files_that_cannot_be_looked_at_are_not_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state directory without rights for a moment is no fault, and the server goes on."""
    server = EmbeddedServer(str(tmp_path))
    server.address = Address(0, 1, str(tmp_path / "socket"), "secret")
    server._identity = (1, 2)

    def stat(path: str) -> Any:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", stat)
        assert server.is_in_place()
    assert not server.is_in_place()
