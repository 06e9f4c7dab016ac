"""What errors of SQLite and of files say of a journal."""

from __future__ import annotations

import errno
import sqlite3

from blocksd.errors import JournalDamaged, JournalUnavailable, JournalUnusable

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
