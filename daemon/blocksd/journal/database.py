"""The SQLite file that a journal is: how it is opened, and what comes of its errors."""

from __future__ import annotations

import errno
import fcntl
import os
import pathlib
import sqlite3
import time
import uuid
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

from blocksd.errors import JournalDamaged, JournalMissing, JournalUnavailable, JournalUnusable
from blocksd.journal.identity import identity_of
from blocksd.journal.salvage import salvage
from blocksd.journal.schema import MIGRATIONS, SCHEMA, SQLITE_ERRORS
from blocksd.journal.swap import finish, put_in_place, remove

if TYPE_CHECKING:
    from collections.abc import Iterator

LOG_STEP_BYTES = 4 * 1024 * 1024  # by which the log may grow before it is moved; to this it is cut when it begins anew

_OPENING_SECONDS = 5.0  # for how long a lock of another process is waited for when the journal is opened
_LOCKED_SECONDS = 1.0  # the same, once it is open: all else waits meanwhile
_CHECK_SECONDS = 2.0  # for how long a journal is checked that was not closed in order; the rest is checked meanwhile
_RUNS = 32  # of so many runs the tokens are kept

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
_LOCK_HINT = "see that the file system of the state directory takes locks (NFS: its lock service); it is retried"
_FOREIGN_HINT = "see what else writes to the state directory: only the daemon may; what can still be read is put back"

_MISSING = "the journal was removed or replaced while it was in use"
_OVERWRITTEN = "the journal was overwritten or cut by another program while it was in use"

How = Literal["new", "ok", "unclean", "copied", "overwritten", "damaged"]


class _Files(NamedTuple):
    """The journal's file and its log, as another program would change them."""

    place: tuple[int, int, int, int]  # device and inode, of both
    size: int
    mtime_ns: int
    log_size: int


class Database:
    """A connection to the file at `path`, for one thread."""

    def __init__(self, path: str, connection: sqlite3.Connection) -> None:
        self.path = path
        self._files: _Files | None = None  # as this process left them
        self._handle = -1  # of the file, on which locks are tried
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
        handle, self._handle = self._handle, -1
        if handle >= 0:  # after the connection: this lets all locks on the file go
            with suppress(OSError):
                os.close(handle)

    def adopt(self, other: Database) -> None:
        """Go on with another connection; the one so far is closed."""
        self.close()
        self._use(other.connection)
        self._files, self._handle = other._files, other._handle

    def stay(self) -> None:
        """From now on nobody else is to remove, replace or write the file: `check_in_place` looks at that."""
        self._files = _files_of(self.path)
        self._handle = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)

    def fault(self) -> str:
        """Return what another program did to the file, in a sentence; empty if nothing.

        Only checkpoints write the database, and only this process takes them. Its log is written all the time, but never
        gets shorter than the size to which SQLite cuts it.
        """
        before = self._files
        if before is None:
            return ""
        try:
            now = _files_of(self.path)
        except FileNotFoundError:
            return _MISSING
        except OSError:  # that it cannot be looked at does not say that it is another
            return ""
        if now.place != before.place:
            return _MISSING
        if (now.size, now.mtime_ns) != (before.size, before.mtime_ns) or now.log_size < before.log_size:
            return _OVERWRITTEN
        if before.log_size < now.log_size and before.log_size < LOG_STEP_BYTES:
            self._files = now._replace(log_size=min(now.log_size, LOG_STEP_BYTES))
        return ""

    @property
    def is_in_place(self) -> bool:
        """True if what is at `path` is what is open here, as it was left."""
        return not self.fault()

    def check_in_place(self) -> None:
        """See whether the file is where it was opened, and as it was left; and whether it can be locked.

        Raises:
            JournalMissing: it is not: what is written here, nobody would find again.
            JournalUnusable: the file system takes no locks.
        """
        if fault := self.fault():
            raise JournalMissing(fault, path=self.path, hint=_FOREIGN_HINT)
        self._try_lock()

    def _try_lock(self) -> None:
        """Try a lock that nobody else wants: where that fails, SQLite would wait for its own for many seconds.

        Raises:
            JournalUnusable: the file system takes no locks.
        """
        if self._handle < 0:
            return
        try:
            fcntl.lockf(self._handle, fcntl.LOCK_SH | fcntl.LOCK_NB, 1)
        except OSError as error:
            message = f"the journal cannot be locked: {error.strerror or error}"
            raise JournalUnusable(message, path=self.path, hint=_LOCK_HINT) from error

    def accept(self, *, epoch: str, run: str, seq: int) -> bool:
        """Go on with a file that another program wrote, if it is sound and has all that was committed; whether it is.

        It is so after a checkpoint that another program took, or a `touch`.

        Raises:
            JournalUnusable: that cannot be told for now.
        """
        try:
            now, before = _files_of(self.path), self._files
            if before is None or now.place != before.place or now.size < before.size or now.log_size < before.log_size:
                return False
            with closing(sqlite3.connect(_address(self.path), uri=True, timeout=_LOCKED_SECONDS)) as other:
                database = Database(self.path, other)
                meta = _meta_of(database)
                if (
                    meta.get("epoch") != epoch
                    or run not in str(meta.get("runs")).split()
                    or _newest_seq(database) != seq
                    or other.execute("PRAGMA integrity_check(1)").fetchone()[0] != "ok"
                ):
                    return False
            self.execute("PRAGMA shrink_memory")  # pages that were read before may be other ones
        except FileNotFoundError:
            return False
        except OSError as error:
            raise JournalUnusable(f"the journal cannot be read: {error.strerror or error}", path=self.path) from error
        except SQLITE_ERRORS as error:
            unusable = _unusable("read", error, self.path, is_ours=True)
            if isinstance(unusable, JournalDamaged):
                return False
            raise unusable from error
        self._files = now._replace(log_size=min(now.log_size, LOG_STEP_BYTES))
        return True

    def checkpoint(self, mode: Literal["PASSIVE", "TRUNCATE"]) -> bool:
        """Move what was logged into the database; return True if that is all of it. What SQLite raises is raised as it is.

        Raises:
            JournalMissing: the file is not as it was left.
            JournalUnusable: the file system takes no locks.
        """
        self.check_in_place()
        try:
            is_busy, logged, moved = self.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        finally:
            before = self._files
            with suppress(OSError):
                now = _files_of(self.path)
                if before is not None and now.place == before.place and now.size >= before.size:
                    self._files = now._replace(log_size=min(now.log_size, LOG_STEP_BYTES))
        return not is_busy and bool(logged == moved)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """What SQLite raises within is raised as `JournalUnusable`."""
        self._try_lock()
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
        """What it means that something could not be written."""
        return _unusable("written", error, self.path, is_ours=True)


