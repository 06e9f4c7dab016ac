"""Files wait to be looked at: each once, and only as long as there is a reason to."""

from __future__ import annotations

import pytest

from blocksd.state.read_queue import HALF_SECONDS, SETTLE_SECONDS, ReadQueue
from rig import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(clock: Clock) -> ReadQueue:
    return ReadQueue(clock, lambda: 5000.0)


def test_file_is_due_when_its_writer_is_done(queue: ReadQueue, clock: Clock) -> None:
    """At once if that was seen; else a little later, which more hints do not put off."""
    queue.hint("one.md", closed=True)
    assert (queue.due, queue.backlog) == (0.0, 1)
    assert queue.take("one.md")
    queue.hint("one.md", closed=False)
    due = queue.due
    assert due == clock() + SETTLE_SECONDS
    clock.advance(SETTLE_SECONDS / 2)
    queue.hint("one.md", closed=False)
    assert queue.due == due
    queue.advance(due)
    assert "one.md" in queue
    assert not queue.take("one.md")
    assert queue.is_empty
    assert queue.due == float("inf")


def test_close_ends_the_wait(queue: ReadQueue, clock: Clock) -> None:
    """A file is looked at once for both, as one that was closed; what is known of it is not forgotten for less."""
    queue.hint("one.md", closed=False)
    queue.hint("one.md", closed=True)
    queue.add("one.md")
    queue.advance(clock() + 60)
    assert queue.first(10) == ["one.md"]
    assert queue.take("one.md")
    assert queue.is_empty


def test_longest_due_come_first(queue: ReadQueue) -> None:
    """They are due until they are taken; seeing them again does not change their order."""
    for path in ("b.md", "c.md", "a.md", "b.md"):
        queue.add(path)
    assert queue.first(2) == queue.first(2) == ["b.md", "c.md"]
    queue.take("b.md")
    assert queue.first(2) == ["c.md", "a.md"]


def test_patience_with_a_writer_ends(queue: ReadQueue, clock: Clock) -> None:
    """The waits grow to a second; after eight of them it was in vain, until the writer is done or begins anew."""
    waits = []
    for number in range(12):
        assert queue.wait_for_writer("one.md") == (number >= 8)
        waits.append(queue.due - clock())
        assert queue.is_stuck == (number >= 8)
        queue.advance(clock() + 2)
        queue.take("one.md")
    assert waits == pytest.approx([0.04, 0.08, 0.16, 0.32, 0.64, *[1.0] * 7])
    queue.stop_waiting("one.md")
    assert not queue.wait_for_writer("one.md")
    for _ in range(8):
        queue.wait_for_writer("one.md")
    queue.hint("one.md", closed=True)
    assert not queue.wait_for_writer("one.md")


def test_not_stuck_while_anything_else_waits(queue: ReadQueue) -> None:
    """One file that is written all the time does not speak for another."""
    for _ in range(9):
        queue.wait_for_writer("one.md")
    assert queue.is_stuck
    queue.postpone("two.md", 1.0)
    assert not queue.is_stuck


def test_clear_leaves_what_waits(queue: ReadQueue) -> None:
    """Only what is due is dropped."""
    queue.add("one.md")
    queue.postpone("two.md", 1.0)
    queue.clear()
    assert queue.backlog == 0
    assert not queue.is_empty


@pytest.mark.parametrize("age", [-86_400.0, -0.1, 0.0, 0.4])
def test_half_of_a_save_is_doubted_for_a_moment(queue: ReadQueue, clock: Clock, age: float) -> None:
    """Until it is a second old, whatever the time of day says later; of a time to come, a second from now."""
    saved_at = 5000.0 - age
    assert queue.is_fresh("one.md", saved_at)
    queue.doubt("one.md", saved_at)
    due = clock() + HALF_SECONDS - max(0.0, age)
    assert queue.due == pytest.approx(due)
    clock.advance(0.3)
    assert queue.is_fresh("one.md", saved_at)
    queue.doubt("one.md", saved_at)
    assert queue.due == pytest.approx(due)
    clock.now = due + 0.001
    assert not queue.is_fresh("one.md", saved_at)


def test_old_save_is_believed(queue: ReadQueue, clock: Clock) -> None:
    """And so is any, if files like it have been saved again and again; what was whole in between is doubted anew."""
    assert not queue.is_fresh("one.md", 5000.0 - HALF_SECONDS)
    saves = 0
    while queue.is_fresh("one.md", 5000.0 + saves):
        queue.doubt("one.md", 5000.0 + saves)
        clock.advance(0.5)
        saves += 1
    assert saves == 20
    queue.believe("one.md")
    assert queue.is_fresh("one.md", 5000.0 + saves)
