"""The outcomes of requests, and the source files that agents have opened."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from blocksd.errors import JournalUnusable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from blocksd.journal.database import Database

KEPT_OF_ACTOR = 1000
"""How many outcomes of each actor, the newest, are kept whatever their age."""

_FEW = 64  # so many more than are kept may stay, of an actor that asks for no more
_ACTORS_AT_ONCE = 100
_ACTORS_COUNTED = 10_000
_IDS = 10_000  # of requests that are in memory, of the actors that asked first
_LOOKS_AT_ALL = 256  # every so many times all actors with more than are kept are looked at, also idle ones


class Access(NamedTuple):
    """An agent opened a file, or opened it again, `at` this time; None: it closed it."""

    agent: str
    file: str
    at: str | None

    def as_json(self) -> dict[str, str | None]:
        """Return the access as it travels."""
        return {"agent": self.agent, "file": self.file, "last_accessed_at": self.at}


class Results:
    """The outcomes of requests and the open files, which a journal keeps beside its log.

    An outcome is the reply as JSON, but for blocks, which are in the log: `block` is true for the block of the revision
    `seq` beside it.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._asked: Counter[str] = Counter()  # actor → how many it may have got since the last look at its outcomes
        self._many: dict[str, int] = {}  # actor → how many it has, of those with more than are kept whatever their age
        self._looks = 0
        # Actor → the ids under which outcomes may be kept: all that are, and all that were asked for; None: unknown.
        self._ids: dict[str, set[str] | None] = {}
        self._room = _IDS  # for more of them

    def outcome_of(self, actor: str, request_id: str) -> str | None:
        """Return the outcome of a request; None when it has not been carried out, or too long ago: it may be now."""
        if not self._is_new(actor, request_id):
            row = self._database.first("SELECT outcome FROM requests WHERE actor = ? AND id = ?", actor, request_id)
            if row is not None:
                return str(row[0])
        self._asked[actor] += 1
        return None

    def _is_new(self, actor: str, request_id: str) -> bool:
        """Return True if nothing was asked for under this id; False: the journal must say. It is noted as asked for.

        Most requests have an id that was never used, so that there is nothing to look for.
        """
        if actor not in self._ids:
            with self._database.reading:
                rows = self._database.execute("SELECT id FROM requests WHERE actor = ? LIMIT ?", (actor, self._room))
                ids = {found for (found,) in rows}
            self._ids[actor] = ids if len(ids) < self._room else None
            self._room -= len(self._ids[actor] or ())
        known = self._ids[actor]
        if known is None or request_id in known:
            return False
        if not self._room:
            self._room, self._ids[actor] = len(known), None
            return False
        self._room -= 1
        known.add(request_id)
        return True

    def open_files(self) -> list[Access]:
        """Return the files that agents have opened and not closed."""
        with self._database.reading:
            rows = self._database.execute("SELECT agent, file, last_accessed_at FROM open_files")
            return list(map(Access._make, rows))

    def write(self, accesses: Sequence[Access], outcomes: Mapping[tuple[str, str], str], at: str) -> None:
        """Write the outcomes of requests (by actor and id), and what they did to open files: all or nothing.

        It is on disk when this returns. Raise JournalUnusable if it cannot be written; then nothing is.
        """
        with self._database.writing_durably:
            for agent, file, opened_at in accesses:
                if opened_at is None:
                    self._database.execute("DELETE FROM open_files WHERE agent = ? AND file = ?", (agent, file))
                else:
                    self._database.execute(
                        "INSERT OR REPLACE INTO open_files VALUES (?, ?, ?)", (agent, file, opened_at)
                    )
            self._database.executemany(
                "INSERT INTO requests VALUES (?, ?, ?, ?, (SELECT coalesce(max(seq), 0) FROM in_force))",
                ((actor, request_id, outcome, at) for (actor, request_id), outcome in outcomes.items()),
            )

    @property
    def counted(self) -> int:
        """The number of actors whose outcomes are counted."""
        return len(self._asked)

    def forget_old(self, before: str) -> None:
        """Forget outcomes from before this time, but for the newest of each actor. On a full disk nothing is forgotten.

        Newer is what came later in the log, so that a clock that was wrong for a while makes nothing old. Only actors that
        have asked for something are looked at, and one that has very many outcomes only when they are half as many again.
        """
        with suppress(JournalUnusable), self._database.reading:
            if not self._looks:
                self._many.update(
                    self._database.execute(
                        "SELECT actor, count(*) FROM requests GROUP BY actor HAVING count(*) > ?", (KEPT_OF_ACTOR,)
                    )
                )
            for actor in self._due():
                self._forget(actor, before)
            self._looks += 1
            if not self._looks % _LOOKS_AT_ALL:  # many of them may have been forgotten
                self._ids, self._room = {}, _IDS

    def _due(self) -> list[str]:
        often = Counter({actor: asked for actor, asked in self._asked.items() if asked >= _FEW})
        if len(self._asked) > _ACTORS_COUNTED:  # the next start looks at all
            self._asked = often
        due = {actor for actor, asked in often.items() if 2 * asked >= self._many.get(actor, 0)}
        if self._looks % _LOOKS_AT_ALL == 0:
            due.update(self._many)
        return sorted(due)[:_ACTORS_AT_ONCE]

    def _forget(self, actor: str, before: str) -> None:
        (count,) = self._database.execute("SELECT count(*) FROM requests WHERE actor = ?", (actor,)).fetchone()
        if count > KEPT_OF_ACTOR:
            count -= self._database.execute(
                "DELETE FROM requests WHERE actor = ?1 AND at < ?2 AND (seq, at, id) < "
                "(SELECT seq, at, id FROM requests WHERE actor = ?1 ORDER BY seq DESC, at DESC, id DESC LIMIT 1 OFFSET ?3)",
                (actor, before, KEPT_OF_ACTOR - 1),
            ).rowcount
        self._asked.pop(actor, None)
        self._many.pop(actor, None)
        if count > KEPT_OF_ACTOR:
            self._many[actor] = count
