"""The tables of a journal, from each schema to the next."""

from __future__ import annotations

import sqlite3

from blocksd.files.folder import packed_or_none

MIGRATIONS = (
    """
    CREATE TABLE meta (key TEXT PRIMARY KEY, value ANY) STRICT, WITHOUT ROWID;
    -- Lists of agents, each stored once however many revisions have it.
    CREATE TABLE agent_lists (id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, agents TEXT NOT NULL) STRICT;
    CREATE TABLE revisions (
        seq INTEGER PRIMARY KEY,
        label TEXT NOT NULL,
        version INTEGER NOT NULL,
        kind TEXT NOT NULL,
        value ANY,              -- text, or zlib-compressed UTF-8 once it is old, null when deleted
        facts TEXT,             -- the other fields but agents, as JSON, null when deleted
        entries INTEGER,        -- agent_lists: `agents` as written
        agents INTEGER,         -- agent_lists: the ids attached
        fields TEXT NOT NULL,   -- these three: words joined with commas
        attached TEXT NOT NULL,
        detached TEXT NOT NULL,
        digest TEXT,
        author TEXT NOT NULL,
        at TEXT NOT NULL,
        created_at TEXT NOT NULL,
        request_id TEXT
    ) STRICT;
    CREATE UNIQUE INDEX revisions_of_block ON revisions (label, version);
    -- The newest revision of each label, and the file that says it. No path: the block is deleted.
    CREATE TABLE heads (
        label TEXT PRIMARY KEY,
        seq INTEGER NOT NULL,
        version INTEGER NOT NULL,
        entries INTEGER,
        agents INTEGER,
        path TEXT,
        mtime_ns INTEGER,
        ctime_ns INTEGER,
        size INTEGER,
        inode INTEGER
    ) STRICT, WITHOUT ROWID;
    """,
    """
    -- Files of sources, `<source>/<path>`, that agents have opened and not closed, whether they are there or not.
    CREATE TABLE open_files (
        agent TEXT NOT NULL,
        file TEXT NOT NULL,
        last_accessed_at TEXT NOT NULL,
        PRIMARY KEY (agent, file)
    ) STRICT, WITHOUT ROWID;
    -- What came of each request, for whoever asks again.
    CREATE TABLE requests (
        actor TEXT NOT NULL,
        id TEXT NOT NULL,
        outcome TEXT NOT NULL,
        at TEXT NOT NULL,
        PRIMARY KEY (actor, id)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX requests_by_age ON requests (at);
    """,
    """
    ALTER TABLE revisions ADD COLUMN renamed_from TEXT;
    ALTER TABLE revisions ADD COLUMN position INTEGER;   -- the version that undo or redo went to
    ALTER TABLE revisions ADD COLUMN reverts TEXT;       -- versions, joined with commas
    ALTER TABLE revisions ADD COLUMN stale_base INTEGER; -- the version that a save was made of which is to be merged
    -- What is about to be written: revisions as above, the files they are in, and what is replied when they are.
    CREATE TABLE pending_revisions (
        seq INTEGER PRIMARY KEY, label TEXT, version INTEGER, kind TEXT, value ANY, facts TEXT, entries INTEGER,
        agents INTEGER, fields TEXT, attached TEXT, detached TEXT, digest TEXT, author TEXT, at TEXT, created_at TEXT,
        request_id TEXT, renamed_from TEXT, position INTEGER, reverts TEXT, stale_base INTEGER, path TEXT
    ) STRICT;
    CREATE TABLE pending_files (aside TEXT PRIMARY KEY, path TEXT NOT NULL, base TEXT, data TEXT) STRICT;
    CREATE TABLE pending_requests (actor TEXT NOT NULL, id TEXT NOT NULL, outcome TEXT NOT NULL, at TEXT NOT NULL) STRICT;
    """,
    """
    -- Directories of agents that are deleted, until they are seen to be gone.
    CREATE TABLE pending_folders (path TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
    """,
    """
    -- The few revisions by which a block came to a label from another.
    CREATE INDEX revisions_renamed_to ON revisions (label, seq) WHERE renamed_from IS NOT NULL;
    CREATE INDEX revisions_renamed_from ON revisions (renamed_from, seq) WHERE renamed_from IS NOT NULL;
    -- As before, but with a rowid: without one, what is longer than about a kilobyte takes a page of its own.
    ALTER TABLE requests RENAME TO requests_before;
    CREATE TABLE requests (actor TEXT NOT NULL, id TEXT NOT NULL, outcome TEXT NOT NULL, at TEXT NOT NULL) STRICT;
    INSERT INTO requests SELECT * FROM requests_before ORDER BY at;
    DROP TABLE requests_before;
    CREATE UNIQUE INDEX requests_by_id ON requests (actor, id);
    CREATE INDEX requests_by_age ON requests (at);
    """,
    """
    -- Write-ahead: revisions from `seq` on are not in force yet. `plan`, as JSON: files, outcomes and what else belongs
    -- to them. There is one row, or none.
    CREATE TABLE prepared (seq INTEGER PRIMARY KEY, plan TEXT NOT NULL) STRICT;
    -- What is prepared before this schema is kept prepared: with no inodes, since it did not know any.
    INSERT INTO prepared
        SELECT
            coalesce((SELECT min(seq) FROM pending_revisions), (SELECT coalesce(max(seq), 0) + 1 FROM revisions)),
            json_object(
                'boot', (SELECT value FROM meta WHERE key = 'boot_id'),
                'at', (SELECT coalesce(max(at), '') FROM (SELECT at FROM pending_revisions UNION SELECT at FROM pending_requests)),
                'paths', (SELECT json_group_object(label, path) FROM pending_revisions WHERE path IS NOT NULL),
                'staged', (SELECT json_group_array(json_array(path, aside, base, data, NULL, NULL)) FROM pending_files),
                'outcomes', (SELECT json_group_array(json_array(actor, id, outcome)) FROM pending_requests),
                'folders', (SELECT json_group_array(path) FROM pending_folders)
            )
        WHERE EXISTS (SELECT * FROM pending_revisions) OR EXISTS (SELECT * FROM pending_files)
            OR EXISTS (SELECT * FROM pending_requests);
    INSERT INTO revisions (
            seq, label, version, kind, value, facts, entries, agents, fields, attached, detached, digest, author, at,
            created_at, request_id, renamed_from, position, reverts, stale_base
        ) SELECT
            seq, label, version, kind, value, facts, entries, agents, fields, attached, detached, digest, author, at,
            created_at, request_id, renamed_from, position, reverts, stale_base
        FROM pending_revisions;
    DELETE FROM pending_folders WHERE EXISTS (SELECT * FROM prepared);
    DROP TABLE pending_revisions;
    DROP TABLE pending_files;
    DROP TABLE pending_requests;
    -- The revisions in force, for all who read.
    CREATE VIEW in_force AS
        SELECT * FROM revisions WHERE seq < coalesce((SELECT seq FROM prepared), 9223372036854775807);
    -- Outcomes no longer hold blocks: without a rowid and other indexes, each takes one page of the log, not three.
    -- `seq` is the newest when it was done.
    ALTER TABLE requests RENAME TO requests_before;
    CREATE TABLE requests (
        actor TEXT NOT NULL,
        id TEXT NOT NULL,
        outcome TEXT NOT NULL,  -- the reply as JSON, where `block` is true for the block of the revision `seq`
        at TEXT NOT NULL,
        seq INTEGER NOT NULL,
        PRIMARY KEY (actor, id)
    ) STRICT, WITHOUT ROWID;
    INSERT INTO requests SELECT actor, id, outcome, at, 0 FROM requests_before;
    DROP TABLE requests_before;
    """,
    """
    -- Of all of a row but its value and facts, which the digest is of. It is null in rows up to meta's `unchecked`.
    ALTER TABLE revisions ADD COLUMN checksum INTEGER;
    INSERT INTO meta SELECT 'unchecked', coalesce(max(seq), 0) FROM revisions;
    -- A list may be another one with some agents more and some fewer: `agents` has then both, a semicolon between.
    ALTER TABLE agent_lists ADD COLUMN base INTEGER;
    -- The newest entry of each inbox up to which all were dealt with, for when their outcomes are forgotten.
    CREATE TABLE spent (actor TEXT PRIMARY KEY, ms INTEGER NOT NULL, number INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    -- Revisions that are not as they were written, as far as they can be read: JSON, taken out of the log.
    CREATE TABLE damaged (seq INTEGER PRIMARY KEY, label TEXT, version INTEGER, at TEXT NOT NULL, row TEXT NOT NULL) STRICT;
    """,
    """
    -- Other files are problems now than when these were read: each is read once more.
    UPDATE heads SET mtime_ns = NULL;
    -- What the id of a block is made of, if it is not its label: a renamed block keeps its id. What was renamed before has
    -- the id that was published: that of its label.
    ALTER TABLE revisions ADD COLUMN origin TEXT;
    ALTER TABLE heads ADD COLUMN origin TEXT;
    """,
    """
    -- The `by` of the request, which says who the operator was.
    ALTER TABLE revisions ADD COLUMN operator TEXT;
    """,
    """
    -- The few stale saves, so that a start does not look at every newest revision for those that are still to be merged.
    CREATE INDEX revisions_stale ON revisions (label, seq) WHERE stale_base IS NOT NULL;
    """,
    """
    -- The known agents, each with when it became known, in milliseconds since 1970.
    CREATE TABLE agents (agent TEXT PRIMARY KEY, created_ms INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    """,
    """
    -- A signature is one value: a start reads very many.
    ALTER TABLE heads RENAME TO heads_before;
    CREATE TABLE heads (
        label TEXT PRIMARY KEY,
        seq INTEGER NOT NULL,
        version INTEGER NOT NULL,
        entries INTEGER,
        agents INTEGER,
        path TEXT,
        signature BLOB,
        origin TEXT
    ) STRICT, WITHOUT ROWID;
    INSERT INTO heads
        SELECT label, seq, version, entries, agents, path, packed(mtime_ns, ctime_ns, size, inode), origin
        FROM heads_before;
    DROP TABLE heads_before;
    """,
    """
    -- The forms of files that are not the usual one, as `row.stored_form` has them, null while one is unknown. Each file is
    -- read once more for it.
    CREATE TABLE forms (label TEXT PRIMARY KEY, form ANY) STRICT, WITHOUT ROWID;
    INSERT INTO forms SELECT label, NULL FROM heads WHERE path IS NOT NULL;
    UPDATE heads SET signature = NULL;
    """,
)
"""What makes a journal of each schema one of the next; the first makes one of nothing."""

SCHEMA = len(MIGRATIONS)
"""The schema of the journals that this blocksd writes."""

FINISHED = 2**63 - 1
"""The number of a row in `prepared` that says which files were displaced last: all revisions are in force beside it."""


def migrate(database: sqlite3.Connection, schema: int = 0) -> None:
    """Make a journal of the present schema of one of `schema`; 0: of an empty database."""
    database.create_function("packed", 4, packed_or_none, deterministic=True)
    for number, migration in enumerate(MIGRATIONS[schema:], start=schema + 1):
        for statement in migration.split(";"):
            database.execute(statement)
        database.execute(f"PRAGMA user_version={number}")


SQLITE_ERRORS = (sqlite3.Error, UnicodeError)
"""What Python's module raises: the second when damaged text is in a message of SQLite's."""
