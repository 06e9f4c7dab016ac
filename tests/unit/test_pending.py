from __future__ import annotations

from dataclasses import replace

import pytest

from blocksd.errors import JournalUnusable
from blocksd.journal import Journal
from blocksd.outcomes import Outcomes
from blocksd.pending import Pending, Prepared
from journaled import THEN, fill_up, make_room, of_requests, prepared, put
from rig import revision


@pytest.fixture
def before(journal: Journal) -> Journal:
    """A journal with two blocks."""
    put(journal, revision(1, value="one"), revision(2, "gone", value="x"))
    return journal


def state(journal: Journal) -> tuple[object, ...]:
    heads = sorted((head.label, head.version, head.path, head.agents) for head in journal.heads())
    outcome = Outcomes(journal.database).of("ann", "r-1")
    return journal.seq, journal.since(0, 99), heads, outcome, Pending(journal).prepared()


def again(journal: Journal) -> Journal:
    """The journal as the next process opens it, after kill -9."""
    journal.database.close()
    return Journal(journal.path, boot_id="boot")


@pytest.mark.parametrize("is_durable", [True, False])
@pytest.mark.parametrize("crashed", [False, True])
def test_prepared_comes_back_as_it_was(before: Journal, *, crashed: bool, is_durable: bool) -> None:
    """Every field of it, to whoever opens the journal after a crash; nobody else sees any of it."""
    old = state(before)
    Pending(before).prepare(prepared(), is_durable=is_durable)
    found = again(before) if crashed else before
    assert Pending(found).prepared() == prepared()
    assert state(found)[:-1] == old[:-1]
    found.database.close()


def test_nothing_is_prepared_in_a_new_journal(journal: Journal) -> None:
    """There is nothing to finish or to take back."""
    assert Pending(journal).prepared() is None
    Pending(journal).give_up()
    assert Pending(journal).prepared() is None


@pytest.mark.parametrize("crashed", [False, True])
def test_prepared_is_finished(before: Journal, *, crashed: bool) -> None:
    """Its revisions are the newest, their files known, their outcomes there; nothing is prepared any more."""
    Pending(before).prepare(prepared())
    found = again(before) if crashed else before
    Pending(found).finish(Pending(found).prepared() or prepared())
    found = again(found)
    assert found.seq == 6
    assert found.since(2, 99) == of_requests()
    assert Pending(found).prepared() is None
    assert {head.label: (head.version, head.path) for head in found.heads()} == {
        "notes": (3, "notes.md"),
        "new": (3, "new.md"),
        "gone": (2, None),
    }
    outcomes = Outcomes(found.database)
    assert [outcomes.of(actor, "r-1") for actor in ("ann", "operator", "bob")] == ['{"ok": true}', "{}", None]
    found.database.close()


@pytest.mark.parametrize("crashed", [False, True])
def test_prepared_is_given_up(before: Journal, *, crashed: bool) -> None:
    """Then it is as if it had never been, and the same can be prepared again."""
    old = state(before)
    Pending(before).prepare(prepared())
    found = again(before) if crashed else before
    Pending(found).give_up()
    assert state(found) == old
    Pending(found).prepare(prepared())
    Pending(found).finish(prepared())
    assert found.since(2, 99) == of_requests()
    found.database.close()


def test_stop_keeps_what_is_prepared(before: Journal) -> None:
    """Also when the journal is closed in order in the middle of it: its lists of agents are not taken for unused."""
    Pending(before).prepare(prepared())
    before.close()
    found = Journal(before.path, boot_id="boot")
    assert Pending(found).prepared() == prepared()
    found.database.close()


def test_full_disk_prepares_and_finishes_nothing(before: Journal) -> None:
    """Each is written whole or not at all, and can be tried again when there is room."""
    old = state(before)
    big = replace(prepared(), outcomes={("ann", f"r-{n}"): "x" * 5000 for n in range(50)})
    fill_up(before)
    with pytest.raises(JournalUnusable, match="full"):
        Pending(before).prepare(big)
    assert state(before) == old
    make_room(before)
    Pending(before).prepare(big)
    fill_up(before)
    huge = [revision(seq, f"b{seq}", value="x" * 4000, agents=(f"a{seq}",)) for seq in range(3, 60)]
    with pytest.raises(JournalUnusable, match="full"):
        Pending(before).finish(replace(big, revisions=huge))
    assert before.seq == 2
    assert Pending(before).prepared() is not None
    make_room(before)
    Pending(before).finish(big)
    assert before.since(2, 99) == of_requests()
    assert Outcomes(before.database).of("ann", "r-49") == "x" * 5000


def test_block_that_came_and_went_in_one_go_is_remembered(journal: Journal) -> None:
    """Created and renamed, or deleted, by one batch: no file ever said it, but its versions are used up."""
    made = [
        revision(1, "first", value="x"),
        replace(revision(2, "second", kind="renamed", version=2, value="x"), renamed_from="first"),
        revision(3, "third", value="x"),
        revision(4, "third", kind="deleted", version=2),
    ]
    whole = Prepared(made, {"second": "second.md"}, (), {}, THEN)
    Pending(journal).prepare(whole)
    Pending(journal).finish(whole)
    assert {head.label: (head.version, head.path) for head in journal.heads()} == {
        "first": (1, None),
        "second": (2, "second.md"),
        "third": (2, None),
    }
