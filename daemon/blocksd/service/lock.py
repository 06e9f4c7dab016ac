"""Locks that make a daemon the only one of its directory, and the pid that holds one."""

from __future__ import annotations

import errno
import fcntl
import os
import re
from contextlib import suppress

from blocksd.errors import AlreadyRunning, Misconfigured, StateUnusable

_UNSUPPORTED = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EIO)
"""Errors of file systems without locks, network file systems among them."""

TRANSIENT_ERRORS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EIO,
    errno.ENOMEM,
    errno.EMFILE,
    errno.ENFILE,
    errno.ESTALE,
    errno.EINTR,
)
"""Errors that may pass, so that another start is worth a try."""


class Lock:
    """An exclusive lock on a file or directory. The kernel releases it when this process ends."""

    def __init__(self, what: str) -> None:
        """Make a lock that is not held yet; `what` names it in errors."""
        self._what = what
        self._handle = -1
        self.unsupported = ""  # why the file system takes no locks; empty: it does

    def take(self, handle: int) -> None:
        """Lock the file or directory of a handle, and keep the handle in place of the one before.

        On a file system without locks the call succeeds, and `unsupported` says why the lock proves nothing.

        Raises:
            AlreadyRunning: another process has it; the lock before is still held. Facts: `pid`, None if unknown.
        """
        if self._is_held(handle):  # flock would refuse a second lock because of the first
            os.close(handle)
            return
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            unsupported = ""
        except BlockingIOError:
            pid = holder(os.fstat(handle))
            os.close(handle)
            who = f" with pid {pid}" if pid else ""
            raise AlreadyRunning(f"the {self._what} is served by another daemon{who}", pid=pid) from None
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                os.close(handle)
                raise
            unsupported = error.strerror or str(error)
        self.release()
        self._handle = handle
        self.unsupported = unsupported

    def take_directory(self, place: int) -> None:
        """Lock the directory of a handle, which may be of O_PATH, and which the caller keeps.

        Raises:
            AlreadyRunning: another process has it; the lock before is still held.
            OSError: it cannot be opened.
        """
        self.take(os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=place))

    def release(self) -> None:
        handle, self._handle = self._handle, -1
        if handle >= 0:
            with suppress(OSError):  # the handle is closed even if close reports an error of the file
                os.close(handle)

    def _is_held(self, handle: int) -> bool:
        """Return True if this lock is on the file or directory of the handle."""
        held = self.status
        return held is not None and os.path.samestat(held, os.fstat(handle))

    @property
    def status(self) -> os.stat_result | None:
        """The status of the locked file or directory; None: none is locked."""
        with suppress(OSError):
            return os.fstat(self._handle)
        return None


def lock_state(state: str) -> Lock:
    """Lock a state directory, and make it if there is none.

    Raises:
        AlreadyRunning: another process has it.
        Misconfigured: there can be no state directory, and a retry would not help.
        StateUnusable: there is none for now.
    """
    lock = Lock(f"state directory {state}")
    try:
        os.makedirs(state, mode=0o700, exist_ok=True)
        lock.take(os.open(os.path.join(state, "lock"), os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise state_error(state, error) from error
    return lock


def state_error(state: str, error: OSError) -> Misconfigured | StateUnusable:
    """Return an error of the state directory for one of the operating system."""
    path = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else state
    message = f"the state directory {state} cannot be used: {path}: {error.strerror or error}"
    if error.errno in TRANSIENT_ERRORS:
        return StateUnusable(message, path=path, errno=error.errno)
    return Misconfigured(message, key="state_dir", errno=error.errno)


def holder(status: os.stat_result) -> int | None:
    """Return the pid that holds the lock on a file, if the kernel lists it (proc_locks(5))."""
    with suppress(OSError), open("/proc/locks", encoding="ascii") as locks:
        for line in locks:
            found = re.search(r"FLOCK\s+ADVISORY\s+WRITE (\d+) \w+:\w+:(\d+) ", line)
            if found and int(found[2]) == status.st_ino:
                return int(found[1])
    return None
