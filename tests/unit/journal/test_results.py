from __future__ import annotations

import pytest

from blocksd.errors import JournalUnusable
from blocksd.journal.journal import Journal
from blocksd.journal.results import KEPT_OF_ACTOR, Access, Results
from journaled import chain, put
from rig import AT


def test_accesses_and_outcomes_are_kept_together(journal: Journal) -> None:
    """Opened, renewed, closed; each request by its actor. All of it is there after a crash."""
    later = AT.replace("09:", "10:")
    outcomes = Results(journal.database)
    outcomes.write(
        [Access("ann", "m/a", AT), Access("bob", "m/a", AT), Access("ann", "m/b", AT)],
        {("ann", "r-1"): "one", ("bob", "r-1"): "two"},
        AT,
    )
    outcomes.write([Access("ann", "m/a", later), Access("ann", "m/b", None)], {("ann", "r-2"): "three"}, later)
    journal.database.close()
    again = Journal(journal.path, boot_id="boot")
    outcomes = Results(again.database)
    assert sorted(outcomes.open_files()) == [Access("ann", "m/a", later), Access("bob", "m/a", AT)]
    found = [outcomes.outcome_of(*key) for key in (("ann", "r-1"), ("bob", "r-1"), ("ann", "r-2"), ("bob", "r-2"))]
    assert found == ["one", "two", "three", None]
    again.close()


def test_requests_are_settled_all_or_nothing(journal: Journal) -> None:
    """One outcome is there already: neither the other nor what they did is written."""
    outcomes = Results(journal.database)
    outcomes.write([], {("ann", "r-1"): "one"}, AT)
    with pytest.raises(JournalUnusable):
        outcomes.write([Access("ann", "m/a", AT)], {("ann", "r-2"): "two", ("ann", "r-1"): "again"}, AT)
    assert outcomes.open_files() == []
    assert outcomes.outcome_of("ann", "r-2") is None
    put(journal, *chain(1))


def ask(journal: Journal, count: int, actor: str = "ann", *, at: str = AT, start: int = 0) -> None:
    """Requests of one actor, one at each seq."""
    outcomes = {(actor, f"r-{number}"): "done" for number in range(start, start + count)}
    with journal.database.writing():
        journal.database.executemany(
            "INSERT INTO requests VALUES (?, ?, ?, ?, ?)",
            ((*key, outcome, at, start + number) for number, (key, outcome) in enumerate(outcomes.items())),
        )


def kept(journal: Journal, actor: str = "ann") -> int:
    return int(journal.database.execute("SELECT count(*) FROM requests WHERE actor = ?", (actor,)).fetchone()[0])


YESTERDAY, NOW = "2026-11-20T08:59:59.000Z", "2026-11-21T09:00:00.000Z"


def test_outcomes_of_a_day_are_kept(journal: Journal) -> None:
    """None that is younger is forgotten, however many there are."""
    ask(journal, 3 * KEPT_OF_ACTOR, at=NOW)
    Results(journal.database).forget_old(YESTERDAY)
    assert kept(journal) == 3 * KEPT_OF_ACTOR


def test_newest_outcomes_of_each_actor_are_kept(journal: Journal) -> None:
    """However old, and whatever others ask for: what came last in the log, not by the clock."""
    ask(journal, 5, "bob")
    ask(journal, KEPT_OF_ACTOR, at="2030-01-01T00:00:00.000Z")  # the clock was ahead
    ask(journal, KEPT_OF_ACTOR, start=KEPT_OF_ACTOR)
    Results(journal.database).forget_old("2040-01-01T00:00:00.000Z")
    outcomes = Results(journal.database)
    assert (kept(journal, "bob"), kept(journal)) == (5, KEPT_OF_ACTOR)
    assert outcomes.outcome_of("ann", f"r-{KEPT_OF_ACTOR - 1}") is None
    assert outcomes.outcome_of("ann", f"r-{KEPT_OF_ACTOR}") == "done"


def test_outcomes_are_forgotten_while_an_actor_asks_on(journal: Journal) -> None:
    """What it has asked for since the last look makes it due, not each look; what is many is looked at now and then."""
    outcomes = Results(journal.database)
    outcomes.forget_old(NOW)
    ask(journal, KEPT_OF_ACTOR + 10)
    outcomes.forget_old(NOW)
    assert kept(journal) == KEPT_OF_ACTOR + 10, "nobody has asked for them here"
    assert not any(outcomes.outcome_of("ann", f"new-{number}") for number in range(100))
    outcomes.forget_old(NOW)
    assert kept(journal) == KEPT_OF_ACTOR
    ask(journal, KEPT_OF_ACTOR, start=KEPT_OF_ACTOR + 10)
    assert not any(outcomes.outcome_of("ann", f"newer-{number}") for number in range(KEPT_OF_ACTOR))
    outcomes.forget_old(YESTERDAY)
    assert kept(journal) == 2 * KEPT_OF_ACTOR, "all are of this day"
    for _ in range(300):
        outcomes.forget_old(NOW)
    assert kept(journal) == KEPT_OF_ACTOR


def test_actors_that_came_and_went_are_not_counted_for_ever(journal: Journal) -> None:
    """Each of very many has asked for a few things."""
    outcomes = Results(journal.database)
    assert not any(outcomes.outcome_of(f"agent-{number}", "r") for number in range(20_000))
    assert outcomes.counted == 20_000
    outcomes.forget_old(NOW)
    assert outcomes.counted == 0


def test_full_disk_forgets_nothing(journal: Journal) -> None:
    """There is another time."""
    ask(journal, KEPT_OF_ACTOR + 1)
    journal.database.execute("PRAGMA query_only=1")
    Results(journal.database).forget_old(NOW)
    journal.database.execute("PRAGMA query_only=0")
    assert kept(journal) == KEPT_OF_ACTOR + 1
    Results(journal.database).forget_old(NOW)
    assert kept(journal) == KEPT_OF_ACTOR
