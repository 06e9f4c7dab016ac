"""The connection to a journal's SQLite file, which no other program may remove, replace or write."""

from __future__ import annotations

import errno
import fcntl
import os
import pathlib
import sqlite3
import time
from contextlib import closing, suppress
from typing import Any, Literal, NamedTuple

from blocksd.errors import JournalDamaged, JournalMissing, JournalUnavailable, JournalUnusable
from blocksd.journal.schema import SQLITE_ERRORS
from blocksd.journal.transaction import Reading, Transaction, Writing

LOG_STEP_BYTES = 4 * 1024 * 1024  # by which the log may grow before it is moved; to this it is cut when it begins anew

MISSING = "the journal was removed or replaced while it was in use"
_OVERWRITTEN = "the journal was overwritten or cut by another program while it was in use"
_FOREIGN_HINT = "see what else writes to the state directory: only the daemon may; what can still be read is put back"
_LOCK_HINT = "see that the file system of the state directory takes locks (NFS: its lock service); it is retried"
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


class _State(NamedTuple):
    """The marks that another program would change on the file and its log."""

    place: tuple[int, int, int, int]  # device and inode, of both
    size: int
    mtime_ns: int
    log_size: int


class Database:
    """A connection to the file at `path`, for one thread."""

    def __init__(self, path: str, connection: sqlite3.Connection) -> None:
        self.path = path
        self._left: _State | None = None  # in which this process left the file; None if it only reads
        self._handle = -1  # of the file, on which locks are tried
        self._use(connection)

    def _use(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.is_torn = False  # a transaction is still open that is to be rolled back
        self.execute = connection.execute
        self.executemany = connection.executemany

    def close(self) -> None:
        """Close the connection, whatever SQLite says to it."""
        with suppress(*SQLITE_ERRORS):
            self.connection.close()
        handle, self._handle = self._handle, -1
        if handle >= 0:  # after the connection: this lets all locks on the file go
            with suppress(OSError):
                os.close(handle)

    def adopt(self, other: Database) -> None:
        """Close the connection, and go on with another one."""
        self.close()
        self._use(other.connection)
        self._left, self._handle = other._left, other._handle

    def watch_file(self) -> None:
        """Watch the file: no other program may remove, replace or write it from now on."""
        self._left = _state_of(self.path)
        self._handle = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)

    def fault(self) -> str:
        """Return what another program did to the file, in a sentence; empty if nothing.

        Only checkpoints write the database, and only this process takes them. Its log is written all the time, but never
        gets shorter than the size to which SQLite cuts it.
        """
        left = self._left
        if left is None:
            return ""
        try:
            now = _state_of(self.path)
        except FileNotFoundError:
            return MISSING
        except OSError:  # that it cannot be looked at does not say that it is another
            return ""
        if now.place != left.place:
            return MISSING
        if (now.size, now.mtime_ns) != (left.size, left.mtime_ns) or now.log_size < left.log_size:
            return _OVERWRITTEN
        if left.log_size < now.log_size and left.log_size < LOG_STEP_BYTES:
            self._leave(now)
        return ""

    def _leave(self, now: _State) -> None:
        place, size, mtime_ns, log_size = now
        self._left = _State(place, size, mtime_ns, min(log_size, LOG_STEP_BYTES))

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
        if fault := self.fault():
            raise JournalMissing(fault, path=self.path, hint=_FOREIGN_HINT)
        self.try_lock()

    def try_lock(self) -> None:
        """Try a lock that no other process wants: where that fails, SQLite would wait for its own for many seconds."""
        if self._handle < 0:
            return
        try:
            fcntl.lockf(self._handle, fcntl.LOCK_SH | fcntl.LOCK_NB, 1)
        except OSError as error:
            message = f"the journal cannot be locked: {error.strerror or error}"
            raise JournalUnusable(message, path=self.path, hint=_LOCK_HINT) from error

    def accept(self, *, epoch: str, run: str, seq: int) -> bool:
        """Go on with a file that another program wrote; return True if it is sound and has all that was committed.

        It is so after a checkpoint that another program took, or a `touch`.
        Raise JournalUnusable if it cannot be told now.
        """
        try:
            now, left = _state_of(self.path), self._left
            if left is None or now.place != left.place or now.size < left.size or now.log_size < left.log_size:
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
        self._leave(now)
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
            with suppress(OSError):
                now = _state_of(self.path)
                if self._left is not None and now.place == self._left.place and now.size >= self._left.size:
                    self._leave(now)
        return not is_busy and bool(logged == moved)

    def reading(self) -> Reading:
        """Raise errors of SQLite in this context as `JournalUnusable`."""
        return Reading(self)

    def first(self, question: str, *parameters: object) -> Any:
        """Return the first row of an answer; None: it has none. Raise JournalUnusable if it cannot be read."""
        with self.reading():
            return self.execute(question, parameters).fetchone()

    def transaction(self) -> Transaction:
        """Write all that is written in this context, or nothing. Errors of SQLite are raised as they are."""
        return Transaction(self)

    def writing(self, *, is_durable: bool = False) -> Writing:
        """Write in a transaction, which is on disk when it ends if it is to be durable.

        Raise JournalUnusable if it cannot be written; then nothing is.
        """
        return Writing(self, is_durable=is_durable)

    def roll_back(self) -> None:
        """End a transaction that could neither be committed nor rolled back, so that no reader sees its unwritten rows."""
        if self.is_torn:
            if self.connection.in_transaction:
                self.execute("ROLLBACK")
            self.is_torn = False

    def unwritable(self, error: Exception) -> JournalUnusable:
        """Return the error of a journal for one of SQLite in writing it."""
        return unusable("written", error, self.path, is_ours=True)

    def unreadable(self, error: Exception) -> JournalUnusable:
        """Return the error of a journal for one of SQLite in reading it."""
        return unusable("read", error, self.path, is_ours=True)


def _state_of(path: str) -> _State:
    file, log = os.stat(path), os.stat(f"{path}-wal")
    return _State((file.st_dev, file.st_ino, log.st_dev, log.st_ino), file.st_size, file.st_mtime_ns, log.st_size)


def read_only(path: str, more: str = "") -> str:
    """Return the address by which SQLite opens a file for reading alone."""
    return f"{pathlib.Path(path).absolute().as_uri()}?mode=ro{more}"


def quick_check(connection: sqlite3.Connection, seconds: float) -> str | None:
    """Return what SQLite finds wrong with a file: `ok` if nothing, None if that cannot be told in so many seconds."""
    deadline = time.monotonic() + seconds
    connection.set_progress_handler(lambda: int(time.monotonic() > deadline), 100_000)
    try:
        return str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
            return None
        raise
    finally:
        connection.set_progress_handler(None, 0)


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
