"""Passes requests from the inbox reader to the core, no faster than the core executes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blocksd.model.problem import INBOX, Problem
from blocksd.requests.consumer import Refused

if TYPE_CHECKING:
    from blocksd.core.core import Core
    from blocksd.monitoring.events import Notices
    from blocksd.requests.consumer import Consumer, Readable
    from blocksd.requests.request import Entry

_GRACE_TICKS = 3  # how long inboxes may be unreadable after Redis came back


class InboxFeed:
    """Connects the reader of inboxes with the core: entries and refusals to the core, directions to the reader."""

    def __init__(self, reader: Consumer, core: Core, notices: Notices) -> None:
        self._reader = reader
        self._core = core
        self._notices = notices
        self._followed: tuple[frozenset[str], int] | None = None
        self._reads_strangers = False
        self._is_waiting = False  # the reader has passed entries on, and waits for `resume`
        self._obstacle: str | None = None  # why inboxes cannot be read
        self._obstacle_ticks = 0
        self._crowded: frozenset[str] = frozenset()  # as the reader knows them
        self._was_in_sync = core.projector.is_in_sync
        self._refused: dict[str, Refused] = {}  # by actor, since it was last logged

    def start(self) -> None:
        self._reader.start()

    def stop(self) -> None:
        """Tell the reader to end; `join` waits for it."""
        self._reader.stop()

    def join(self) -> None:
        self._reader.join()

    @property
    def is_reading(self) -> bool:
        """True if the reader's thread is alive."""
        return self._reader.is_alive()

    def receive(self, news: list[Entry] | Refused) -> None:
        """Take entries, or the count of entries refused unread, from the reader."""
        if isinstance(news, Refused):
            self._refused[news.actor] = news.added_to(self._refused.get(news.actor))
            self._core.inbox.refused.update(news.counts())
        else:
            self._is_waiting = True
            self._core.inbox.add(news)
            self._resume()  # it reads what comes next while these are carried out

    def _resume(self) -> None:
        """Let the reader go on, if it waits for that and there is room."""
        if self._is_waiting and not self._core.inbox.is_full:
            self._is_waiting = False
            self._reader.resume()

    def set_obstacle(self, readable: Readable) -> None:
        """Take from the reader why inboxes cannot be read, or that they can."""
        self._obstacle = readable.obstacle

    def direct(self) -> None:
        """Tell the reader which inboxes to read, and when to go on; once a round."""
        core = self._core
        if core.projector.is_in_sync != self._was_in_sync:
            self._was_in_sync = core.projector.is_in_sync
            if self._was_in_sync:  # Redis was lost: replies may be lost, too, and this may be another server
                self._reader.reconnect()
        known, restarts = core.state.attachments.known, core.inbox.restarts
        if self._followed is None or self._followed[0] is not known or self._followed[1] != restarts:
            self._followed = (known, restarts)
            self._reader.follow(known, restarts)
        if core.is_settled and not self._reads_strangers:
            self._reads_strangers = True
            self._reader.read_strangers()
        if core.inbox.crowded != self._crowded:
            self._crowded = core.inbox.crowded
            self._reader.hold_back(self._crowded)
        self._resume()
        if core.dropped:
            for unusable in core.dropped:
                one = Refused(unusable.entry.actor, dropped=1)
                self._refused[one.actor] = one.added_to(self._refused.get(one.actor))
            core.inbox.refused["dropped"] += len(core.dropped)
            core.dropped.clear()

    def check(self) -> None:
        """Restart a dead reader, and report what keeps it from reading while Redis is reachable; once a second."""
        self._reader.start()
        for actor, refused in list(self._refused.items()):
            if self._notices.post_rarely(f"an inbox {actor}", refused.sentence()):
                del self._refused[actor]
        problems = self._core.problems
        if self._obstacle is None:
            self._obstacle_ticks = 0
            problems.remove(INBOX)
            return
        self._obstacle_ticks = self._obstacle_ticks + 1 if self._core.projector.is_in_sync else 0
        if self._obstacle_ticks >= _GRACE_TICKS:
            hint = "see 'blocksd acl' for the rights the daemon needs; it is retried"
            message = f"no requests can be read: {self._obstacle}"
            problems.set(Problem(INBOX, "unavailable", message, hint))
