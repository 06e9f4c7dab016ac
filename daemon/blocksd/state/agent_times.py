"""When each known agent was created, which is when it became known. The journal keeps it."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from blocksd.journal.row import words
from blocksd.model.label import owner
from blocksd.model.revision import milliseconds

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from blocksd.journal.journal import Journal
    from blocksd.model.attachment import Attachments


class AgentTimes:
    """The times are in the journal, in milliseconds since 1970, and not in memory: agents may be very many.

    An agent that becomes known again is created anew. One that is known and has no time, because the journal is older than
    this table or a crash came between, was created when the journal first tells of it.
    """

    def __init__(self, journal: Journal, wall: Callable[[], float] = time.time) -> None:
        self._journal = journal
        self._wall = wall
        self.restart()

    def restart(self) -> None:
        """The journal is another one, or was read anew: what it has is compared."""
        self._is_compared = False  # each agent that was known has a time
        self._is_exact = False  # and no other has one
        self.is_settled = False
        """True if there is nothing for `note` to do until an agent becomes known, or is not known any more."""

    def is_due(self, attachments: Attachments, *, are_all_known: bool) -> bool:
        """Return True if there is something for `note` to do."""
        return bool(attachments.turned) or not self._is_compared or self._is_exact < are_all_known

    def note(self, attachments: Attachments, at: int | None, *, are_all_known: bool) -> None:
        """Store when agents became known, `at` that time or now, and forget those that are not known any more.

        Unless `are_all_known`, an agent may be known though nothing tells of it yet: then none is forgotten.
        Raise JournalUnusable if it cannot be written; then it is still due.
        """
        is_known, at = attachments.is_known, self._now if at is None else at
        times = {agent: at for agent in attachments.turned if is_known(agent)}
        gone = attachments.turned - times.keys()
        if not self._is_compared or self._is_exact < are_all_known:
            known, stored = attachments.known, self._stored()
            if not self._is_compared:
                times |= self._first_seen(known - stored)
            times |= dict.fromkeys(known - stored - times.keys(), at)
            gone |= stored - known
        self._is_compared = self.is_settled = False  # until all is written
        if times or (gone and are_all_known):
            with self._journal.database.writing:
                # One that was known all the time keeps its time.
                self._journal.database.executemany("INSERT OR IGNORE INTO agents VALUES (?, ?)", times.items())
                if are_all_known:
                    self._journal.database.executemany(
                        "DELETE FROM agents WHERE agent = ?", ((agent,) for agent in gone)
                    )
        attachments.turned.clear()
        self._is_compared, self._is_exact = True, are_all_known
        self.is_settled = are_all_known

    def of(self, agents: Collection[str]) -> dict[str, int]:
        """Return the times of known agents. Raise JournalUnusable if they cannot be read."""
        if not agents:
            return {}
        names = json.dumps(list(agents), ensure_ascii=False)
        with self._journal.database.reading:
            times: dict[str, int] = dict(
                self._journal.database.execute(
                    "SELECT agent, created_ms FROM agents WHERE agent IN (SELECT value FROM json_each(?))", (names,)
                )
            )
        if len(times) < len(agents):  # they could not be written yet
            missing = frozenset(agents).difference(times)
            times |= dict.fromkeys(missing, self._now) | self._first_seen(missing)
        return times

    @property
    def _now(self) -> int:
        return round(self._wall() * 1000)

    def _stored(self) -> frozenset[str]:
        with self._journal.database.reading:
            return frozenset(agent for (agent,) in self._journal.database.execute("SELECT agent FROM agents"))

    def _first_seen(self, agents: Iterable[str]) -> dict[str, int]:
        """Return when the journal first tells of each of these agents, as far as it does."""
        left, times = set(agents), dict[str, int]()
        if not left:
            return times
        with self._journal.database.reading:
            rows = self._journal.database.execute(
                "SELECT label, attached, at FROM revisions WHERE attached <> '' OR label GLOB 'agents/*' ORDER BY seq"
            )
            for label, attached, at in rows:
                found = left.intersection((*words(attached), owner(label)))
                if found:
                    with suppress(ValueError):  # it is damaged
                        times |= dict.fromkeys(found, milliseconds(at))
                        left -= found
                    if not left:
                        break
        return times
