"""The SQLite file that a journal is: how it is opened, and what comes of its errors."""

from __future__ import annotations

import os
import pathlib
import sqlite3
import time
import uuid
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from blocksd.errors import JournalUnusable
from blocksd.tables import MIGRATIONS, SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCKED_SECONDS = 5.0  # for how long a lock of somebody else's is waited for


class Database:
    """A connection to the file at `path`, for one thread."""

    def __init__(self, path: str, connection: sqlite3.Connection) -> None:
        self.path = path
        self.connection = connection
        self._is_torn = False  # a transaction is still open that is to be rolled back
        self.execute = connection.execute
        self.executemany = connection.executemany
        self.close = connection.close

    @contextmanager
    def reading(self) -> Iterator[None]:
        """What SQLite raises within is raised as `JournalUnusable`."""
        try:
            self._roll_back()
            yield
        except sqlite3.Error as error:
            raise _unusable("read", error, self.path) from error

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """What is written within is written whole or not at all. What SQLite raises is raised as it is."""
        self._roll_back()
        self.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.execute("COMMIT")
        except BaseException:
            if self.connection.in_transaction:  # SQLite itself rolls back on some errors, a full disk among them
                self._is_torn = True
                with suppress(sqlite3.Error):
                    self._roll_back()
            raise

    def _roll_back(self) -> None:
        """End a transaction that could neither be committed nor rolled back: nobody may see what it has not written."""
        if self._is_torn:
            if self.connection.in_transaction:
                self.execute("ROLLBACK")
            self._is_torn = False

    @contextmanager
    def writing(self, *, is_durable: bool = False) -> Iterator[None]:
        """A transaction that is on disk when it ends, if it is to be durable.

        Raises:
            JournalUnusable: nothing was written.
        """
        try:
            if is_durable:
                self.execute("PRAGMA synchronous=FULL")
            with self.transaction():
                yield
        except sqlite3.Error as error:
            raise self.unwritable(error) from error
        finally:
            if is_durable:
                self.execute("PRAGMA synchronous=NORMAL")

    def unwritable(self, error: sqlite3.Error) -> JournalUnusable:
        """What it means that something could not be written."""
        return _unusable("written", error, self.path)


@dataclass(frozen=True, slots=True)
class Opened:
    """How a journal was found: `new`, `ok`, `unclean` after a power loss (it has a new epoch), or `damaged`.

    `set_aside` is where a damaged journal was moved to; a new one has taken its place. `seq` is that of the newest revision,
    `folder` the one whose revisions they are, if somebody has said.
    """

    how: Literal["new", "ok", "unclean", "damaged"]
    epoch: str
    seq: int
    folder: str | None = None
    set_aside: str | None = None


def open_to_read(path: str) -> tuple[Database, Opened]:
    """Open an existing journal for reading.

    Raises:
        JournalUnusable: there is none, or it cannot be read.
    """
    try:
        address = f"{pathlib.Path(path).absolute().as_uri()}?mode=ro"
        database = Database(path, sqlite3.connect(address, uri=True, timeout=LOCKED_SECONDS))
    except sqlite3.Error as error:
        raise _unusable("read", error, path) from error
    try:
        with database.reading():
            (schema,) = database.execute("PRAGMA user_version").fetchone()
            if schema != SCHEMA:
                raise JournalUnusable(f"the journal is of schema {schema}, not {SCHEMA}", path=path)
            seq = _newest_seq(database)
            (epoch,) = database.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone()
    except JournalUnusable:
        database.close()
        raise
    return database, Opened("ok", epoch, seq)


def open_to_write(path: str, boot_id: str) -> tuple[Database, Opened]:
    """Open a journal, brought up to date, or make one; `boot_id` identifies this boot of the machine.

    Raises:
        JournalUnusable: it is of a newer version of blocksd, or cannot be opened.
    """
    try:
        return _open(path, boot_id)
    except sqlite3.OperationalError as error:  # locked, full, not permitted: the file itself may be sound
        raise _unusable("opened", error, path) from error
    except sqlite3.DatabaseError:
        aside = _set_aside(path)
    database, opened = _open(path, boot_id)
    return database, replace(opened, how="damaged", set_aside=aside)


def _set_aside(path: str) -> str:
    """The file is no sound database: keep it for whoever can read it. Where it is now."""
    aside = f"{path}.damaged-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}"
    for suffix in ("", "-wal", "-shm"):
        if os.path.exists(path + suffix):
            os.replace(path + suffix, aside + suffix)
    return aside


def _open(path: str, boot_id: str) -> tuple[Database, Opened]:
    database = Database(path, sqlite3.connect(path, isolation_level=None, timeout=LOCKED_SECONDS))
    try:
        os.chmod(path, 0o600)
        return database, _begin(database, boot_id)
    except BaseException:
        database.close()
        raise


def _begin(database: Database, boot_id: str) -> Opened:
    database.execute("PRAGMA journal_mode=WAL")
    # A revision read from a file needs no fsync: the file is the truth. Checkpoints are taken when there is time.
    database.execute("PRAGMA synchronous=FULL")
    database.execute("PRAGMA wal_autocheckpoint=0")
    (schema,) = database.execute("PRAGMA user_version").fetchone()
    if schema > SCHEMA:
        raise JournalUnusable(
            f"the journal is of schema {schema}, newer than the {SCHEMA} this blocksd knows", path=database.path
        )
    with database.transaction():
        for number, migration in enumerate(MIGRATIONS[schema:], start=schema + 1):
            for statement in migration.split(";"):
                database.execute(statement)
            database.execute(f"PRAGMA user_version={number}")
        meta = dict(database.execute("SELECT key, value FROM meta"))
        # After a power loss the last revisions may be missing, and their numbers would be given out again: in
        # another epoch they are other numbers.
        lost = bool(meta) and not meta["clean"] and meta["boot_id"] != boot_id
        folder = str(meta["folder"]) if "folder" in meta else None
        epoch = uuid.uuid4().hex if lost or not meta else str(meta["epoch"])
        database.executemany(
            "INSERT OR REPLACE INTO meta VALUES (?, ?)", [("epoch", epoch), ("boot_id", boot_id), ("clean", 0)]
        )
    database.execute("PRAGMA synchronous=NORMAL")
    how: Literal["new", "ok", "unclean"] = "new" if not meta else "unclean" if lost else "ok"
    return Opened(how, epoch, _newest_seq(database), folder)


def _newest_seq(database: Database) -> int:
    return int(database.execute("SELECT coalesce(max(seq), 0) FROM in_force").fetchone()[0])


def _unusable(done: str, error: sqlite3.Error, path: str) -> JournalUnusable:
    return JournalUnusable(f"the journal cannot be {done}: {error}", path=path)
