"""The connection to a journal's SQLite file: reading, transactions, checkpoints, and the meaning of SQLite's errors."""

from __future__ import annotations

import errno
import pathlib
import sqlite3
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Literal

from blocksd.errors import JournalDamaged, JournalUnavailable, JournalUnusable
from blocksd.journal.journal_file import JournalFile
from blocksd.journal.schema import SQLITE_ERRORS

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCKED_SECONDS = 1.0  # for how long a lock of another process is waited for: all else waits meanwhile

_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH)
_UNDECODABLE = "Could not decode"  # what Python's module says of a text that is none, without a code

_PASSING = (
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_CANTOPEN,  # its log, or what belongs to that: the file itself could be opened
)
"""What may pass without a change to the journal or to the rights to it."""
_PASSING_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ESTALE)


class Database:
    """A connection to the file at `path`, for one thread."""

    def __init__(self, path: str, connection: sqlite3.Connection) -> None:
        self.path = path
        self._file: JournalFile | None = None  # of a journal that is open for writing
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
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def adopt(self, other: Database) -> None:
        """Close the connection, and go on with another one."""
        self.close()
        self._use(other.connection)
        self._file = other._file

    def watch_file(self) -> None:
        """Watch the file: no other program may remove, replace or write it from now on."""
        self._file = JournalFile(self.path)

    def fault(self) -> str:
        """Return what another program did to the file, in a sentence; empty if nothing."""
        return self._file.fault() if self._file is not None else ""

    @property
    def is_in_place(self) -> bool:
        """True if what is at `path` is what is open here, as it was left."""
        return not self.fault()

    def check_in_place(self) -> None:
        """Check that the file is where it was opened, as it was left, and can be locked.

        Raises:
            JournalMissing: it is not: nobody would find again what is written to it.
            JournalUnusable: the file system takes no locks.
        """
        if self._file is not None:
            self._file.check()

    def accept(self, *, epoch: str, run: str, seq: int) -> bool:
        """Go on with a file that another program wrote; return True if it is sound and has all that was committed.

        It is so after a checkpoint that another program took, or a `touch`.
        Raise JournalUnusable if it cannot be told now.
        """
        try:
            now = self._file.grown() if self._file is not None else None
            if self._file is None or now is None:
                return False
            with closing(sqlite3.connect(read_only(self.path), uri=True, timeout=LOCKED_SECONDS)) as other:
                database = Database(self.path, other)
                meta = meta_of(database)
                if (
                    meta.get("epoch") != epoch
                    or run not in str(meta.get("runs")).split()
                    or newest_seq(database) != seq
                    or other.execute("PRAGMA integrity_check(1)").fetchone()[0] != "ok"
                ):
                    return False
            self.execute("PRAGMA shrink_memory")  # pages that were read before may be other ones
        except FileNotFoundError:
            return False
        except OSError as error:
            raise JournalUnusable(f"the journal cannot be read: {error.strerror or error}", path=self.path) from error
        except SQLITE_ERRORS as error:
            reason = unusable("read", error, self.path, is_ours=True)
            if isinstance(reason, JournalDamaged):
                return False
            raise reason from error
        self._file.leave(now)
        return True

    def checkpoint(self, mode: Literal["PASSIVE", "TRUNCATE"]) -> bool:
        """Move what was logged into the database; return True if that is all of it. Errors of SQLite are raised as they are.

        Raises:
            JournalMissing: the file is not as it was left.
            JournalUnusable: the file system takes no locks.
        """
        self.check_in_place()
        try:
            is_busy, logged, moved = self.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        finally:
            if self._file is not None:
                self._file.written()
        return not is_busy and bool(logged == moved)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Raise errors of SQLite in this context as `JournalUnusable`."""
        if self._file is not None:
            self._file.try_lock()
        try:
            self._roll_back()
            yield
        except SQLITE_ERRORS as error:
            raise unusable("read", error, self.path, is_ours=True) from error

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write all that is written in this context, or nothing. Errors of SQLite are raised as they are."""
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
        """End a transaction that could neither be committed nor rolled back, so that nobody sees its unwritten rows."""
        if self._is_torn:
            if self.connection.in_transaction:
                self.execute("ROLLBACK")
            self._is_torn = False

    @contextmanager
    def writing(self, *, is_durable: bool = False) -> Iterator[None]:
        """Write in a transaction, which is on disk when it ends if it is to be durable.

        Raise JournalUnusable if it cannot be written; then nothing is.
        """
        self.check_in_place()
        try:
            if is_durable:
                self._roll_back()  # what is torn would refuse the next statement, as if the journal were damaged
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
        """Return the error of a journal for one of SQLite in writing it."""
        return unusable("written", error, self.path, is_ours=True)


def read_only(path: str, more: str = "") -> str:
    """Return the address by which SQLite opens a file for reading alone."""
    return f"{pathlib.Path(path).absolute().as_uri()}?mode=ro{more}"


def newest_seq(database: Database) -> int:
    """Return the highest seq that was given out, as far as it is known."""
    (seq,) = database.execute(
        "SELECT max(coalesce((SELECT max(seq) FROM in_force), 0), coalesce((SELECT max(seq) FROM damaged), 0))"
    ).fetchone()
    return number_or_zero(seq)


def meta_of(database: Database) -> dict[str, object]:
    """Return what the journal says of itself."""
    return dict(database.execute("SELECT key, value FROM meta"))


def number_or_zero(value: object) -> int:
    """Return a number; 0 for what is none, as in a damaged row."""
    return value if isinstance(value, int) else 0


def is_damage(error: Exception) -> bool:
    """Return True if an error says that the file is not as it was written."""
    if isinstance(error, UnicodeError):
        return True
    code = getattr(error, "sqlite_errorcode", None)
    return str(error).startswith(_UNDECODABLE) if code is None else code & 0xFF in _DAMAGE


def unusable(done: str, error: Exception, path: str, *, is_ours: bool = False) -> JournalUnusable:
    """Return the error for what could not be `done`.

    `is_ours`: the tables were those of a journal when it was opened, so that a wrong statement shows damage.
    """
    is_wrong = is_ours and getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR
    kind = JournalDamaged if is_wrong or is_damage(error) else JournalUnusable
    return kind(f"the journal cannot be {done}: {error}", path=path)


def unopened(error: Exception, path: str) -> JournalUnusable:
    """Return the error for a journal that cannot be opened; `JournalUnavailable` if it is worth another try."""
    if isinstance(error, OSError):
        passes, why = error.errno in _PASSING_ERRNOS, error.strerror or str(error)
    else:
        passes, why = ((getattr(error, "sqlite_errorcode", None) or 0) & 0xFF) in _PASSING, str(error)
    kind = JournalUnavailable if passes else JournalUnusable
    return kind(f"the journal cannot be opened: {why}", path=path)
