from __future__ import annotations

import os
import sqlite3
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from blocksd.core.recovery import recover
from blocksd.errors import JournalUnusable, VersionDamaged
from blocksd.files.file_edit import Staged
from blocksd.files.folder import packed, packed_or_none
from blocksd.files.staging import digest
from blocksd.files.writer import Writer
from blocksd.journal.history import JournalReader
from blocksd.journal.intents import Intents
from blocksd.journal.journal import Journal
from blocksd.journal.results import Access, Results
from blocksd.journal.row import check, digest_of_list, stored_row
from blocksd.journal.schema import MIGRATIONS
from blocksd.model.block import block_id
from journaled import THEN, of_requests, prepared
from rig import AT, revision

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("schema", range(1, len(MIGRATIONS)))
def test_older_journal_is_brought_up_to_date(path: str, schema: int) -> None:
    """With all that it holds, its epoch, and its schema named; what came since works on it."""
    old = sqlite3.connect(path, isolation_level=None)
    old.create_function("packed", 4, packed_or_none)
    for migration in MIGRATIONS[:schema]:
        for statement in migration.split(";"):
            old.execute(statement)
    old.execute(f"PRAGMA user_version={schema}")
    old.executemany("INSERT INTO meta VALUES (?, ?)", [("epoch", "e" * 32), ("boot_id", "boot"), ("clean", 1)])
    old.execute(
        "INSERT INTO agent_lists (id, digest, agents) VALUES (1, ?, 'ann,bob')", (digest_of_list(None, "ann,bob"),)
    )
    made = revision(1, value="one")
    assert made.block is not None
    old.execute(
        "INSERT INTO revisions (seq, label, version, kind, value, facts, entries, agents, fields, attached, detached, "
        "digest, author, at, created_at) VALUES (1, 'notes', 1, 'created', 'one', ?, 1, 1, '', '', '', ?, 'file', ?, ?)",
        (made.block.facts, made.digest, THEN, THEN),
    )
    if schema > 6:  # rows have checksums: those of before there were origins
        row = (1, "notes", 1, "created", False, 1, 1, "", "", "", made.digest, "file", THEN, THEN, *[None] * 5)
        old.execute("UPDATE revisions SET checksum = ?", (zlib.crc32(repr(row).encode()),))
    old.execute(
        "INSERT INTO heads (label, seq, version, entries, agents, path) VALUES ('notes', 1, 1, 1, 1, 'notes.md')"
    )
    if "signature BLOB" in "".join(MIGRATIONS[:schema]):
        old.execute("UPDATE heads SET signature = ?", (packed(1, 2, 3, 4),))
    else:
        old.execute("UPDATE heads SET mtime_ns = 1, ctime_ns = 2, size = 3, inode = 4")
    outcome = "done" if "CREATE TABLE requests" in "".join(MIGRATIONS[:schema]) else None
    if outcome is not None:
        more = (
            ", seq" if "seq INTEGER NOT NULL,\n        PRIMARY KEY (actor, id)" in "".join(MIGRATIONS[:schema]) else ""
        )
        old.execute(
            f"INSERT INTO requests (actor, id, outcome, at{more}) VALUES ('ann', 'r-0', ?, ?{more and ', 0'})",  # constants
            (outcome, THEN),
        )
    old.close()
    journal = Journal(path, boot_id="boot")
    assert (journal.opened.how, journal.epoch, journal.seq) == ("ok", "e" * 32, 1)
    (found,) = journal.history("notes")
    assert found.block is not None
    assert (found.block.value, found.block.agents) == ("one", ("ann", "bob"))
    assert found.agents == {"ann", "bob"}
    assert (found.renamed_from, found.position, found.reverts, found.stale_base) == (None, None, (), None)
    assert (found.origin, found.id, journal.origins()) == (None, block_id("notes"), {})
    outcomes = Results(journal.database)
    assert (outcomes.open_files(), outcomes.outcome_of("ann", "r-0"), outcomes.outcome_of("ann", "r-1")) == (
        [],
        outcome,
        None,
    )
    assert Intents(journal).prepared() is None
    (head,) = journal.heads()
    # To find the form of its file, which earlier schemas do not have.
    assert (head.path, head.signature, found.form) == ("notes.md", None, None)
    whole = replace(prepared(), revisions=[replace(one, seq=one.seq - 1) for one in of_requests()])
    Intents(journal).prepare(whole)
    Intents(journal).finish(whole)
    assert journal.seq == 5
    journal.close()
    reader = JournalReader(path)
    assert reader.seq == 5
    reader.close()


