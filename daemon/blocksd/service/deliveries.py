"""Has the inboxes read, as fast as requests are carried out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blocksd.model.problem import INBOX, Problem
from blocksd.requests.consumer import Refused

if TYPE_CHECKING:
    from blocksd.core.core import Core
    from blocksd.monitoring.events import Notices
    from blocksd.requests.consumer import Readable, Reader
    from blocksd.requests.request import Entry

_UNREAD_TICKS = 3  # for so long inboxes may be unreadable, when Redis has only just come back


class Deliveries:
    """What the reader of inboxes passes on, put where requests wait; and what it is told in return.

    `put` and `note` take what it has put into its sink.
    """

    def __init__(self, reader: Reader, core: Core, notices: Notices) -> None:
        self._reader = reader
        self._core = core
        self._notices = notices
        self._followed: tuple[frozenset[str], int] | None = None
        self._was_read = False  # entries have come in, and the reader waits to be told to go on
        self._obstacle: str | None = None  # to reading inboxes
        self._obstacle_ticks = 0
        self._crowded: frozenset[str] = frozenset()  # as the reader knows them
        self._was_in_sync = core.projector.is_in_sync
        self._refused: dict[str, Refused] = {}  # by actor, since it was last logged

    def start(self) -> None:
        self._reader.start()

    def stop(self) -> None:
        """Have the reader end; `join` waits for it."""
        self._reader.stop()

    def join(self) -> None:
        self._reader.join()

    @property
    def is_reading(self) -> bool:
        """Whether the reader lives."""
        return self._reader.is_alive()

    def put(self, news: list[Entry] | Refused) -> None:
        """Entries were read, or were refused unseen."""
        if isinstance(news, Refused):
            self._refused[news.actor] = news.added_to(self._refused.get(news.actor))
            self._core.inbox.refused.update(news.counts())
        else:
            self._was_read = True
            self._core.inbox.add(news)

    def note(self, readable: Readable) -> None:
        """Whether inboxes can be read has changed."""
        self._obstacle = readable.obstacle

    def direct(self) -> None:
        """Once a round: tell the reader whose inboxes to read, and when to go on."""
        core = self._core
        if core.projector.is_in_sync != self._was_in_sync:
            self._was_in_sync = core.projector.is_in_sync
            if self._was_in_sync:  # Redis was lost: replies may be, too, and this may be another server
                self._reader.reconnect()
        known, restarts = core.state.attachments.known, core.inbox.restarts
        if self._followed is None or self._followed[0] is not known or self._followed[1] != restarts:
            self._followed = (known, restarts)
            self._reader.follow(known, restarts)
        if core.inbox.crowded != self._crowded:
            self._crowded = core.inbox.crowded
            self._reader.hold_back(self._crowded)
        if self._was_read and not core.inbox.is_full:
            self._was_read = False
            self._reader.resume()
        if core.dropped:
            for unusable in core.dropped:
                one = Refused(unusable.entry.actor, dropped=1)
                self._refused[one.actor] = one.added_to(self._refused.get(one.actor))
            core.inbox.refused["dropped"] += len(core.dropped)
            core.dropped.clear()

    def _say_refused(self) -> None:
        """Log what was refused, of each actor once a minute at most, and then all of it."""
        for actor, refused in list(self._refused.items()):
            if self._notices.post_rarely(f"an inbox {actor}", refused.sentence()):
                del self._refused[actor]

    def keep(self) -> None:
        """Once a second: see whether requests are read while Redis is there. That Redis is away, others say."""
        self._reader.start()
        self._say_refused()
        problems = self._core.problems
        if self._obstacle is None:
            self._obstacle_ticks = 0
            problems.remove(INBOX)
            return
        self._obstacle_ticks = self._obstacle_ticks + 1 if self._core.projector.is_in_sync else 0
        if self._obstacle_ticks >= _UNREAD_TICKS:
            hint = "see 'blocksd acl' for what the daemon must be allowed; it is tried again"
            message = f"no requests can be read: {self._obstacle}"
            problems.set(Problem(INBOX, "unavailable", message, hint))
