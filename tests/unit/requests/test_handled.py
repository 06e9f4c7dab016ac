from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from blocksd.requests.inbox import Handled
from blocksd.requests.request import Entry

if TYPE_CHECKING:
    from blocksd.journal.journal import Journal

NOW_MS = 1_800_000_000_000


def entry(number: int, actor: str = "ann", *, part: int = 0) -> Entry:
    return Entry(actor, f"{NOW_MS + number}-{part}", "{}")


def spent(journal: Journal) -> Handled:
    return Handled(journal.database, wall=lambda: NOW_MS / 1000)


@pytest.fixture
def marks(journal: Journal) -> Handled:
    return spent(journal)


def test_all_up_to_the_newest_are_spent_once_that_is_written(marks: Handled, journal: Journal) -> None:
    """Of each actor by itself, in this run and in the next."""
    marks.note([entry(1), entry(3), entry(2), entry(9, "bob")])
    assert not marks.has(entry(1))
    marks.write({"ann", "bob"}, [])
    for one in (marks, spent(journal)):
        assert [number for number in range(1, 6) if one.has(entry(number))] == [1, 2, 3]
        assert one.has(entry(9, "bob"))
        assert not one.has(entry(3, part=1))
        assert not one.has(entry(1, "cid"))


def test_entry_that_waits_is_not_spent(marks: Handled) -> None:
    """Though others have overtaken it; when it is done, all before it are."""
    marks.note([entry(3)])
    marks.write({"ann"}, [entry(2)])
    assert [number for number in range(1, 6) if marks.has(entry(number))] == [1]
    marks.note([entry(2)])
    marks.write({"ann"}, [])
    assert [number for number in range(1, 6) if marks.has(entry(number))] == [1, 2]


def test_second_of_the_entries_that_wait_is_not_spent_with_the_first(marks: Handled) -> None:
    """Nor what came after it and was dealt with before."""
    marks.note([entry(4)])
    marks.note([entry(1)])
    assert not marks.write({"ann"}, [entry(2), entry(3)])
    assert marks.write({"ann"}, [entry(2), entry(3)])
    assert [number for number in range(1, 6) if marks.has(entry(number))] == [1]


def test_entry_is_not_spent_while_it_is_read_again(marks: Handled) -> None:
    """It waited when all that was read was forgotten, or its reply was lost."""
    marks.note([entry(3)])
    marks.end_before([entry(2)])
    marks.write({"ann"}, [])
    assert [number for number in range(1, 6) if marks.has(entry(number))] == [1]
    marks.note([entry(5, part=1)])
    marks.end_before([entry(5, part=1)])
    marks.write({"ann"}, [])
    assert marks.has(entry(5))
    assert not marks.has(entry(5, part=1))


def test_made_up_ids_lock_no_inbox(marks: Handled) -> None:
    """One of the far future, the highest there is, and what is no id."""
    highest = Entry("ann", f"{2**64 - 1}-{2**64 - 1}", "{}")
    marks.note([entry(10**9), highest, Entry("ann", "*", "{}")])
    marks.write({"ann"}, [])
    assert not marks.has(entry(1))
    assert not marks.has(highest)


def test_marks_of_agents_that_are_gone_are_forgotten(marks: Handled, journal: Journal) -> None:
    """And so they stay as few as those that are known."""
    marks.note([entry(1), entry(1, "bob")])
    marks.write({"ann", "bob"}, [])
    marks.write({"bob"}, [])
    for one in (marks, spent(journal)):
        assert (one.has(entry(1)), one.has(entry(1, "bob"))) == (False, True)