PENDING = (
    "INSERT INTO meta VALUES ('epoch', 'e'), ('boot_id', 'boot'), ('clean', 0)",
    "INSERT INTO agent_lists VALUES (1, :list, 'ann')",
    """INSERT INTO pending_revisions
        (seq, label, version, kind, value, facts, entries, agents, fields, attached, detached, digest, author, at,
        created_at, request_id, path)
        VALUES (1, 'notes', 1, 'created', 'one', :facts, 1, 1, '', 'ann', '', :of_block, 'ann', :at, :at, 'r-1', 'notes.md')""",
    "INSERT INTO pending_files VALUES ('.blocksd-1', 'notes.md', NULL, :digest)",
    """INSERT INTO pending_requests VALUES ('ann', 'r-1', '{"id": "r-1", "ok": true, "block": {"value": "one"}}', :at)""",
    "INSERT INTO pending_folders VALUES ('agents/bob')",
)
"""What a crash has left in a journal of schema 5."""


@pytest.mark.parametrize("is_in", [True, False])
def test_what_is_pending_in_an_older_journal_is_carried_over(path: str, tmp_path: Path, *, is_in: bool) -> None:
    """It is prepared as before, with no inodes, and finished or given up by what the folder says."""
    old = sqlite3.connect(path, isolation_level=None)
    for migration in MIGRATIONS[:5]:
        for statement in migration.split(";"):
            old.execute(statement)
    old.execute("PRAGMA user_version=5")
    for statement in PENDING:
        made = revision(1, value="one")
        assert made.block is not None
        values = {"facts": made.block.facts, "of_block": made.digest, "list": digest_of_list(None, "ann")}
        old.execute(statement, {**values, "at": THEN, "digest": digest(b"one")})
    old.close()
    journal = Journal(path, boot_id="boot")
    assert (journal.seq, list(journal.heads()), journal.newest()) == (0, [], None)
    pending, outcomes = Intents(journal), Results(journal.database)
    prepared = pending.prepared()
    assert prepared is not None
    assert prepared.staged == [Staged("notes.md", ".blocksd-1", None, digest(b"one"))]
    assert (prepared.paths, prepared.folders_gone, prepared.at) == ({"notes": "notes.md"}, ("agents/bob",), THEN)
    assert prepared.is_same_boot
    root = tmp_path / "blocks.d"
    (root / "agents/bob").mkdir(parents=True)
    (root / ("notes.md" if is_in else ".blocksd-1")).write_bytes(b"one")
    assert recover(pending, Writer(str(root)))
    assert pending.prepared() is None
    assert sorted(os.listdir(root)) == ["agents", *(["notes.md"] if is_in else [])]
    if is_in:
        (head,) = journal.heads()
        assert (journal.seq, head.path, head.agents) == (1, "notes.md", frozenset({"ann"}))
        assert outcomes.outcome_of("ann", "r-1") == '{"id": "r-1", "ok": true, "block": {"value": "one"}}'
    else:
        assert (journal.seq, list(journal.heads()), outcomes.outcome_of("ann", "r-1")) == (0, [], None)
        assert journal.database.execute("SELECT count(*) FROM revisions").fetchone() == (0,)
    assert (root / "agents/bob").exists() == (not is_in)
    assert pending.folders_gone() == []
    journal.close()


def test_checksum_of_a_row_is_the_one_it_always_had() -> None:
    """Columns that came later are in it only where they hold something; then damage to them shows."""
    plain = revision(1, value="one")
    row = stored_row(plain, None, None)
    assert row[-1] == zlib.crc32(repr((1, "notes", 1, "created", False, *row[6:20])).encode())
    renamed = stored_row(replace(plain, origin="old"), None, None)
    assert renamed[-1] == zlib.crc32(repr((1, "notes", 1, "created", False, *row[6:20], "old")).encode())
    signed = stored_row(replace(plain, author="operator", by="Zoë"), None, None)
    for sound in (row, renamed, signed):
        check(sound)
        for place in (-3, -2):
            with pytest.raises(VersionDamaged):
                check((*sound[:place], "other", *sound[place + 1 :]))
    with pytest.raises(VersionDamaged):
        check((*signed[:-2], None, signed[-1]))


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
    Results(opened.database).write([Access("ann", "manuals/a.txt", AT)], {("ann", "r-1"): "done"}, AT)
    opened.close()
    JournalReader(path).close()
