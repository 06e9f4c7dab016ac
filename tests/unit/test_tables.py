from __future__ import annotations

import sqlite3
from dataclasses import replace

import pytest

from blocksd.errors import JournalUnusable
from blocksd.history import JournalReader
from blocksd.journal import Journal
from blocksd.outcomes import Access, Outcomes
from blocksd.pending import Pending
from blocksd.tables import MIGRATIONS
from journaled import THEN, of_requests, prepared
from rig import AT, revision


@pytest.mark.parametrize("schema", range(1, len(MIGRATIONS)))
def test_older_journal_is_brought_up_to_date(path: str, schema: int) -> None:
    """With all that it holds, its epoch, and its schema named; what came since works on it."""
    old = sqlite3.connect(path, isolation_level=None)
    for migration in MIGRATIONS[:schema]:
        for statement in migration.split(";"):
            old.execute(statement)
    old.execute(f"PRAGMA user_version={schema}")
    old.executemany("INSERT INTO meta VALUES (?, ?)", [("epoch", "e" * 32), ("boot_id", "boot"), ("clean", 1)])
    old.execute("INSERT INTO agent_lists VALUES (1, x'00', 'ann,bob')")
    old.execute(
        "INSERT INTO revisions (seq, label, version, kind, value, facts, entries, agents, fields, attached, detached, "
        "digest, author, at, created_at) VALUES (1, 'notes', 1, 'created', 'one', ?, 1, 1, '', '', '', 'd', 'file', ?, ?)",
        (revision(1, value="one").block.facts, THEN, THEN),  # type: ignore[union-attr]  # it has one
    )
    old.execute("INSERT INTO heads VALUES ('notes', 1, 1, 1, 1, 'notes.md', 1, 2, 3, 4)")
    outcome = "done" if "CREATE TABLE requests" in "".join(MIGRATIONS[:schema]) else None
    if outcome is not None:
        old.execute("INSERT INTO requests VALUES ('ann', 'r-0', ?, ?)", (outcome, THEN))
    old.close()
    journal = Journal(path, boot_id="boot")
    assert (journal.opened.how, journal.epoch, journal.seq) == ("ok", "e" * 32, 1)
    (found,) = journal.history("notes")
    assert found.block is not None
    assert (found.block.value, found.block.agents) == ("one", ("ann", "bob"))
    assert found.agents == {"ann", "bob"}
    assert (found.renamed_from, found.position, found.reverts, found.stale_base) == (None, None, (), None)
    outcomes = Outcomes(journal.database)
    assert (outcomes.open_files(), outcomes.of("ann", "r-0"), outcomes.of("ann", "r-1")) == ([], outcome, None)
    assert Pending(journal).prepared() is None
    (head,) = journal.heads()
    assert (head.path, head.signature) == ("notes.md", (1, 2, 3, 4))
    whole = replace(prepared(), revisions=[replace(one, seq=one.seq - 1) for one in of_requests()])
    Pending(journal).prepare(whole)
    Pending(journal).finish(whole)
    assert journal.seq == 5
    journal.close()
    reader = JournalReader(path)
    assert reader.seq == 5
    reader.close()


def test_journal_of_an_older_schema_is_brought_up_to_date(path: str) -> None:
    """What it holds stays, and what is new is there."""
    db = sqlite3.connect(path)
    for statement in MIGRATIONS[0].split(";"):
        db.execute(statement)
    db.execute("PRAGMA user_version=1")
    db.execute("INSERT INTO meta VALUES ('epoch', 'old'), ('boot_id', 'boot'), ('clean', 1)")
    db.commit()
    db.close()
    with pytest.raises(JournalUnusable, match="of schema 1"):
        JournalReader(path)
    opened = Journal(path, boot_id="boot")
    assert (opened.epoch, opened.opened.how) == ("old", "ok")
    Outcomes(opened.database).settle([Access("ann", "manuals/a.txt", AT)], {("ann", "r-1"): "done"}, AT)
    opened.close()
    JournalReader(path).close()
