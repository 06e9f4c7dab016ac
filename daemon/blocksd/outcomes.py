"""What came of requests: what was replied to them, and which files they have opened."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from blocksd.database import Database


class Access(NamedTuple):
    """An agent opened a file, or opened it again, `at` this time; None: it closed it."""

    agent: str
    file: str
    at: str | None

    def as_json(self) -> dict[str, str | None]:
        """The access as it travels."""
        return {"agent": self.agent, "file": self.file, "last_accessed_at": self.at}


class Outcomes:
    """What stands in a journal beside its log: the outcomes of requests, and the files that are open."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, actor: str, request_id: str) -> str | None:
        """What came of a request; None when it has not been carried out, or too long ago."""
        with self._database.reading():
            row = self._database.execute(
                "SELECT outcome FROM requests WHERE actor = ? AND id = ?", (actor, request_id)
            ).fetchone()
            return row[0] if row else None

    def open_files(self) -> list[Access]:
        """The files that agents have opened and not closed."""
        with self._database.reading():
            rows = self._database.execute("SELECT agent, file, last_accessed_at FROM open_files")
            return list(map(Access._make, rows))

    def settle(self, accesses: Sequence[Access], outcomes: Mapping[tuple[str, str], str], at: str) -> None:
        """Write what requests came to (by actor and id), and what they did to open files: all or nothing.

        It is on disk when this returns.

        Raises:
            JournalUnusable: nothing was written.
        """
        with self._database.writing(is_durable=True):
            for agent, file, opened_at in accesses:
                if opened_at is None:
                    self._database.execute("DELETE FROM open_files WHERE agent = ? AND file = ?", (agent, file))
                else:
                    self._database.execute(
                        "INSERT OR REPLACE INTO open_files VALUES (?, ?, ?)", (agent, file, opened_at)
                    )
            self._database.executemany(
                "INSERT INTO requests VALUES (?, ?, ?, ?)",
                ((actor, request_id, outcome, at) for (actor, request_id), outcome in outcomes.items()),
            )

    def forget(self, before: str) -> None:
        """Forget what came of requests before this time. On a full disk nothing is forgotten: there is another time."""
        with suppress(sqlite3.OperationalError):
            self._database.execute("DELETE FROM requests WHERE at < ?", (before,))