@dataclass(frozen=True, slots=True)
class Opened:
    """How a journal was found.

    `new`; `ok`; `unclean` after a power loss; `copied`, since it is not the file that was last written to; `damaged`; or
    `overwritten` by another program while it was in use. All but `ok` have a new epoch.

    `set_aside` is where the journal that was at its path is kept; one of what is sound has taken its place. `seq` is that of
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
        database = Database(path, sqlite3.connect(_address(path), uri=True, timeout=_OPENING_SECONDS))
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
        JournalUnavailable: it cannot be opened, for a reason that may pass.
        JournalUnusable: it is of a newer version of blocksd, or cannot be opened.
    """
    try:
        return _open(path, boot_id)
    except SQLITE_ERRORS as error:
        if not _is_damage(error):  # locked, full, not permitted: the file itself may be sound
            raise _unopened(error, path) from error
    except OSError as error:
        raise _unopened(error, path) from error
    except JournalDamaged:
        pass
    try:
        fresh = f"{path}.salvaged"
        salvage(path, fresh)
        aside = put_in_place(fresh, path, "damaged")
        database, opened = _open(path, boot_id)
    except (*SQLITE_ERRORS, OSError) as error:
        raise _unopened(error, path) from error
    return database, replace(opened, how="damaged", set_aside=aside)


def rescue(database: Database, boot_id: str, *, seq: int) -> Opened:
    """Put a journal in the place of this one, and go on there, in a new epoch.

    One that was removed or replaced is put back whole; of one that was damaged or overwritten, what is sound. What is in
    its place is kept aside. `seq` is the highest that is in force.

    Raises:
        JournalUnusable: it could not be done.
    """
    path, fault = database.path, database.fault()
    fresh = f"{path}.rescued"
    try:
        os.makedirs(os.path.dirname(path) or ".", mode=0o700, exist_ok=True)
        is_whole = fault == _MISSING and _copy(database, fresh)
        if not is_whole:
            salvage(path, fresh, database.connection, newest=seq)
        aside = put_in_place(fresh, path, "replaced" if fault == _MISSING else "damaged")
        other, opened = _open(path, boot_id)
    except SQLITE_ERRORS as error:
        raise _unusable("put back into its place", error, path) from error
    except OSError as error:
        why = error.strerror or error
        raise JournalUnusable(f"the journal cannot be put back into its place: {why}", path=path) from error
    database.adopt(other)
    how: How = opened.how if is_whole else "overwritten" if fault else "damaged"
    return replace(opened, how=how, set_aside=aside)


def _copy(database: Database, fresh: str) -> bool:
    """Copy a database whose file may be gone; return True if the copy is sound."""
    remove(fresh)
    try:
        with closing(sqlite3.connect(fresh)) as copy:
            os.chmod(fresh, 0o600)
            database.connection.backup(copy)
            return bool(copy.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok")
    except SQLITE_ERRORS as error:
        if not _is_damage(error):
            raise
        return False


def _open(path: str, boot_id: str) -> tuple[Database, Opened]:
    finish(path)
    # SQLite does not say why a file cannot be opened, and the system does.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    if not os.stat(path).st_size and _size_of(f"{path}-wal"):  # SQLite would remove the log, and begin with nothing
        raise JournalDamaged("the journal is empty, and its log is not", path=path)
    database = Database(path, sqlite3.connect(path, isolation_level=None, timeout=_OPENING_SECONDS))
    try:
        os.chmod(path, 0o600)
        opened = _begin(database, boot_id)
        database.execute(f"PRAGMA busy_timeout={int(_LOCKED_SECONDS * 1000)}")
        # A log that was long is cut when it begins anew, so that its size tells how much is in it.
        database.execute(f"PRAGMA journal_size_limit={LOG_STEP_BYTES}")
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


def _address(path: str) -> str:
    return f"{pathlib.Path(path).absolute().as_uri()}?mode=ro"


def _files_of(path: str) -> _Files:
    file, log = os.stat(path), os.stat(f"{path}-wal")
    return _Files((file.st_dev, file.st_ino, log.st_dev, log.st_ino), file.st_size, file.st_mtime_ns, log.st_size)


def _size_of(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


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


def _unopened(error: Exception, path: str) -> JournalUnusable:
    """Why the journal cannot be opened; `JournalUnavailable` if it is worth another try."""
    if isinstance(error, OSError):
        passes, why = error.errno in _PASSING_ERRNOS, error.strerror or str(error)
    else:
        passes, why = ((getattr(error, "sqlite_errorcode", None) or 0) & 0xFF) in _PASSING, str(error)
    kind = JournalUnavailable if passes else JournalUnusable
    return kind(f"the journal cannot be opened: {why}", path=path)
