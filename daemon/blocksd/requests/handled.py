"""Which entries of inboxes were dealt with long ago, when their outcomes are forgotten."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from blocksd.journal.database import Database
    from blocksd.requests.request import Entry

_ID = re.compile("([0-9]{1,20})-([0-9]{1,20})")
_AHEAD_MS = 86_400_000  # an entry's id is made of the server's clock: one that is further ahead was made up
_MOST = 2**63 - 1

Mark = tuple[int, int]


class Handled:
    """The newest entry of each actor up to which all were dealt with: ids only grow as long as a stream lives.

    An entry up to there comes in again when Redis is restored from a snapshot. Usually its outcome is known. If that is
    forgotten, the mark tells that the entry must not be dealt with again. So marks are written before outcomes are
    forgotten. If an inbox is made anew while the server's clock is behind, entries are refused until that has caught up.
    """

    def __init__(self, database: Database, *, wall: Callable[[], float]) -> None:
        self._database = database
        self._wall = wall
        self._done: dict[str, Mark] = {}  # since marks were last written
        self._open: dict[
            str, Mark
        ] = {}  # the first of an actor's entries that wait for something, others overtaking them
        with database.reading():
            self.marks: dict[str, Mark] = {
                actor: (ms, number) for actor, ms, number in database.execute("SELECT actor, ms, number FROM spent")
            }

    def note(self, done: Iterable[Entry], waiting: Iterable[Entry]) -> None:
        """These entries were dealt with, and those wait on."""
        for entry in done:
            mark = _mark_of(entry)
            if mark is None:
                continue
            if self._open.get(entry.actor) == mark:
                del self._open[entry.actor]
            if mark > self._done.get(entry.actor, (0, 0)):
                self._done[entry.actor] = mark
        for entry in waiting:
            mark = _mark_of(entry)
            if mark is not None and mark < self._open.get(entry.actor, (_MOST, 0)):
                self._open[entry.actor] = mark

    def has(self, entry: Entry) -> bool:
        """Return True if this entry was dealt with before the last time that marks were written."""
        mark = self.marks.get(entry.actor)
        if mark is None:
            return False
        its = _mark_of(entry)
        return its is not None and its <= mark

    def write(self, known: Collection[str]) -> None:
        """Write the marks of what was dealt with; those of actors that are not `known` any more are forgotten.

        Raises:
            JournalUnusable: they could not be written: outcomes must not be forgotten.
        """
        latest = int(self._wall() * 1000) + _AHEAD_MS
        new = {
            actor: mark
            for actor, mark in self._done.items()
            if actor not in self._open and mark > self.marks.get(actor, (0, 0)) and mark[0] <= latest
        }
        gone = [actor for actor in self.marks if actor not in known and actor not in new]
        if new or gone:
            with self._database.writing():
                self._database.executemany(
                    "INSERT OR REPLACE INTO spent VALUES (?, ?, ?)", ((actor, *mark) for actor, mark in new.items())
                )
                self._database.executemany("DELETE FROM spent WHERE actor = ?", ((actor,) for actor in gone))
            self.marks.update(new)
            for actor in gone:
                del self.marks[actor]
        self._done = {actor: mark for actor, mark in self._done.items() if actor in self._open}


def _mark_of(entry: Entry) -> Mark | None:
    found = _ID.fullmatch(entry.id)
    return (min(int(found[1]), _MOST), min(int(found[2]), _MOST)) if found else None
