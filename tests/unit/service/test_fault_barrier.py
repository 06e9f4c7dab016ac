"""A part of the loop that fails ends by it, and nothing else does; one that only fails is told of."""

from __future__ import annotations

import pytest

from blocksd.model.faults import Fault, Faults
from blocksd.model.problem import Problems
from blocksd.service.fault_barrier import LASTING_SECONDS, FaultBarrier
from rig import Clock


class Guarded:
    """A barrier, and what it tells."""

    def __init__(self) -> None:
        self.told: list[tuple[Fault, bool]] = []
        self.clock = Clock()
        self.barrier = FaultBarrier(Faults(Problems(lambda: 0.0), self._tell), clock=self.clock)

    def _tell(self, fault: Fault, is_new: bool) -> None:  # as it is called
        self.told.append((fault, is_new))

    def do(self, part: str, *, fails: bool) -> None:
        with self.barrier(part):
            if fails:
                raise KeyError(part)


@pytest.fixture
def guarded() -> Guarded:
    return Guarded()


def test_error_ends_a_part_and_is_told_once(guarded: Guarded) -> None:
    """With its traceback; each is counted."""
    for _ in range(3):
        guarded.do("read", fails=True)
    assert [(fault.during, is_new) for fault, is_new in guarded.told] == [("to read", True)] + [("to read", False)] * 2
    assert "in do" in guarded.told[0][0].text
    assert guarded.barrier.failures == 3


def test_part_that_only_fails_is_failing(guarded: Guarded) -> None:
    """After a while, until it succeeds once; what others do is no matter."""
    guarded.do("read", fails=True)
    guarded.do("write", fails=False)
    assert not guarded.barrier.failing
    guarded.clock.advance(LASTING_SECONDS)
    guarded.do("read", fails=True)
    assert guarded.barrier.failing == ("read",)
    guarded.do("read", fails=False)
    assert not guarded.barrier.failing
    guarded.do("read", fails=True)
    assert not guarded.barrier.failing


def test_what_is_meant_to_end_the_daemon_does(guarded: Guarded) -> None:
    """An interrupt, say."""
    with pytest.raises(KeyboardInterrupt), guarded.barrier("read"):
        raise KeyboardInterrupt


def test_listener_that_fails_ends_nothing(monkeypatch: pytest.MonkeyPatch, guarded: Guarded) -> None:
    """Though it is told of the failures, too."""

    def fail(*_: object) -> None:
        raise OSError("the log is full")

    monkeypatch.setattr(guarded.barrier._faults, "count_error", fail)
    guarded.do("read", fails=True)
    assert guarded.barrier.failures == 1
