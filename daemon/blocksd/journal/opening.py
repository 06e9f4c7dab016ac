"""Opens a journal, brings it up to date, and makes another of it when it is damaged or gone."""

from __future__ import annotations

import errno
import os
import sqlite3
import time
import uuid
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from blocksd.errors import JournalDamaged, JournalUnusable
from blocksd.journal.database import (
    LOCKED_SECONDS,
    LOG_STEP_BYTES,
    MISSING,
    Database,
    meta_of,
    newest_seq,
    number_or_zero,
    quick_check,
    read_only,
)
from blocksd.journal.failures import is_damage, unopened, unusable
from blocksd.journal.identity import identity_of
from blocksd.journal.salvage import salvage
from blocksd.journal.schema import FINISHED, SCHEMA, SQLITE_ERRORS, migrate
from blocksd.journal.swap import finish, put_in_place, remove

if TYPE_CHECKING:
    from collections.abc import Mapping

_IN_FORCE_SECONDS = 0.2
_OPENING_SECONDS = 5.0  # for how long a lock of another process is waited for
_CHECK_SECONDS = 2.0  # for how long a journal is checked that was not closed in order; the rest is checked meanwhile
_ROOM_BYTES = 64 * 1024  # twice what the index of a log takes that is not longer than it should be
_RUNS = 32  # of so many runs the tokens are kept

How = Literal["new", "ok", "unclean", "copied", "overwritten", "damaged"]


@dataclass(frozen=True, slots=True)
class Opened:
    """The state in which a journal was found.

    `new`; `ok`; `unclean` after a power loss; `copied`, since it is not the file that was last written to; `damaged`; or
    `overwritten` by another program while it was in use. All but `ok` have a new epoch.

    `set_aside` is where the journal that was at its path is kept; one of what is sound has taken its place. `seq` is that of
    the newest revision, `folder` the one whose revisions they are, if that is known. `runs` are the tokens of the last
    runs that wrote to it, this one's the last. Up to the seq `unchecked` revisions have no checksum. If it `is_pending`, its
    daemon was ended before what it had done last was in force: its next start brings that into force, or takes it back.
    `generation` is that of the leader whose journal it is, and `newest_generation` the highest that it has met. `ended` is
    when the run before this one ended, in seconds since 1970, or, after one that was killed, when it wrote last; 0.0: unknown.
    """

    how: How
    epoch: str
    seq: int
    folder: str | None = None
    set_aside: str | None = None
    runs: tuple[str, ...] = ()
    unchecked: int = 0
    is_pending: bool = False
    generation: int = 0
    newest_generation: int = 0
    ended: float = 0.0


def _generations(meta: Mapping[str, object]) -> tuple[int, int]:
    own = number_or_zero(meta.get("generation"))
    return own, max(own, number_or_zero(meta.get("newest_generation")))


def open_to_read(path: str) -> tuple[Database, Opened]:
    """Open an existing journal for reading. Raise JournalUnusable if there is none, or it cannot be read.

    What was replied to just now is in force in a moment, which is waited for.
    """
    try:
        database = Database(path, sqlite3.connect(read_only(path), uri=True, timeout=_OPENING_SECONDS))
    except SQLITE_ERRORS as error:
        raise unusable("read", error, path) from error
    try:
        with database.reading:
            (schema,) = database.execute("PRAGMA user_version").fetchone()
            if schema != SCHEMA:
                raise JournalUnusable(f"the journal is of schema {schema}, not {SCHEMA}", path=path)
            until = time.monotonic() + _IN_FORCE_SECONDS
            while (pending := _is_pending(database)) and time.monotonic() < until:
                time.sleep(0.002)
            seq = newest_seq(database)
            meta = meta_of(database)
    except JournalUnusable:
        database.close()
        raise
    unchecked = number_or_zero(meta.get("unchecked"))
    return database, Opened("ok", str(meta.get("epoch")), seq, None, None, (), unchecked, pending, *_generations(meta))


def _is_pending(database: Database) -> bool:
    return database.execute("SELECT 1 FROM prepared WHERE seq < ?", (FINISHED,)).fetchone() is not None


def open_to_write(path: str, boot_id: str) -> tuple[Database, Opened]:
    """Open a journal, brought up to date, or make one; `boot_id` identifies this boot of the machine.

    Raises:
        JournalUnavailable: it cannot be opened, for a reason that may pass.
        JournalUnusable: it is of a newer version of blocksd, or cannot be opened.
    """
    try:
        return _open(path, boot_id)
    except SQLITE_ERRORS as error:
        if not is_damage(error):  # locked, full, not permitted: the file itself may be sound
            raise unopened(error, path) from error
    except OSError as error:
        raise unopened(error, path) from error
    except JournalDamaged:
        pass
    try:
        fresh = f"{path}.salvaged"
        salvage(path, fresh)
        aside = put_in_place(fresh, path, "damaged")
        database, opened = _open(path, boot_id)
    except (*SQLITE_ERRORS, OSError) as error:
        raise unopened(error, path) from error
    return database, replace(opened, how="damaged", set_aside=aside)


