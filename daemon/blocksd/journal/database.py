"""The connection to a journal's SQLite file, which no other program may remove, replace or write."""

from __future__ import annotations

import fcntl
import os
import pathlib
import sqlite3
import time
from contextlib import closing, suppress
from typing import Any, Literal, NamedTuple

from blocksd.errors import JournalDamaged, JournalMissing, JournalUnusable
from blocksd.journal.failures import unusable
from blocksd.journal.schema import SQLITE_ERRORS

LOG_STEP_BYTES = 4 * 1024 * 1024  # by which the log may grow before it is moved; to this it is cut when it begins anew

MISSING = "the journal was removed or replaced while it was in use"
_OVERWRITTEN = "the journal was overwritten or cut by another program while it was in use"
_FOREIGN_HINT = "see what else writes to the state directory: only the daemon may; what can still be read is put back"
_LOCK_HINT = "see that the file system of the state directory takes locks (NFS: its lock service); it is retried"
LOCKED_SECONDS = 1.0  # for how long a lock of another process is waited for: all else waits meanwhile


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
        # Contexts: in the first, errors of SQLite are raised as `JournalUnusable`.
        self.reading = Reading(self)
        # Write all that is written in this one, or nothing. Errors of SQLite are raised as they are.
        self.transaction = Transaction(self)
        # The same, but JournalUnusable is raised if it cannot be written; in the last, it is on disk at the end.
        self.writing, self.writing_durably = Writing(self), WritingDurably(self)

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

    def first(self, question: str, *parameters: object) -> Any:
        """Return the first row of an answer; None: it has none. Raise JournalUnusable if it cannot be read."""
        with self.reading:
            return self.execute(question, parameters).fetchone()

    def roll_back(self) -> None:
        """End a transaction that could neither be committed nor rolled back, so that no reader sees its unwritten rows."""
        if self.is_torn:
            if self.connection.in_transaction:
                self.execute("ROLLBACK")
            self.is_torn = False


# --- contexts: classes, because each change enters several, and generators would cost it more ---


class _Context:
    """A context in which the journal is used. It holds nothing, so that there is one for all uses."""

    __slots__ = ("_database",)

    def __init__(self, database: Database) -> None:
        self._database = database


class Reading(_Context):
    """The context of `Database.reading`."""

    def __enter__(self) -> None:
        database = self._database
        database.try_lock()
        if database.is_torn:
            try:
                database.roll_back()
            except SQLITE_ERRORS as error:
                raise unusable("read", error, database.path, is_ours=True) from error

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, SQLITE_ERRORS):
            raise unusable("read", error, self._database.path, is_ours=True) from error


class Transaction(_Context):
    """The context of `Database.transaction`."""

    def __enter__(self) -> None:
        if self._database.is_torn:
            self._database.roll_back()
        self._database.execute("BEGIN IMMEDIATE")

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        try:
            if error is None:
                self._database.execute("COMMIT")
        except BaseException:
            self._give_up()
            raise
        if error is not None:
            self._give_up()

    def _give_up(self) -> None:
        """Roll back, now or before the next transaction."""
        if self._database.connection.in_transaction:  # SQLite itself rolls back on some errors, a full disk among them
            self._database.is_torn = True
            with suppress(*SQLITE_ERRORS):
                self._database.roll_back()


class Writing(_Context):
    """The context of `Database.writing`."""

    def __enter__(self) -> None:
        self._database.check_in_place()
        self._begin()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        try:
            self._database.transaction.__exit__(kind, error, traceback)
        except BaseException as failure:
            self._end(failure)
            raise
        self._end(error)

    def _begin(self) -> None:
        try:
            self._database.transaction.__enter__()
        except BaseException as error:
            self._end(error)
            raise

    def _end(self, error: BaseException | None) -> None:
        """Raise an error of SQLite as `JournalUnusable`."""
        if isinstance(error, SQLITE_ERRORS):
            raise unusable("written", error, self._database.path, is_ours=True) from error


class WritingDurably(Writing):
    """The context of `Database.writing_durably`."""

    def _begin(self) -> None:
        try:
            self._database.roll_back()  # what is torn would refuse the next statement, as if the journal were damaged
            self._database.execute("PRAGMA synchronous=FULL")
        except BaseException as error:
            self._end(error)
            raise
        super()._begin()

    def _end(self, error: BaseException | None) -> None:
        with suppress(*SQLITE_ERRORS):
            self._database.execute("PRAGMA synchronous=NORMAL")
        super()._end(error)


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
