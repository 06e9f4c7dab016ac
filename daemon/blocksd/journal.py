"""The ordered, durable log of revisions: SQLite, in the state directory.

The folder is the truth; the journal is its memory: every version there ever was, the number each change has, and
what the folder looked like when it was last read, so that an unchanged folder is not read again.
"""

from __future__ import annotations

import json
import os
import pathlib
import sqlite3
import time
import uuid
import zlib
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from blocksd.attachment import NOBODY
from blocksd.block import Block
from blocksd.errors import JournalUnusable, NotFound
from blocksd.revision import Revision

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from blocksd.folder import Signature

_MIGRATIONS = (
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
)
SCHEMA = len(_MIGRATIONS)
"""The schema of the journals that this blocksd writes."""

_COLUMNS = (
    "seq, label, version, kind, value, facts, entries, agents, fields, attached, detached, digest, author, at, "
    "created_at, request_id, renamed_from, position, reverts, stale_base"
)
_MARKS = ", ".join("?" * len(_COLUMNS.split(",")))
_UNKNOWN = (None, None, None, None)
_ENDLESS = 2**62
_COMPRESS_CHARS = 512
_CHECKPOINT_CHARS = 4 * 1024 * 1024
_ROW_CHARS = 1000  # about what a revision takes besides its value
_REMEMBERED_LISTS = 1024


Agents = tuple[str, ...] | frozenset[str]


class Access(NamedTuple):
    """An agent opened a file, or opened it again, `at` this time; None: it closed it."""

    agent: str
    file: str
    at: str | None

    def as_json(self) -> dict[str, str | None]:
        """The access as it travels."""
        return {"agent": self.agent, "file": self.file, "last_accessed_at": self.at}


class Staged(NamedTuple):
    """A file whose new text lies beside it, under the name `aside`; all paths are below the folder.

    `base` and `data` are digests of what it says now and of what it is to say; None: there is no such file. Once the new
    text is put in, `aside` is what was there before.
    """

    path: str
    aside: str
    base: str | None
    data: str | None


@dataclass(frozen=True, slots=True)
class Prepared:
    """Revisions that are to be, as soon as their files say so, with what their requests are replied then.

    `paths` are the files of their blocks, by label; `folders_gone` the directories, below the folder, that are to go after
    their files.
    """

    revisions: Sequence[Revision]
    paths: Mapping[str, str]
    staged: Sequence[Staged]
    outcomes: Mapping[tuple[str, str], str]
    at: str
    folders_gone: Sequence[str] = ()


class Head(NamedTuple):
    """Where a label stands: its newest version, and the file it was read from (None: deleted)."""

    label: str
    version: int
    entries: tuple[str, ...]
    agents: frozenset[str]
    path: str | None
    signature: Signature | None


_new: Callable[[type[Head], tuple[object, ...]], Head] = tuple.__new__
"""How a named tuple is made without the Python in its constructor: a restart makes one for each block."""


@dataclass(frozen=True, slots=True)
class Opened:
    """How a journal was found: `new`, `ok`, `unclean` after a power loss (it has a new epoch), or `damaged`.

    `set_aside` is where a damaged journal was moved to; a new one has taken its place.
    """

    how: Literal["new", "ok", "unclean", "damaged"]
    set_aside: str | None = None


