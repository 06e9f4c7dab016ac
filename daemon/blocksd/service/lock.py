"""The right to be the one daemon of a directory, and who has it."""

from __future__ import annotations

import errno
import fcntl
import os
import re
from contextlib import suppress

from blocksd.errors import AlreadyRunning, Misconfigured, StateUnusable

_UNSUPPORTED = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EIO)
"""How file systems without locks say so, those of the network among them."""

PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.EINTR)
"""Errors that may pass by themselves, so that a start is worth another try."""


class Lock:
    """The right to be the one daemon of a file or directory, for as long as this process lives."""

    def __init__(self, what: str) -> None:
        """`what` names it in errors."""
        self._what = what
        self._handle = -1
        self.unsupported = ""  # why the file system takes no locks; empty: it does

    def take(self, handle: int) -> None:
        """Lock the file or directory of a handle, and keep the handle; what was locked before is let go.

        Where there are no locks, it is taken all the same, and `unsupported` says why that proves nothing.

        Raises:
            AlreadyRunning: another process has it; what was locked before still is. Facts: `pid`, if it can be told.
        """
        if self._is_held(handle):  # a second lock on it would be refused because of the first, which is our own
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
        """Lock the directory of a handle, which may be one that only names it (O_PATH) and stays the caller's.

        Raises:
            AlreadyRunning: another process has it; what was locked before still is.
            OSError: it cannot be opened.
        """
        self.take(os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=place))

    def release(self) -> None:
        handle, self._handle = self._handle, -1
        if handle >= 0:
            with suppress(OSError):  # closed it is, whatever close says of the file
                os.close(handle)

    def _is_held(self, handle: int) -> bool:
        """Return True if what is locked is the file or directory of this handle, which may have been away meanwhile."""
        held = self.status
        return held is not None and os.path.samestat(held, os.fstat(handle))

    @property
    def status(self) -> os.stat_result | None:
        """The status of what is locked; None when nothing is."""
        with suppress(OSError):
            return os.fstat(self._handle)
        return None


def lock_state(state: str) -> Lock:
    """The lock of a state directory, which is made if there is none.

    Raises:
        AlreadyRunning: another process has it.
        Misconfigured: there can be no state directory, for a reason that will not pass.
        StateUnusable: there is none, for a reason that may pass.
    """
    lock = Lock(f"state directory {state}")
    try:
        os.makedirs(state, mode=0o700, exist_ok=True)
        lock.take(os.open(os.path.join(state, "lock"), os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise state_error(state, error) from error
    return lock


def state_error(state: str, error: OSError) -> Misconfigured | StateUnusable:
    """What an error of the operating system on the state directory means."""
    path = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else state
    message = f"the state directory {state} cannot be used: {path}: {error.strerror or error}"
    if error.errno in PASSING:
        return StateUnusable(message, path=path, errno=error.errno)
    return Misconfigured(message, key="state_dir")


def holder(status: os.stat_result) -> int | None:
    """The process that holds the lock on a file, if it can be told: the kernel lists all locks by inode."""
    with suppress(OSError), open("/proc/locks", encoding="ascii") as locks:
        for line in locks:
            found = re.search(r"FLOCK\s+ADVISORY\s+WRITE (\d+) \w+:\w+:(\d+) ", line)
            if found and int(found[2]) == status.st_ino:
                return int(found[1])
    return None