def rescue(database: Database, boot_id: str, *, seq: int) -> Opened:
    """Put a journal in the place of this one, and go on there, in a new epoch.

    One that was removed or replaced is put back whole; of one that was damaged or overwritten, what is sound. What is in
    its place is kept aside. `seq` is the highest that is in force. Raise JournalUnusable if it could not be done.
    """
    path, fault = database.path, database.fault()
    fresh = f"{path}.rescued"
    try:
        os.makedirs(os.path.dirname(path) or ".", mode=0o700, exist_ok=True)
        is_whole = fault == MISSING and _copy(database, fresh)
        if not is_whole:
            salvage(path, fresh, database.connection, newest=seq)
        aside = put_in_place(fresh, path, "replaced" if fault == MISSING else "damaged")
        other, opened = _open(path, boot_id)
    except SQLITE_ERRORS as error:
        raise unusable("put back into its place", error, path) from error
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
        if not is_damage(error):
            raise
        return False


def _check_room(path: str) -> None:
    """Check that there is room for SQLite's index of the log, before it is opened. Raise OSError if there is none.

    SQLite makes that file anew, gives it one byte for each page, and maps it into memory. If the disk has no block for the rest
    of a page, as blocks may be smaller than that, the kernel ends the process with SIGBUS.
    """
    trial = f"{path}.room"
    handle = os.open(trial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        if os.write(handle, bytes(_ROOM_BYTES)) < _ROOM_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
    finally:
        os.close(handle)
        os.unlink(trial)


def _open(path: str, boot_id: str) -> tuple[Database, Opened]:
    _check_room(path)
    finish(path)
    # SQLite does not say why a file cannot be opened, and the system does.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    if not os.stat(path).st_size and _size_of(f"{path}-wal"):  # SQLite would remove the log, and begin with nothing
        raise JournalDamaged("the journal is empty, and its log is not", path=path)
    database = Database(path, sqlite3.connect(path, isolation_level=None, timeout=_OPENING_SECONDS))
    try:
        os.chmod(path, 0o600)
        opened = _begin(database, boot_id)
        database.execute(f"PRAGMA busy_timeout={int(LOCKED_SECONDS * 1000)}")
        # A log that was long is cut when it begins anew, so that its size tells how much is in it.
        database.execute(f"PRAGMA journal_size_limit={LOG_STEP_BYTES}")
        database.watch_file()
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
        with database.transaction:
            migrate(database.connection, schema)
            meta = meta_of(database)
            is_new = "epoch" not in meta
            if not is_new and meta.get("clean") != 1:
                _check(database)
            # After a power loss the last revisions may be missing, and in a copy all that were written since it was made:
            # their numbers would be given out again. In another epoch they are other numbers.
            is_lost = not is_new and meta.get("clean") != 1 and meta.get("boot_id") != boot_id
            is_copy = meta.get("identity") not in (None, identity)
            ended = meta.get("ended", 0.0) if meta.get("clean") == 1 else _written_last(database)
            folder = str(meta["folder"]) if "folder" in meta else None
            epoch = uuid.uuid4().hex if is_new or is_lost or is_copy else str(meta["epoch"])
            runs = (*str(meta.get("runs", "")).split(), uuid.uuid4().hex[:16])[-_RUNS:]
            facts = {"epoch": epoch, "boot_id": boot_id, "clean": 0, "identity": identity, "runs": " ".join(runs)}
            database.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", facts.items())
    except sqlite3.OperationalError as error:
        if schema == SCHEMA and getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR:
            # A table is not as it was made.
            raise JournalDamaged(f"the journal is damaged: {error}", path=database.path) from error
        raise
    database.execute("PRAGMA synchronous=NORMAL")
    how: How = "new" if is_new else "copied" if is_copy else "unclean" if is_lost else "ok"
    unchecked = number_or_zero(meta.get("unchecked"))
    own, newest = _generations(meta)
    ended = ended if isinstance(ended, float) else 0.0
    return Opened(how, epoch, newest_seq(database), folder, None, runs, unchecked, False, own, newest, ended)


def _written_last(database: Database) -> float:
    """Return when the newest revision was made, in seconds since 1970; 0.0 if there is none, or it does not tell."""
    row = database.execute("SELECT at FROM revisions ORDER BY seq DESC LIMIT 1").fetchone()
    with suppress(ValueError, TypeError):
        return datetime.fromisoformat(row[0]).timestamp() if row is not None else 0.0
    return 0.0


def _check(database: Database) -> None:
    """Check, after a stop out of order, that the journal is sound: its heads, which who loads them checks too, and all of it.

    Raise JournalDamaged if it is not.
    """
    (odd,) = database.execute(
        "SELECT EXISTS (SELECT * FROM heads WHERE typeof(label) <> 'text' "
        "OR typeof(seq) <> 'integer' OR seq < 1 OR typeof(version) <> 'integer' OR version < 1 "
        "OR typeof(path) NOT IN ('text', 'null') OR typeof(agents) NOT IN ('integer', 'null') "
        "OR typeof(entries) NOT IN ('integer', 'null'))"
    ).fetchone()
    found = "its heads are not what was written"
    if not odd:
        found = quick_check(database.connection, _CHECK_SECONDS) or "ok"
    if found != "ok":
        raise JournalDamaged(f"the journal is damaged: {found}", path=database.path)


def _size_of(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0