class JournalReader:
    """The log as any process may read it, while the daemon writes on."""

    def __init__(self, path: str) -> None:
        """Open an existing journal for reading.

        Raises:
            JournalUnusable: there is none, or it cannot be read.
        """
        self.path = path
        self._lists: dict[int, tuple[str, ...]] = {}
        self._sets: dict[int, frozenset[str]] = {}
        self._connect()

    def _connect(self) -> None:
        with self._translated():
            self._db = sqlite3.connect(f"{pathlib.Path(self.path).absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)
        try:
            with self._translated():
                (schema,) = self._db.execute("PRAGMA user_version").fetchone()
                if schema != SCHEMA:
                    raise JournalUnusable(f"the journal is of schema {schema}, not {SCHEMA}", path=self.path)
                self.seq = self._newest_seq()
                (self.epoch,) = self._db.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone()
        except JournalUnusable:
            self._db.close()
            raise

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise JournalUnusable(f"the journal cannot be read: {error}", path=self.path) from error

    def _newest_seq(self) -> int:
        return int(self._db.execute("SELECT coalesce(max(seq), 0) FROM revisions").fetchone()[0])

    def close(self) -> None:
        self._db.close()

    def heads(self) -> Iterator[Head]:
        """Where every label stands, deleted ones included."""
        with self._translated():
            self._lists.update(
                (number, _words(agents))
                for number, agents in self._db.execute(
                    "SELECT id, agents FROM agent_lists ORDER BY id LIMIT ?", (_REMEMBERED_LISTS,)
                )
            )
            rows = self._db.execute(
                "SELECT label, version, entries, agents, path, mtime_ns, ctime_ns, size, inode FROM heads"
            )
            lists, sets = self._lists.get, self._sets.get
            for label, version, entries, agents, path, mtime_ns, ctime_ns, size, inode in rows:
                signature = (mtime_ns, ctime_ns, size, inode) if mtime_ns is not None else None
                written, ids = lists(entries) or self._list(entries), sets(agents) or self._set(agents)
                yield _new(Head, (label, version, written, ids, path, signature))

    def count(self) -> int:
        """How many blocks are in force."""
        with self._translated():
            return int(self._db.execute("SELECT count(path) FROM heads").fetchone()[0])

    def head(self, label: str) -> Revision | None:
        """The newest revision of a label; None when it never had one."""
        with self._translated():
            row = self._db.execute(
                f"SELECT {_COLUMNS} FROM revisions WHERE label = ? ORDER BY version DESC LIMIT 1",  # noqa: S608  # a constant
                (label,),
            ).fetchone()
            return self._revision(row) if row else None

    def newest(self) -> Revision | None:
        """The newest revision of all; None when there never was one."""
        with self._translated():
            row = self._db.execute(f"SELECT {_COLUMNS} FROM revisions ORDER BY seq DESC LIMIT 1").fetchone()  # noqa: S608  # a constant
            return self._revision(row) if row else None

    def history(self, label: str, *, limit: int = -1) -> list[Revision]:
        """A block's revisions, newest first, deletions included, and those under the labels it had before."""
        found: list[Revision] = []
        before = _ENDLESS
        name: str | None = label
        with self._translated():
            while name is not None and (limit < 0 or len(found) < limit):
                rows = self._db.execute(
                    f"SELECT {_COLUMNS} FROM revisions WHERE label = ? AND seq < ? ORDER BY version DESC LIMIT ?",  # noqa: S608  # constants
                    (name, before, limit - len(found) if limit >= 0 else -1),
                )
                name = None
                for row in rows:
                    found.append(self._revision(row))
                    if found[-1].renamed_from is not None:
                        before, name = found[-1].seq, found[-1].renamed_from
                        break
        return found

    def version(self, label: str, version: int) -> Revision | None:
        """One version of a block, under whatever label it was; None when it is not kept, or never was."""
        before = _ENDLESS
        name: str | None = label
        with self._translated():
            while name is not None:
                row = self._db.execute(
                    f"SELECT {_COLUMNS} FROM revisions WHERE label = ? AND version = ? AND seq < ?",  # noqa: S608  # constants
                    (name, version, before),
                ).fetchone()
                if row is not None:
                    return self._revision(row)
                renamed = self._db.execute(
                    "SELECT seq, renamed_from FROM revisions WHERE label = ? AND seq < ? AND renamed_from IS NOT NULL "
                    "ORDER BY seq DESC LIMIT 1",
                    (name, before),
                ).fetchone()
                before, name = renamed if renamed is not None else (0, None)
        return None

    def positions(self, label: str) -> dict[int, int | None]:
        """The versions kept under a label, oldest first: which of them undo or redo made, and where each went."""
        with self._translated():
            rows = self._db.execute(
                "SELECT version, position FROM revisions WHERE label = ? ORDER BY version", (label,)
            )
            return dict(rows)

    def unmerged(self) -> list[str]:
        """The labels whose newest revision is a stale save that is still to be merged."""
        with self._translated():
            rows = self._db.execute(
                "SELECT label FROM heads JOIN revisions USING (label, seq) WHERE stale_base IS NOT NULL AND path IS NOT NULL"
            )
            return [label for (label,) in rows]

    def _revision(self, row: tuple[Any, ...]) -> Revision:
        return _revision_of(row, self._list(row[6]), self._set(row[7]))

    def _list(self, number: int | None) -> tuple[str, ...]:
        if number is None:
            return ()
        agents = self._lists.get(number)
        if agents is None:
            (text,) = self._db.execute("SELECT agents FROM agent_lists WHERE id = ?", (number,)).fetchone()
            if len(self._lists) >= _REMEMBERED_LISTS:
                self._lists.clear()
                self._sets.clear()
            agents = self._lists[number] = _words(text)
        return agents

    def _set(self, number: int | None) -> frozenset[str]:
        if number is None:
            return NOBODY
        agents = self._sets.get(number)
        if agents is None:
            agents = self._sets[number] = frozenset(self._list(number))
        return agents


class Journal(JournalReader):
    """The log of one folder's revisions, as the one daemon writes it, from one thread."""

    def __init__(self, path: str, *, boot_id: str = "") -> None:
        """Open the journal at `path`, or make one; `boot_id` identifies this boot of the machine.

        Raises:
            JournalUnusable: it is of a newer version of blocksd, or cannot be opened.
        """
        self._boot_id = boot_id
        self._list_ids: dict[Agents, int] = {}
        self._same_lists: dict[int, tuple[Agents, int]] = {}  # by the identity of the list
        self._new_list_ids: dict[Agents, int] = {}
        self._logged = _CHECKPOINT_CHARS  # about how much was written since the last checkpoint; at first unknown
        super().__init__(path)

    def _connect(self) -> None:
        try:
            self.opened = self._open()
        except sqlite3.OperationalError as error:  # locked, full, not permitted: the file itself may be sound
            raise JournalUnusable(f"the journal cannot be opened: {error}", path=self.path) from error
        except sqlite3.DatabaseError:
            self._set_aside()

    def _set_aside(self) -> None:
        """The file is no sound database: keep it for whoever can read it, and begin a new one."""
        aside = f"{self.path}.damaged-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}"
        self._db.close()
        for suffix in ("", "-wal", "-shm"):
            if os.path.exists(self.path + suffix):
                os.replace(self.path + suffix, aside + suffix)
        self._open()
        self.opened = Opened("damaged", aside)

    def _open(self) -> Opened:
        self._db = sqlite3.connect(self.path, isolation_level=None, timeout=5.0)
        os.chmod(self.path, 0o600)
        self._db.execute("PRAGMA journal_mode=WAL")
        # A revision read from a file needs no fsync: the file is the truth. Checkpoints are taken when there is time.
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute("PRAGMA wal_autocheckpoint=0")
        (schema,) = self._db.execute("PRAGMA user_version").fetchone()
        if schema > SCHEMA:
            self._db.close()
            raise JournalUnusable(
                f"the journal is of schema {schema}, newer than the {SCHEMA} this blocksd knows",
                path=self.path,
            )
        with self._transaction():
            for number, migration in enumerate(_MIGRATIONS[schema:], start=schema + 1):
                for statement in migration.split(";"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version={number}")
            meta = dict(self._db.execute("SELECT key, value FROM meta"))
            # After a power loss the last revisions may be missing, and their numbers would be given out again: in
            # another epoch they are other numbers.
            lost = bool(meta) and not meta["clean"] and meta["boot_id"] != self._boot_id
            self._folder = str(meta["folder"]) if "folder" in meta else None
            self.epoch = uuid.uuid4().hex if lost or not meta else str(meta["epoch"])
            self._db.executemany(
                "INSERT OR REPLACE INTO meta VALUES (?, ?)",
                [("epoch", self.epoch), ("boot_id", self._boot_id), ("clean", 0)],
            )
        self._db.execute("PRAGMA synchronous=NORMAL")
        self.seq = self._newest_seq()
        return Opened("new" if not meta else "unclean" if lost else "ok")

    @property
    def folder(self) -> str | None:
        """The folder whose revisions these are; None as long as nobody has said."""
        return self._folder

    @folder.setter
    def folder(self, path: str) -> None:
        with self._translated():
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('folder', ?)", (path,))
        self._folder = path

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # SQLite itself rolls back on some errors, a full disk among them
                self._db.execute("ROLLBACK")
            raise

    def append(self, revisions: Sequence[Revision], files: Mapping[str, tuple[str, Signature | None]]) -> None:
        """Write revisions, and which file says each of the labels in `files` (path, signature): all or nothing.

        Raises:
            JournalUnusable: nothing was written.
        """
        self._new_list_ids.clear()
        try:
            with self._transaction():
                for revision in revisions:
                    self._insert(revision, files.get(revision.label))
                written = {revision.label for revision in revisions}
                touched = [label for label in files if label not in written]
                if touched:
                    self._db.executemany(
                        "UPDATE heads SET path = ?, mtime_ns = ?, ctime_ns = ?, size = ?, inode = ? WHERE label = ?",
                        ((files[label][0], *(files[label][1] or _UNKNOWN), label) for label in touched),
                    )
        except sqlite3.Error as error:
            raise JournalUnusable(f"the journal cannot be written: {error}", path=self.path) from error
        self._remember_lists()
        if revisions:
            self.seq = revisions[-1].seq

    def _insert(self, revision: Revision, file: tuple[str, Signature | None] | None) -> None:
        block = revision.block
        entries = self._list_id(block.agents) if block is not None else None
        agents = self._list_id(revision.agents)
        self._db.execute(
            f"INSERT INTO revisions ({_COLUMNS}) VALUES ({_MARKS})",  # noqa: S608  # constants
            _row(revision, entries, agents),
        )
        self._logged += _chars_of(revision)
        if revision.renamed_from is not None:
            self._db.execute("UPDATE heads SET path = NULL WHERE label = ?", (revision.renamed_from,))
        head = (revision.label, revision.seq, revision.version, entries, agents)
        if block is None:
            path = None
        elif file is None:  # by other agents, for a file that was not touched, or with none in the end
            self._db.execute(
                "INSERT INTO heads (label, seq, version, entries, agents) VALUES (?, ?, ?, ?, ?) ON CONFLICT (label) DO "
                "UPDATE SET seq = excluded.seq, version = excluded.version, entries = excluded.entries, "
                "agents = excluded.agents",
                head,
            )
            return
        else:
            path = file[0]
        signature = (file[1] if file is not None else None) or _UNKNOWN
        self._db.execute(
            "INSERT OR REPLACE INTO heads VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (*head, path, *signature)
        )

    def since(self, seq: int, limit: int) -> list[Revision]:
        """The revisions after `seq`, at most `limit`.

        Raises:
            NotFound: some of them are no longer kept.
        """
        with self._translated():
            rows = self._db.execute(
                f"SELECT {_COLUMNS} FROM revisions WHERE seq > ? ORDER BY seq LIMIT ?",  # noqa: S608  # a constant
                (seq, limit),
            ).fetchall()
            if [row[0] for row in rows] != list(range(seq + 1, seq + 1 + min(limit, self.seq - seq))):
                raise NotFound(f"not all revisions after {seq} are kept", seq=seq)
            return [self._revision(row) for row in rows]

    def reaches_back(self, seq: int) -> bool:
        """Whether every revision after `seq` is kept."""
        with self._translated():
            (kept,) = self._db.execute("SELECT count(*) FROM revisions WHERE seq > ?", (seq,)).fetchone()
        return bool(kept == self.seq - seq)

    def prune(self, labels: Iterable[str], *, versions: int, before: str | None = None) -> int:
        """Forget what is beyond the newest `versions` of each label, or older than `before`; heads stay. How many.

        On a full disk nothing is forgotten: there is another time.
        """
        forgotten = 0
        with suppress(sqlite3.OperationalError), self._transaction():
            for label in labels:
                forgotten += self._db.execute(
                    "DELETE FROM revisions WHERE label = ?1 AND version < (SELECT version FROM heads WHERE label = ?1) "
                    "AND (version <= (SELECT version FROM heads WHERE label = ?1) - ?2 OR at < ?3)",
                    (label, versions, before or ""),
                ).rowcount
                old = self._db.execute(
                    "SELECT seq, value FROM revisions WHERE label = ?1 "
                    "AND version < (SELECT version FROM heads WHERE label = ?1) "
                    "AND typeof(value) = 'text' AND length(value) >= ?2",
                    (label, _COMPRESS_CHARS),
                ).fetchall()
                self._db.executemany(
                    "UPDATE revisions SET value = ? WHERE seq = ?",
                    ((zlib.compress(value.encode("utf-8")), seq) for seq, value in old),
                )
            return forgotten
        return 0

    def open_files(self) -> list[Access]:
        """The files that agents have opened and not closed."""
        with self._translated():
            return list(map(Access._make, self._db.execute("SELECT agent, file, last_accessed_at FROM open_files")))

    def outcome(self, actor: str, request_id: str) -> str | None:
        """What came of a request; None when it has not been carried out, or too long ago."""
        with self._translated():
            row = self._db.execute(
                "SELECT outcome FROM requests WHERE actor = ? AND id = ?", (actor, request_id)
            ).fetchone()
            return row[0] if row else None

    def settle(self, accesses: Sequence[Access], outcomes: Mapping[tuple[str, str], str], at: str) -> None:
        """Write what requests came to (by actor and id), and what they did to open files: all or nothing.

        It is on disk when this returns.

        Raises:
            JournalUnusable: nothing was written.
        """
        try:
            self._db.execute("PRAGMA synchronous=FULL")
            with self._transaction():
                for agent, file, opened_at in accesses:
                    if opened_at is None:
                        self._db.execute("DELETE FROM open_files WHERE agent = ? AND file = ?", (agent, file))
                    else:
                        self._db.execute("INSERT OR REPLACE INTO open_files VALUES (?, ?, ?)", (agent, file, opened_at))
                self._db.executemany(
                    "INSERT INTO requests VALUES (?, ?, ?, ?)",
                    ((actor, request_id, outcome, at) for (actor, request_id), outcome in outcomes.items()),
                )
        except sqlite3.Error as error:
            raise JournalUnusable(f"the journal cannot be written: {error}", path=self.path) from error
        finally:
            self._db.execute("PRAGMA synchronous=NORMAL")

    def prepare(self, prepared: Prepared, *, is_durable: bool = True) -> None:
        """Write what is about to be done to files. It is on disk when this returns.

        Raises:
            JournalUnusable: nothing was written.
        """
        self._new_list_ids.clear()
        try:
            if is_durable:
                self._db.execute("PRAGMA synchronous=FULL")
            with self._transaction():
                for revision in prepared.revisions:
                    block = revision.block
                    entries = self._list_id(block.agents) if block is not None else None
                    row = _row(revision, entries, self._list_id(revision.agents))
                    self._db.execute(
                        f"INSERT INTO pending_revisions VALUES ({_MARKS}, ?)",  # noqa: S608  # a constant
                        (*row, prepared.paths.get(revision.label)),
                    )
                    self._logged += _chars_of(revision)
                self._db.executemany(
                    "INSERT INTO pending_files (path, aside, base, data) VALUES (?, ?, ?, ?)", prepared.staged
                )
                self._db.executemany(
                    "INSERT INTO pending_requests VALUES (?, ?, ?, ?)",
                    ((*key, outcome, prepared.at) for key, outcome in prepared.outcomes.items()),
                )
                self._logged += 2 * sum(map(len, prepared.outcomes.values()))
                self._db.executemany(
                    "INSERT INTO pending_folders VALUES (?)", ((path,) for path in prepared.folders_gone)
                )
        except sqlite3.Error as error:
            raise JournalUnusable(f"the journal cannot be written: {error}", path=self.path) from error
        finally:
            self._db.execute("PRAGMA synchronous=NORMAL")
        self._remember_lists()

    def finish(self, prepared: Prepared, signatures: Mapping[str, Signature | None] | None = None) -> None:
        """The files say what was prepared: it is so from now on. `signatures` are those of the files, by path.

        It need not be on disk at once: after a crash it is seen from the files, and finished then. Directories that are to
        go are remembered until `forget_folders`.

        Raises:
            JournalUnusable: nothing was written.
        """
        self._new_list_ids.clear()
        signatures = signatures or {}
        try:
            with self._transaction():
                for revision in prepared.revisions:
                    path = prepared.paths.get(revision.label)
                    self._insert(revision, (path, signatures.get(path)) if path is not None else None)
                self._db.execute("INSERT OR IGNORE INTO requests SELECT * FROM pending_requests")
                self._forget_prepared()
        except sqlite3.Error as error:
            raise JournalUnusable(f"the journal cannot be written: {error}", path=self.path) from error
        self._remember_lists()
        if prepared.revisions:
            self.seq = prepared.revisions[-1].seq

    def give_up(self) -> None:
        """What was prepared is not to be; its files say again what they did.

        Raises:
            JournalUnusable: that could not be written; the next start does it.
        """
        try:
            with self._transaction():
                self._forget_prepared()
                self._db.execute("DELETE FROM pending_folders")
        except sqlite3.Error as error:
            raise JournalUnusable(f"the journal cannot be written: {error}", path=self.path) from error

    def folders_gone(self) -> list[str]:
        """The directories that are to go, and have not been seen to be gone."""
        with self._translated():
            return [path for (path,) in self._db.execute("SELECT path FROM pending_folders")]

    def forget_folders(self) -> None:
        """They are gone, or are to stay.

        Raises:
            JournalUnusable: that could not be written; they must be looked at again before anything else is written.
        """
        try:
            self._db.execute("DELETE FROM pending_folders")
        except sqlite3.Error as error:
            raise JournalUnusable(f"the journal cannot be written: {error}", path=self.path) from error

    def _forget_prepared(self) -> None:
        for table in ("pending_revisions", "pending_files", "pending_requests"):
            self._db.execute(f"DELETE FROM {table}")  # noqa: S608  # a constant

    def prepared(self) -> Prepared | None:
        """What a crash has left prepared."""
        with self._translated():
            rows = self._db.execute(f"SELECT {_COLUMNS}, path FROM pending_revisions ORDER BY seq").fetchall()  # noqa: S608  # a constant
            staged = self._db.execute("SELECT path, aside, base, data FROM pending_files ORDER BY rowid").fetchall()
            outcomes = self._db.execute("SELECT actor, id, outcome FROM pending_requests").fetchall()
            if not (rows or staged or outcomes):
                return None
            return Prepared(
                [self._revision(row[:-1]) for row in rows],
                {row[1]: row[-1] for row in rows if row[-1] is not None},
                [Staged(*row) for row in staged],
                {(actor, request_id): outcome for actor, request_id, outcome in outcomes},
                rows[-1][13] if rows else "",
            )

    def forget_requests(self, before: str) -> None:
        """Forget what came of requests before this time. On a full disk nothing is forgotten: there is another time."""
        with suppress(sqlite3.OperationalError):
            self._db.execute("DELETE FROM requests WHERE at < ?", (before,))

    def checkpoint(self) -> None:
        """Move what was logged into the database, if it has become much. Takes fsyncs: for idle moments.

        The size of the log's file does not tell how much that is: it is used again from its beginning, and never shrinks.
        """
        if self._logged >= _CHECKPOINT_CHARS:
            self._logged = 0
            with suppress(sqlite3.OperationalError):  # the disk is full: what is in the log is safe there
                self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def close(self) -> None:
        """Close, and note that nothing is missing: where that cannot be written, the next start will doubt it."""
        self._db.execute("PRAGMA synchronous=FULL")
        with suppress(sqlite3.OperationalError), self._transaction():
            self._db.execute(
                "DELETE FROM agent_lists WHERE id NOT IN (SELECT entries FROM revisions WHERE entries IS NOT NULL) "
                "AND id NOT IN (SELECT agents FROM revisions WHERE agents IS NOT NULL) "
                "AND NOT EXISTS (SELECT * FROM pending_revisions)"
            )
            self._db.execute("UPDATE meta SET value = 1 WHERE key = 'clean'")
        self._db.close()

    def _list_id(self, agents: Agents) -> int | None:
        """The number of a list of agents, in the transaction that is open.

        Lists are recognised by identity first: most revisions leave theirs alone, and theirs may be long.
        """
        if not agents:
            return None
        same = self._same_lists.get(id(agents))
        if same is not None and same[0] is agents:
            return same[1]
        number = self._list_ids.get(agents)
        if number is not None:  # an equal list: from now on it is recognised, too
            if len(self._same_lists) >= 2 * _REMEMBERED_LISTS:
                self._same_lists.clear()
            self._same_lists[id(agents)] = (agents, number)
            return number
        number = self._new_list_ids.get(agents)
        if number is None:
            text = ",".join(sorted(agents) if isinstance(agents, frozenset) else agents)
            digest = blake2b(text.encode("utf-8"), digest_size=16).digest()
            found = self._db.execute("SELECT id FROM agent_lists WHERE digest = ?", (digest,)).fetchone()
            if found is None:
                found = self._db.execute(
                    "INSERT INTO agent_lists (digest, agents) VALUES (?, ?) RETURNING id", (digest, text)
                ).fetchone()
            number = self._new_list_ids[agents] = int(found[0])
        return number

    def _remember_lists(self) -> None:
        """The transaction is committed: the numbers given out in it stand."""
        if len(self._list_ids) + len(self._new_list_ids) > _REMEMBERED_LISTS:
            self._list_ids.clear()
            self._same_lists.clear()
        for agents, number in self._new_list_ids.items():
            self._list_ids[agents] = number
            self._same_lists[id(agents)] = (agents, number)
        self._new_list_ids.clear()


def _chars_of(revision: Revision) -> int:
    """About how much a revision is in the log."""
    return _ROW_CHARS + (len(revision.block.value) if revision.block is not None else 0)


def _row(revision: Revision, entries: int | None, agents: int | None) -> tuple[object, ...]:
    """A revision as the table has it, in the order of `_COLUMNS`."""
    block = revision.block
    return (
        revision.seq,
        revision.label,
        revision.version,
        revision.kind,
        block.value if block is not None else None,
        block.facts if block is not None else None,
        entries,
        agents,
        ",".join(revision.fields),
        ",".join(revision.attached),
        ",".join(revision.detached),
        revision.digest,
        revision.author,
        revision.at,
        revision.created_at,
        revision.request_id,
        revision.renamed_from,
        revision.position,
        ",".join(map(str, revision.reverts)) or None,
        revision.stale_base,
    )


def _revision_of(row: tuple[Any, ...], entries: tuple[str, ...], agents: frozenset[str]) -> Revision:
    (
        seq,
        label,
        version,
        kind,
        value,
        facts,
        _,
        _,
        fields,
        attached,
        detached,
        digest,
        author,
        at,
        created,
        request,
        renamed_from,
        position,
        reverts,
        stale_base,
    ) = row
    block = None
    if facts is not None:
        known = json.loads(facts)
        known["tags"] = tuple(known["tags"])
        text = value if isinstance(value, str) else zlib.decompress(value).decode("utf-8")
        block = Block(value=text, agents=entries, _facts=facts, **known)
    return Revision(
        seq=seq,
        label=label,
        version=version,
        kind=kind,
        block=block,
        at=at,
        created_at=created,
        author=author,
        fields=_words(fields),
        agents=agents,
        attached=_words(attached),
        detached=_words(detached),
        digest=digest,
        request_id=request,
        renamed_from=renamed_from,
        position=position,
        reverts=tuple(map(int, _words(reverts or ""))),
        stale_base=stale_base,
    )


def _words(text: str) -> tuple[str, ...]:
    """What was joined with commas, which neither a field nor an agent has in its name."""
    return tuple(text.split(",")) if text else ()
