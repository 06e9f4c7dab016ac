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

from blocksd.errors import JournalDamaged, JournalMissing, JournalUnusable
from blocksd.identity import identity_of
from blocksd.salvage import put_in_place, remove, salvage, set_aside
from blocksd.tables import MIGRATIONS, SCHEMA, SQLITE_ERRORS

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCKED_SECONDS = 5.0  # for how long a lock of another process is waited for
_CHECK_SECONDS = 2.0  # for how long a journal is checked that was not closed in order; the rest is checked meanwhile
_RUNS = 32  # of so many runs the tokens are kept

_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH)
_UNDECODABLE = "Could not decode"  # what Python's module says of a text that is none, without a code

How = Literal["new", "ok", "unclean", "copied", "damaged"]


class Database:
    """A connection to the file at `path`, for one thread."""

    def __init__(self, path: str, connection: sqlite3.Connection) -> None:
        self.path = path
        self._place: tuple[tuple[int, int], ...] | None = None  # device and inode of the file and its log
        self._use(connection)

    def _use(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self._is_torn = False  # a transaction is still open that is to be rolled back
        self.execute = connection.execute
        self.executemany = connection.executemany

    def close(self) -> None:
        """Close the connection, whatever SQLite says to it."""
        with suppress(*SQLITE_ERRORS):
            self.connection.close()

    def adopt(self, other: Database) -> None:
        """Go on with another connection; the one so far is closed."""
        self.close()
        self._use(other.connection)
        self._place = other._place

    def stay(self) -> None:
        """From now on the file at `path`, and its log, are to stay where they are: `check_in_place` looks at that."""
        self._place = _place_of(self.path)

    @property
    def is_in_place(self) -> bool:
        """True if what is at `path` is what is open here."""
        try:
            return self._place is None or _place_of(self.path) == self._place
        except FileNotFoundError:
            return False
        except OSError:  # it may be: that it cannot be looked at does not say that it is another
            return True

    def check_in_place(self) -> None:
        """See whether the file is where it was opened.

        Raises:
            JournalMissing: it was removed, or another is there: what is written here, nobody would find again.
        """
        if not self.is_in_place:
            raise JournalMissing("the journal was removed or replaced while it was in use", path=self.path)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """What SQLite raises within is raised as `JournalUnusable`."""
        try:
            self._roll_back()
            yield
        except SQLITE_ERRORS as error:
            raise _unusable("read", error, self.path, is_ours=True) from error

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
                with suppress(*SQLITE_ERRORS):
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
        self.check_in_place()
        try:
            if is_durable:
                self.execute("PRAGMA synchronous=FULL")
            with self.transaction():
                yield
        except SQLITE_ERRORS as error:
            raise self.unwritable(error) from error
        finally:
            if is_durable:
                with suppress(*SQLITE_ERRORS):
                    self.execute("PRAGMA synchronous=NORMAL")

    def unwritable(self, error: Exception) -> JournalUnusable:
        """What it means that something could not be written."""
        return _unusable("written", error, self.path, is_ours=True)


@dataclass(frozen=True, slots=True)
class Opened:
    """How a journal was found.

    `new`; `ok`; `unclean` after a power loss; `copied`, since it is not the file that was last written to; or `damaged`.
    All but `ok` have a new epoch.

    `set_aside` is where a damaged journal was moved to; one of what is sound in it has taken its place. `seq` is that of
    the newest revision, `folder` the one whose revisions they are, if that is known. `runs` are the tokens of the last
    runs that wrote to it, this one's the last. Up to the seq `unchecked` revisions have no checksum.
    """

    how: How
    epoch: str
    seq: int
    folder: str | None = None
    set_aside: str | None = None
    runs: tuple[str, ...] = ()
    unchecked: int = 0


def open_to_read(path: str) -> tuple[Database, Opened]:
    """Open an existing journal for reading.

    Raises:
        JournalUnusable: there is none, or it cannot be read.
    """
    try:
        address = f"{pathlib.Path(path).absolute().as_uri()}?mode=ro"
        database = Database(path, sqlite3.connect(address, uri=True, timeout=LOCKED_SECONDS))
    except SQLITE_ERRORS as error:
        raise _unusable("read", error, path) from error
    try:
        with database.reading():
            (schema,) = database.execute("PRAGMA user_version").fetchone()
            if schema != SCHEMA:
                raise JournalUnusable(f"the journal is of schema {schema}, not {SCHEMA}", path=path)
            seq = _newest_seq(database)
            meta = _meta_of(database)
    except JournalUnusable:
        database.close()
        raise
    return database, Opened("ok", str(meta.get("epoch")), seq, unchecked=_number(meta.get("unchecked")))


def open_to_write(path: str, boot_id: str) -> tuple[Database, Opened]:
    """Open a journal, brought up to date, or make one; `boot_id` identifies this boot of the machine.

    Raises:
        JournalUnusable: it is of a newer version of blocksd, or cannot be opened.
    """
    try:
        return _open(path, boot_id)
    except SQLITE_ERRORS as error:
        if not _is_damage(error):  # locked, full, not permitted: the file itself may be sound
            raise _unusable("opened", error, path) from error
    except JournalDamaged:
        pass
    return reopen_damaged(path, boot_id)


def reopen_damaged(path: str, boot_id: str) -> tuple[Database, Opened]:
    """Open a journal made of what is sound in the damaged one at `path`. No connection to that may be open.

    Raises:
        JournalUnusable: it cannot be made.
    """
    try:
        aside = salvage(path)
        database, opened = _open(path, boot_id)
    except SQLITE_ERRORS as error:
        raise _unusable("opened", error, path) from error
    except OSError as error:
        raise JournalUnusable(f"the damaged journal cannot be set aside: {error.strerror}", path=path) from error
    return database, replace(opened, how="damaged", set_aside=aside)


def rescue(database: Database, boot_id: str) -> Opened:
    """Put what is open here back into its place, from which it was removed, and go on there, in a new epoch.

    What is in its place is set aside. If what is open cannot be read any more, a new journal is begun.

    Raises:
        JournalUnusable: it could not be done.
    """
    path = database.path
    fresh = f"{path}.rescued"
    try:
        os.makedirs(os.path.dirname(path) or ".", mode=0o700, exist_ok=True)
        remove(fresh)
        try:
            copy = sqlite3.connect(fresh)
            os.chmod(fresh, 0o600)
            try:
                database.connection.backup(copy)
            finally:
                copy.close()
            is_whole = True
        except SQLITE_ERRORS as error:
            if not _is_damage(error):
                raise
            remove(fresh)
            is_whole = False
        aside = set_aside(path, "replaced")
        if is_whole:
            put_in_place(fresh, path)
        other, opened = _open(path, boot_id)
    except SQLITE_ERRORS as error:
        raise _unusable("put back into its place", error, path) from error
    except OSError as error:
        why = error.strerror or error
        raise JournalUnusable(f"the journal cannot be put back into its place: {why}", path=path) from error
    database.adopt(other)
    return replace(opened, set_aside=aside)


def _open(path: str, boot_id: str) -> tuple[Database, Opened]:
    database = Database(path, sqlite3.connect(path, isolation_level=None, timeout=LOCKED_SECONDS))
    try:
        os.chmod(path, 0o600)
        opened = _begin(database, boot_id)
        database.stay()
    except BaseException:
        database.close()
        raise
    return database, opened


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
    identity = identity_of(database.path)
    try:
        with database.transaction():
            for number, migration in enumerate(MIGRATIONS[schema:], start=schema + 1):
                for statement in migration.split(";"):
                    database.execute(statement)
                database.execute(f"PRAGMA user_version={number}")
            meta = _meta_of(database)
            is_new = "epoch" not in meta
            if not is_new:
                _check(database, is_clean=meta.get("clean") == 1)
            # After a power loss the last revisions may be missing, and in a copy all that were written since it was made:
            # their numbers would be given out again. In another epoch they are other numbers.
            is_lost = not is_new and meta.get("clean") != 1 and meta.get("boot_id") != boot_id
            is_copy = meta.get("identity") not in (None, identity)
            folder = str(meta["folder"]) if "folder" in meta else None
            epoch = uuid.uuid4().hex if is_new or is_lost or is_copy else str(meta["epoch"])
            runs = (*str(meta.get("runs", "")).split(), uuid.uuid4().hex[:16])[-_RUNS:]
            facts = {"epoch": epoch, "boot_id": boot_id, "clean": 0, "identity": identity, "runs": " ".join(runs)}
            database.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", facts.items())
    except sqlite3.OperationalError as error:
        if (
            schema == SCHEMA and getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR
        ):  # a table is not as it was made
            raise JournalDamaged(f"the journal is damaged: {error}", path=database.path) from error
        raise
    database.execute("PRAGMA synchronous=NORMAL")
    how: How = "new" if is_new else "copied" if is_copy else "unclean" if is_lost else "ok"
    return Opened(how, epoch, _newest_seq(database), folder, None, runs, _number(meta.get("unchecked")))


def _check(database: Database, *, is_clean: bool) -> None:
    """See whether the journal is one that can be gone on with; after a stop out of order, whether it is sound.

    Raises:
        JournalDamaged: it is not.
    """
    (odd,) = database.execute(
        "SELECT EXISTS (SELECT * FROM heads WHERE (path IS NOT NULL OR NOT ?) AND (typeof(label) <> 'text' "
        "OR typeof(seq) <> 'integer' OR seq < 1 OR typeof(version) <> 'integer' OR version < 1 "
        "OR typeof(path) NOT IN ('text', 'null') OR typeof(agents) NOT IN ('integer', 'null') "
        "OR typeof(entries) NOT IN ('integer', 'null')))",
        (is_clean,),  # those of deleted blocks may be very many, and a start takes nothing from them
    ).fetchone()
    found = "its heads are not what was written" if odd else "ok"
    if not odd and not is_clean:
        found = quick_check(database)
    if found != "ok":
        raise JournalDamaged(f"the journal is damaged: {found}", path=database.path)


def quick_check(database: Database) -> str:
    """What SQLite finds wrong with the file within a moment: `ok` if nothing, or if the moment was too short."""
    deadline = time.monotonic() + _CHECK_SECONDS
    database.connection.set_progress_handler(lambda: int(time.monotonic() > deadline), 100_000)
    try:
        return str(database.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
            return "ok"
        raise
    finally:
        database.connection.set_progress_handler(None, 0)


def _place_of(path: str) -> tuple[tuple[int, int], ...]:
    files = (os.stat(path), os.stat(f"{path}-wal"))
    return tuple((file.st_dev, file.st_ino) for file in files)


def _newest_seq(database: Database) -> int:
    """The highest seq that was given out, as far as it is known."""
    (seq,) = database.execute(
        "SELECT max(coalesce((SELECT max(seq) FROM in_force), 0), coalesce((SELECT max(seq) FROM damaged), 0))"
    ).fetchone()
    return _number(seq)


def _meta_of(database: Database) -> dict[str, object]:
    return dict(database.execute("SELECT key, value FROM meta"))


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _is_damage(error: Exception) -> bool:
    """True if an error says that the file is not as it was written."""
    if isinstance(error, UnicodeError):
        return True
    code = getattr(error, "sqlite_errorcode", None)
    return str(error).startswith(_UNDECODABLE) if code is None else code & 0xFF in _DAMAGE


def _unusable(done: str, error: Exception, path: str, *, is_ours: bool = False) -> JournalUnusable:
    """Why something could not be done. `is_ours`: the tables were those of a journal when it was opened.

    Then a statement that is wrong shows that they are no longer.
    """
    is_wrong = is_ours and getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR
    kind = JournalDamaged if is_wrong or _is_damage(error) else JournalUnusable
    return kind(f"the journal cannot be {done}: {error}", path=path)
