"""The lock, the record and the control socket that a running daemon keeps in its state directory."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from blocksd.errors import AlreadyRunning, BlocksdError, JournalUnusable
from blocksd.service.control import Control
from blocksd.service.lock import lock_state
from blocksd.settings import record

if TYPE_CHECKING:
    from collections.abc import Callable

    from blocksd.monitoring.events import Notices
    from blocksd.service.control import Question


class StateDirectory:
    """Owns the state directory. Files that are removed while the daemon runs are made again, the lock first.

    While another daemon holds the lock, nothing is written there.
    """

    def __init__(self, path: str, sink: Callable[[Question], object], notices: Notices) -> None:
        """Lock the state directory, and make it if there is none. Questions from the control socket go to `sink`.

        Raises:
            AlreadyRunning, Misconfigured, StateUnusable: see `lock_state`.
        """
        self._path = path
        self._notices = notices
        self._control = Control(path, sink)
        self._lock = lock_state(path)
        self._record: dict[str, str] | None = None
        self._reported = ""  # why there is no control socket
        self.owner = ""  # the daemon that owns the directory now, in a sentence; empty: this one

    @property
    def lock_error(self) -> str:
        """The reason why the file system takes no locks; empty: it takes them."""
        return self._lock.unsupported

    def publish(self, *, folder: str, namespace: str, redis: str) -> None:
        """Record what this daemon serves, for commands and clients.

        Raises:
            OSError: the record cannot be written.
        """
        self._record = {"folder": folder, "namespace": namespace, "redis": redis}
        record.write(self._path, **self._record)

    def claim(self) -> None:
        """Check that this daemon holds the lock; take it again if its file was removed.

        Raises:
            JournalUnusable: another daemon holds it, or it cannot be taken: nothing may be written there.
        """
        if self._is_ours():
            self.owner = ""
            return
        try:
            taken = lock_state(self._path)
        except AlreadyRunning as error:
            self.owner = error.message
            raise JournalUnusable(
                f"the state directory was removed, and another daemon owns it now: {error.message}", path=self._path
            ) from None
        except BlocksdError as error:
            raise JournalUnusable(error.message, path=self._path) from None
        self._lock.release()
        self._lock = taken
        self.owner = ""
        self._notices.post(
            f"the lock in the state directory {self._path} was removed while the daemon ran: it was taken again",
            "error",
        )

    def restore(self) -> None:
        """Make again what was removed; once a second. Where no control socket can be made, go on without."""
        try:
            self.claim()
        except JournalUnusable as error:
            self._notices.post_rarely("the state directory", error.message)
            return
        if self._record is not None and not record.is_there(self._path):
            with suppress(OSError):  # a full disk, for example; the next second tries again
                record.write(self._path, **self._record)
        if not self._control.is_in_place:
            self._listen()

    def stop_listening(self) -> None:
        self._control.stop()

    def release(self) -> None:
        """Remove the record, and release the lock."""
        if self._record is not None and not self.owner:
            record.remove(self._path)
        self._lock.release()

    def _is_ours(self) -> bool:
        """Return True if the lock file in the directory is the one that is held, or that cannot be known."""
        held = self._lock.status
        with suppress(OSError):
            there = record.inode_of(os.path.join(self._path, "lock"))
            return held is not None and there == (held.st_dev, held.st_ino)
        return True

    def _listen(self) -> None:
        reported = ""
        try:
            self._control.stop()
            self._control.start()
        except OSError as error:
            reported = f"no control socket can be made in {self._path} ({error.strerror or error}): 'blocksd status' gets no answer"
        if reported and reported != self._reported:
            self._notices.post(reported, "warning")
        self._reported = reported
