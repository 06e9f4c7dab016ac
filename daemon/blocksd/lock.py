"""The right to be the one daemon of a directory, and who has it."""

from __future__ import annotations

import fcntl
import os
import re
from contextlib import suppress

from blocksd.errors import AlreadyRunning, Misconfigured


class Lock:
    """The right to be the one daemon of a directory, for as long as this process lives."""

    def __init__(self, path: str, what: str, *, key: str) -> None:
        """Lock the file or directory at `path`; `what` names it in the error, `key` is the setting it comes from.

        Raises:
            AlreadyRunning: another process has it. Facts: `pid`, if it can be told.
            Misconfigured: it cannot be opened.
        """
        try:
            flags = os.O_RDONLY | os.O_CLOEXEC
            is_directory = os.path.isdir(path)
            self._handle = os.open(path, flags | (os.O_DIRECTORY if is_directory else os.O_CREAT), 0o600)
        except OSError as error:
            raise Misconfigured(f"{path} cannot be opened: {error.strerror}", key=key) from None
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = holder(os.fstat(self._handle))
            os.close(self._handle)
            who = f" with pid {pid}" if pid else ""
            raise AlreadyRunning(f"the {what} is in the charge of another daemon{who}", pid=pid) from None

    def release(self) -> None:
        os.close(self._handle)


def holder(status: os.stat_result) -> int | None:
    """The process that holds the lock on a file, if it can be told: the kernel lists all locks by inode."""
    with suppress(OSError), open("/proc/locks", encoding="ascii") as locks:
        for line in locks:
            found = re.search(r"FLOCK\s+ADVISORY\s+WRITE (\d+) \w+:\w+:(\d+) ", line)
            if found and int(found[2]) == status.st_ino:
                return int(found[1])
    return None
