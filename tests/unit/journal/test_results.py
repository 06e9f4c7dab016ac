from __future__ import annotations

from typing import Any

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
    with journal.database.writing:
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


# --- ids that were never used ---


@pytest.fixture
def asked(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The looks for an outcome in the journal."""
    looks: list[tuple[str, ...]] = []
    real = journal.database.first

    def first(question: str, *parameters: str) -> Any:
        looks.append(parameters)
        return real(question, *parameters)

    monkeypatch.setattr(journal.database, "first", first)
    return looks


def test_journal_is_not_searched_for_an_id_that_was_never_used(journal: Journal, asked: list[tuple[str, ...]]) -> None:
    ask(journal, 3)
    outcomes = Results(journal.database)
    assert [outcomes.outcome_of("ann", f"r-{number}") for number in range(5)] == ["done"] * 3 + [None] * 2
    assert outcomes.outcome_of("bob", "r-1") is None
    assert asked == [("ann", f"r-{number}") for number in range(3)]


def test_outcome_is_found_however_it_came_into_the_journal(journal: Journal) -> None:
    """By way of the request's intent, say, which recovery has finished: it was asked for before."""
    outcomes = Results(journal.database)
    assert outcomes.outcome_of("ann", "r-0") is None
    assert outcomes.outcome_of("ann", "r-0") is None
    ask(journal, 1)
    assert outcomes.outcome_of("ann", "r-0") == "done"


@pytest.mark.parametrize("room", [0, 1, 4, 5, 6, 12])
def test_every_outcome_is_found_however_many_ids_there_are(
    journal: Journal, asked: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """Beyond those that are in memory, the journal is searched."""
    monkeypatch.setattr("blocksd.journal.results._IDS", room)
    ask(journal, 5)
    ask(journal, 1, "bob")
    outcomes = Results(journal.database)
    for number in range(9):
        for actor, count in (("ann", 5), ("bob", 1)):
            for _ in range(2):
                assert outcomes.outcome_of(actor, f"r-{number}") == ("done" if number < count else None)
    assert sum(len(ids) for ids in outcomes._ids.values() if ids is not None) + outcomes._room == room
    asked.clear()
    for _ in range(256):
        outcomes.forget_old(YESTERDAY)
    assert outcomes.outcome_of("ann", "r-1") == "done"
    assert (outcomes.outcome_of("ann", "new"), len(asked)) == (None, 1 + (room <= 5))
