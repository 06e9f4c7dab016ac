"""Tells whether a journal's file is the one that was opened, and as this process left it."""

from __future__ import annotations

import ctypes
import fcntl
import os
from contextlib import suppress
from typing import NamedTuple

from blocksd.errors import JournalMissing, JournalUnusable

LOG_STEP_BYTES = 4 * 1024 * 1024  # by which the log may grow before it is moved; to this it is cut when it begins anew

MISSING = "the journal was removed or replaced while it was in use"
_OVERWRITTEN = "the journal was overwritten or cut by another program while it was in use"
_FOREIGN_HINT = "see what else writes to the state directory: only the daemon may; what can still be read is put back"
_LOCK_HINT = "see that the file system of the state directory takes locks (NFS: its lock service); it is retried"

_AT_FDCWD = -100
_STATX_BTIME = 0x800
_STRUCT_SIZE = 256
_BTIME_AT = 80  # struct statx: the seconds, and after them the nanoseconds

_libc = ctypes.CDLL(None, use_errno=True)


class State(NamedTuple):
    """What another program would change about the file and its log."""

    place: tuple[int, int, int, int]  # device and inode, of both
    size: int
    mtime_ns: int
    log_size: int


class JournalFile:
    """Watches the file of an open journal, which no other program may remove, replace or write.

    Only checkpoints write the database, and only this process takes them. Its log is written all the time, but never gets
    shorter than the size to which SQLite cuts it.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._left = _state_of(path)  # as this process left it
        self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # on which locks are tried

    def close(self) -> None:
        """Close the handle, which lets all locks on the file go: the connection is closed before."""
        with suppress(OSError):
            os.close(self._handle)

    def fault(self) -> str:
        """Return what another program did to the file, in a sentence; empty if nothing."""
        left = self._left
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
            self.leave(now)
        return ""

    def check(self) -> None:
        """Check that the file is in its place, as it was left, and can be locked: else SQLite would wait for many seconds.

        Raises:
            JournalMissing: it is not: nobody would find again what is written to it.
            JournalUnusable: the file system takes no locks.
        """
        if fault := self.fault():
            raise JournalMissing(fault, path=self.path, hint=_FOREIGN_HINT)
        self.try_lock()

    def try_lock(self) -> None:
        """Try a lock that no other process wants. Raise JournalUnusable if the file system takes no locks."""
        try:
            fcntl.lockf(self._handle, fcntl.LOCK_SH | fcntl.LOCK_NB, 1)
        except OSError as error:
            message = f"the journal cannot be locked: {error.strerror or error}"
            raise JournalUnusable(message, path=self.path, hint=_LOCK_HINT) from error

    def written(self) -> None:
        """Note that this process has just written to the file, as a checkpoint does."""
        with suppress(OSError):
            now = _state_of(self.path)
            if now.place == self._left.place and now.size >= self._left.size:
                self.leave(now)

    def grown(self) -> State | None:
        """Return the present state if it may follow from the one that was left, by a checkpoint of another process."""
        now, left = _state_of(self.path), self._left
        may_follow = now.place == left.place and now.size >= left.size and now.log_size >= left.log_size
        return now if may_follow else None

    def leave(self, now: State) -> None:
        """Take this state for the one in which this process left the file."""
        self._left = now._replace(log_size=min(now.log_size, LOG_STEP_BYTES))


def _state_of(path: str) -> State:
    file, log = os.stat(path), os.stat(f"{path}-wal")
    return State((file.st_dev, file.st_ino, log.st_dev, log.st_ino), file.st_size, file.st_mtime_ns, log.st_size)


def identity_of(path: str) -> str:
    """Return a text that stays the same for a file, wherever it is moved to on its file system, and that no copy of it has.

    It is the number of its inode and when that was made: a number is given out again, its birth is not. Where a file
    system keeps no births (NFS, some overlays), the device takes their place, and a copy that got the number of a file
    that was removed before cannot be told from it. Raise OSError if there is no such file, or it cannot be looked at.
    """
    status = os.stat(path)
    birth = _birth_of(path)
    return f"{status.st_ino}@{status.st_dev}" if birth is None else f"{status.st_ino}+{birth}"


def _birth_of(path: str) -> int | None:
    """Return the time at which a file was made, in nanoseconds since 1970; None where the system does not say."""
    statx = getattr(_libc, "statx", None)  # glibc has it since 2.28
    if statx is None:
        return None
    answer = ctypes.create_string_buffer(_STRUCT_SIZE)
    if statx(_AT_FDCWD, os.fsencode(path), 0, _STATX_BTIME, answer) != 0:
        return None
    if not ctypes.c_uint32.from_buffer(answer).value & _STATX_BTIME:
        return None
    seconds = ctypes.c_int64.from_buffer(answer, _BTIME_AT).value
    nanoseconds = ctypes.c_uint32.from_buffer(answer, _BTIME_AT + 8).value
    return seconds * 1_000_000_000 + nanoseconds or None
