"""What is about to be done to files, until they say so."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from blocksd.row import COLUMNS, MARKS, chars_of, row_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from blocksd.folder import Signature
    from blocksd.journal import Journal
    from blocksd.revision import Revision


class Staged(NamedTuple):
    """A file whose new text lies beside it, under the name `aside`; all paths are below the folder.

    `base` and `data` are digests of what it says now and of what it is to say; None: there is no such file. Once the new
    text is put in, `aside` is what was there before.
    """

    path: str
    aside: str
    base: str | None
    data: str | None


@dataclass(frozen=True, slots=True)
class Prepared:
    """Revisions that are to be, as soon as their files say so, with what their requests are replied then.

    `paths` are the files of their blocks, by label; `folders_gone` the directories, below the folder, that are to go after
    their files.
    """

    revisions: Sequence[Revision]
    paths: Mapping[str, str]
    staged: Sequence[Staged]
    outcomes: Mapping[tuple[str, str], str]
    at: str
    folders_gone: Sequence[str] = ()


class Pending:
    """What stands in a journal beside its log: what is prepared, until it is finished or given up."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._database = journal.database

    def prepare(self, prepared: Prepared, *, is_durable: bool = True) -> None:
        """Write what is about to be done to files. It is on disk when this returns.

        Raises:
            JournalUnusable: nothing was written.
        """
        numbers, count_logged = self._journal.numbers, self._journal.count_logged
        numbers.begin()
        with self._database.writing(is_durable=is_durable):
            for revision in prepared.revisions:
                block = revision.block
                entries = numbers.of(block.agents) if block is not None else None
                row = row_of(revision, entries, numbers.of(revision.agents))
                self._database.execute(
                    f"INSERT INTO pending_revisions VALUES ({MARKS}, ?)",  # noqa: S608  # a constant
                    (*row, prepared.paths.get(revision.label)),
                )
                count_logged(chars_of(revision))
            self._database.executemany(
                "INSERT INTO pending_files (path, aside, base, data) VALUES (?, ?, ?, ?)", prepared.staged
            )
            self._database.executemany(
                "INSERT INTO pending_requests VALUES (?, ?, ?, ?)",
                ((*key, outcome, prepared.at) for key, outcome in prepared.outcomes.items()),
            )
            count_logged(2 * sum(map(len, prepared.outcomes.values())))
            self._database.executemany(
                "INSERT INTO pending_folders VALUES (?)", ((path,) for path in prepared.folders_gone)
            )
        numbers.keep()

    def finish(self, prepared: Prepared, signatures: Mapping[str, Signature | None] | None = None) -> None:
        """The files say what was prepared: it is so from now on. `signatures` are those of the files, by path.

        It need not be on disk at once: after a crash it is seen from the files, and finished then. Directories that are to
        go are remembered until `forget_folders`.

        Raises:
            JournalUnusable: nothing was written.
        """
        signatures = signatures or {}
        files = {
            revision.label: (path, signatures.get(path))
            for revision in prepared.revisions
            if (path := prepared.paths.get(revision.label)) is not None
        }
        self._journal.append(prepared.revisions, files, also=self._settle)

    def _settle(self) -> None:
        """What was replied stands, and nothing is prepared any more."""
        self._database.execute("INSERT OR IGNORE INTO requests SELECT * FROM pending_requests")
        self._forget_prepared()

    def give_up(self) -> None:
        """What was prepared is not to be; its files say again what they did.

        Raises:
            JournalUnusable: that could not be written; the next start does it.
        """
        with self._database.writing():
            self._forget_prepared()
            self._database.execute("DELETE FROM pending_folders")

    def _forget_prepared(self) -> None:
        for table in ("pending_revisions", "pending_files", "pending_requests"):
            self._database.execute(f"DELETE FROM {table}")  # noqa: S608  # a constant

    def prepared(self) -> Prepared | None:
        """What a crash has left prepared."""
        with self._database.reading():
            rows = self._database.execute(f"SELECT {COLUMNS}, path FROM pending_revisions ORDER BY seq").fetchall()  # noqa: S608  # a constant
            staged = self._database.execute(
                "SELECT path, aside, base, data FROM pending_files ORDER BY rowid"
            ).fetchall()
            outcomes = self._database.execute("SELECT actor, id, outcome FROM pending_requests").fetchall()
            if not (rows or staged or outcomes):
                return None
            revisions = [self._journal.revision_of(row[:-1]) for row in rows]
            return Prepared(
                revisions,
                {one.label: row[-1] for one, row in zip(revisions, rows, strict=True) if row[-1] is not None},
                [Staged(*row) for row in staged],
                {(actor, request_id): outcome for actor, request_id, outcome in outcomes},
                revisions[-1].at if revisions else "",
            )

    def folders_gone(self) -> list[str]:
        """The directories that are to go, and have not been seen to be gone."""
        with self._database.reading():
            return [path for (path,) in self._database.execute("SELECT path FROM pending_folders")]

    def forget_folders(self) -> None:
        """They are gone, or are to stay.

        Raises:
            JournalUnusable: that could not be written; they must be looked at again before anything else is written.
        """
        try:
            self._database.execute("DELETE FROM pending_folders")
        except sqlite3.Error as error:
            raise self._database.unwritable(error) from error
