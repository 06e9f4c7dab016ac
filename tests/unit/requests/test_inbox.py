"""In which order requests are dealt with."""

from __future__ import annotations

from blocksd.requests.inbox import Inbox
from blocksd.requests.request import MAX_BYTES, Entry


def numbered(actor: str, *numbers: int) -> list[Entry]:
    return [Entry(actor, f"{number}-0", "{}") for number in numbers]


def due(inbox: Inbox) -> float:
    """When there is something to take, as its schedule says."""
    return inbox._schedule["requests"]


def test_entries_know_since_when_they_are_here() -> None:
    """From when they were first added, until they are done."""
    now = 5.0
    inbox = Inbox(lambda: now)
    first, second = numbered("ann", 1, 2)
    inbox.add([first])
    now = 6.0
    inbox.add([first, second])
    assert (inbox._held[first], inbox._held[second], len(inbox)) == (5.0, 6.0, 2)
    inbox.take_next(1)
    assert len(inbox) == 2
    inbox.remove_done()
    assert len(inbox) == 1
    inbox.forget_all()
    assert len(inbox) == 0


def test_postponed_entries_come_first() -> None:
    """In the order they had, before what came later of the same actor; when there is one to take is told."""
    inbox = Inbox()
    assert due(inbox) == float("inf")
    inbox.add([*numbered("ann", 1, 2, 3), *numbered("bob", 1)])
    assert due(inbox) == 0.0
    taken = inbox.take_next(3)
    assert [(one.actor, one.id) for one in taken] == [("ann", "1-0"), ("bob", "1-0"), ("ann", "2-0")]
    inbox.postpone([taken[0], taken[2]], 5.0)
    assert due(inbox) == 5.0
    inbox.remove_done()
    inbox.add(numbered("ann", 1, 2, 4))
    assert [one.id for one in inbox.take_next(9)] == ["1-0", "2-0", "3-0", "4-0"]
    inbox.postpone([], 9.0)
    inbox.remove_done()
    inbox.add(numbered("bob", 1))
    assert due(inbox) == 0.0


def test_new_entry_does_not_wait_with_postponed_ones() -> None:
    """What comes in can be taken at once; what is there already, and is read again, is nothing new."""
    inbox = Inbox()
    inbox.add(numbered("ann", 1))
    inbox.postpone(inbox.take_next(1), 5.0)
    inbox.add(numbered("ann", 1))
    assert due(inbox) == 5.0
    inbox.add(numbered("bob", 1))
    assert due(inbox) == 0.0


def test_actors_take_turns() -> None:
    """Who sends a thousand requests does not keep the others waiting; those of one actor stay in order."""
    inbox = Inbox()
    inbox.add([*numbered("loud", *range(1000)), *numbered("ann", 1, 2), *numbered("bob", 1)])
    taken = [(one.actor, one.id) for one in inbox.take_next(7)]
    assert taken == [
        ("loud", "0-0"),
        ("ann", "1-0"),
        ("bob", "1-0"),
        ("loud", "1-0"),
        ("ann", "2-0"),
        ("loud", "2-0"),
        ("loud", "3-0"),
    ]
    inbox.add(numbered("bob", 2))
    assert [one.actor for one in inbox.take_next(3)] == ["loud", "bob", "loud"]


def test_entry_is_not_held_twice() -> None:
    """Not while it waits, nor while it is under way; when it is done it may come again."""
    inbox = Inbox()
    inbox.add(numbered("ann", 1))
    inbox.add(numbered("ann", 1))
    assert len(inbox.take_next(9)) == 1
    inbox.add(numbered("ann", 1))
    assert not inbox.is_waiting
    inbox.remove_done()
    inbox.add(numbered("ann", 1))
    assert inbox.is_waiting


def test_what_is_forgotten_is_read_again() -> None:
    """Whoever reads is told to begin from the start."""
    inbox = Inbox()
    inbox.add(numbered("ann", 1, 2))
    inbox.take_next(1)
    assert inbox.restarts == 0
    inbox.forget_all()
    assert (inbox.is_waiting, inbox.restarts) == (False, 1)
    inbox.add(numbered("ann", 1, 2))
    assert [one.id for one in inbox.take_next(9)] == ["1-0", "2-0"]


def test_inbox_is_bounded() -> None:
    """By number and by size; what is done makes room."""
    inbox = Inbox()
    inbox.add(numbered("ann", *range(2000)))
    assert inbox.is_full
    inbox.take_next(2000)
    assert inbox.is_full
    inbox.remove_done()
    assert not inbox.is_full
    inbox.add([Entry("ann", f"{number}-0", str(number) * MAX_BYTES) for number in range(8)])
    assert inbox.is_full
    inbox.take_next(1)
    inbox.remove_done()
    assert not inbox.is_full


def test_actor_with_much_is_crowded() -> None:
    """By number and by size; others are not, and what is done or forgotten makes room."""
    inbox = Inbox()
    inbox.add(numbered("loud", *range(127)))
    inbox.add(numbered("ann", 1, 2))
    assert inbox.crowded == frozenset()
    inbox.add(numbered("loud", 127))
    inbox.add([Entry("long", f"{number}-0", "x" * MAX_BYTES) for number in range(2)])
    assert inbox.crowded == {"loud", "long"}
    assert not inbox.is_full
    inbox.take_next(3)
    assert inbox.crowded == {"loud", "long"}, "what is under way is here"
    inbox.remove_done()
    assert inbox.crowded == frozenset()
    inbox.add(numbered("loud", *range(500)))
    assert inbox.crowded == {"loud"}
    inbox.forget_all()
    assert inbox.crowded == frozenset()


def test_turns_go_on_where_a_round_was_cut() -> None:
    """An actor whose one request comes after many of another waits for one of them, not for all."""
    inbox = Inbox()
    many = numbered("operator", 1, 2, 3, 4)
    inbox.add(many)
    inbox.take_next(64)
    (late,) = numbered("ann", 9)
    inbox.add([late])
    inbox.postpone(many[1:], 0.0, cut=many[1:])
    assert inbox.take_next(64) == [many[1], late, many[2], many[3]]
    inbox.postpone([late, *many[2:]], 0.0, cut=[late, *many[2:]])
    assert inbox.take_next(64) == [late, many[2], many[3]]
