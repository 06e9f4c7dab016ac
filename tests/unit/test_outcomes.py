from __future__ import annotations

import pytest

from blocksd.errors import JournalUnusable
from blocksd.journal import Journal
from blocksd.outcomes import Access, Outcomes
from journaled import chain, put
from rig import AT


def test_accesses_and_outcomes_are_kept_together(journal: Journal) -> None:
    """Opened, renewed, closed; each request by its actor. All of it is there after a crash."""
    later = AT.replace("09:", "10:")
    outcomes = Outcomes(journal.database)
    outcomes.settle(
        [Access("ann", "m/a", AT), Access("bob", "m/a", AT), Access("ann", "m/b", AT)],
        {("ann", "r-1"): "one", ("bob", "r-1"): "two"},
        AT,
    )
    outcomes.settle([Access("ann", "m/a", later), Access("ann", "m/b", None)], {("ann", "r-2"): "three"}, later)
    journal.database.close()
    again = Journal(journal.path, boot_id="boot")
    outcomes = Outcomes(again.database)
    assert sorted(outcomes.open_files()) == [Access("ann", "m/a", later), Access("bob", "m/a", AT)]
    found = [outcomes.of(*key) for key in (("ann", "r-1"), ("bob", "r-1"), ("ann", "r-2"), ("bob", "r-2"))]
    assert found == ["one", "two", "three", None]
    outcomes.forget(later)
    assert (outcomes.of("ann", "r-1"), outcomes.of("ann", "r-2")) == (None, "three")
    again.close()


def test_requests_are_settled_all_or_nothing(journal: Journal) -> None:
    """One outcome is there already: neither the other nor what they did is written."""
    outcomes = Outcomes(journal.database)
    outcomes.settle([], {("ann", "r-1"): "one"}, AT)
    with pytest.raises(JournalUnusable):
        outcomes.settle([Access("ann", "m/a", AT)], {("ann", "r-2"): "two", ("ann", "r-1"): "again"}, AT)
    assert outcomes.open_files() == []
    assert outcomes.of("ann", "r-2") is None
    put(journal, *chain(1))


def test_outcomes_take_little_more_space_than_their_text(journal: Journal) -> None:
    """A reply has a whole block in it, and each is kept for a day."""
    outcomes = Outcomes(journal.database)
    for number in range(300):
        outcomes.settle([], {("ann", f"r-{number}"): "x" * 1500}, AT)
    ((pages,), (size,)) = (journal.database.execute(f"PRAGMA page_{what}").fetchone() for what in ("count", "size"))
    assert pages * size < 2 * 300 * 1500
