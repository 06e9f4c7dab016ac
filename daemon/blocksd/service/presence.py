"""What a running daemon keeps in its state directory: the lock, its record, the control socket."""

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
    from blocksd.service.lock import Lock


class Presence:
    """Makes the daemon known by its state directory. What is removed while it runs is made again, the lock first.

    As long as another daemon has the lock, nothing is written there.
    """

    def __init__(self, state: str, sink: Callable[[Question], object], notices: Notices) -> None:
        """Lock the state directory, which is made if there is none. `sink` is passed the questions that are asked.

        Raises:
            AlreadyRunning, Misconfigured, StateUnusable: see `lock_state`.
        """
        self._state = state
        self._notices = notices
        self._control = Control(state, sink)
        self._lock: Lock = lock_state(state)
        self._record: dict[str, str] | None = None
        self._said = ""  # why nobody can ask
        self.taken_by_another = ""  # why nothing is written here: another daemon has the lock that is there now

    @property
    def unsupported(self) -> str:
        """Why the file system takes no locks; empty: it does."""
        return self._lock.unsupported

    def write(self, *, folder: str, namespace: str, redis: str) -> None:
        """Say what this daemon serves.

        Raises:
            OSError: it cannot be written.
        """
        self._record = {"folder": folder, "namespace": namespace, "redis": redis}
        record.write(self._state, **self._record)

    def claim(self) -> None:
        """See that the lock in the directory is ours; take it again when it was removed.

        Raises:
            JournalUnusable: it cannot be taken, or another daemon has it: nothing may be written there.
        """
        if self._is_ours():
            self.taken_by_another = ""
            return
        try:
            taken = lock_state(self._state)
        except AlreadyRunning as error:
            self.taken_by_another = error.message
            raise JournalUnusable(
                f"the state directory was removed, and is another daemon's now: {error.message}", path=self._state
            ) from None
        except BlocksdError as error:
            raise JournalUnusable(error.message, path=self._state) from None
        self._lock.release()
        self._lock = taken
        self.taken_by_another = ""
        self._notices.post(
            f"the lock in the state directory {self._state} was removed while the daemon ran: it was taken again",
            "error",
        )

    def keep(self) -> None:
        """Once a second: make what is not there, or not there any more; where there can be no socket, go on without."""
        try:
            self.claim()
        except JournalUnusable as error:
            self._notices.post_rarely("the state directory", error.message)
            return
        if self._record is not None and not record.is_there(self._state):
            with suppress(OSError):  # full, say: it is tried again
                record.write(self._state, **self._record)
        if not self._control.is_in_place:
            self._listen()

    def stop_listening(self) -> None:
        """Nobody can ask any more."""
        self._control.stop()

    def leave(self) -> None:
        """Remove the record, and give the lock up."""
        if self._record is not None and not self.taken_by_another:
            record.remove(self._state)
        self._lock.release()

    def _is_ours(self) -> bool:
        """Return True if the lock that is held is that of the directory; also if that cannot be told."""
        held = self._lock.status
        try:
            there = os.stat(os.path.join(self._state, "lock"))
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True
        return held is not None and (held.st_dev, held.st_ino) == (there.st_dev, there.st_ino)

    def _listen(self) -> None:
        said = ""
        try:
            self._control.stop()
            self._control.start()
        except OSError as error:
            said = f"there can be no control socket in {self._state} ({error.strerror or error}): nobody can ask"
        if said and said != self._said:
            self._notices.post(said, "warning")
        self._said = said
