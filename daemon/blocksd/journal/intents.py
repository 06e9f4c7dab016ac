"""Write-ahead intents: revisions and file changes prepared in the journal but not yet confirmed."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from blocksd.errors import JournalUnusable
from blocksd.files.file_edit import Staged
from blocksd.journal.failures import unusable
from blocksd.journal.row import STORED
from blocksd.journal.schema import FINISHED, SQLITE_ERRORS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from blocksd.files.folder import Signature
    from blocksd.journal.journal import Journal
    from blocksd.model.revision import Revision

Key = tuple[str, str]
"""The actor and the id of a request."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """Revisions that come into force as soon as their files say so, with the outcomes of their requests.

    `paths` are the files of their blocks, by label; `folders_gone` the directories, below the folder, that are removed
    after their files. An outcome is a reply as `Results` keeps it. `is_same_boot` tells whether the machine has run since.
    """

    revisions: Sequence[Revision]
    paths: Mapping[str, str]
    staged: Sequence[Staged]
    outcomes: Mapping[Key, str]
    at: str
    folders_gone: Sequence[str] = ()
    is_same_boot: bool = True


class Kept(NamedTuple):
    """A file that lies aside, and may be all there is of a save: it is not removed unread. `boot` is the one it is of."""

    staged: Staged
    boot: str


def _kept_in(row: tuple[str] | None) -> list[Kept]:
    return [Kept(Staged(*one), boot) for one, boot in json.loads(row[0])] if row is not None else []


class Intents:
    """The write-ahead part of a journal: what is prepared, until it is finished or given up.

    Revisions are written once, when they are prepared. The row in `prepared` says from which number on they are not in
    force; the view `in_force` leaves those out for all readers.
    """

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self._database = journal.database
        self._kept: list[Kept] = []
        self._stored: list[Kept] | None = None  # as the journal has them; None: unknown

    def prepare(self, prepared: Prepared, *, is_durable: bool = True) -> None:
        """Write changes of files that are about to be made: they, and all before them, are on disk when this returns.

        Raise JournalUnusable if it cannot be written; then nothing is.
        """
        plan = json.dumps(
            {
                "boot": self.journal.boot_id,
                "at": prepared.at,
                "paths": dict(prepared.paths),
                "staged": prepared.staged,
                "outcomes": [(*key, outcome) for key, outcome in prepared.outcomes.items()],
                "folders": prepared.folders_gone,
            }
        )
        if self.journal.numbers.fresh:
            self.journal.numbers.begin_transaction()
        with self._database.writing_durably if is_durable else self._database.writing:
            self.journal.insert(prepared.revisions, more=2 * len(plan))
            self._replace_prepared((self.journal.seq + 1, plan))
        if self.journal.numbers.fresh:
            self.journal.numbers.keep_fresh()

    def finish(
        self,
        prepared: Prepared,
        signatures: Mapping[str, Signature | None] | None = None,
        *,
        is_durable: bool = False,
        was: Prepared | None = None,
        kept: Sequence[Staged] = (),
    ) -> None:
        """Bring prepared revisions into force: their files are changed. `signatures` are those of the files, by path.

        Unless `is_durable`, a crash may undo this, but not `prepare`: so what tells that the files were changed stays
        until something later is on disk. `was` is what was prepared, if this is only a part of it, numbered anew.
        Directories that are to go are remembered until `forget_folders`, and so are the `kept` files that lie aside. What
        the files displaced is noted until the next `prepare`: a daemon that starts in between finds it among the `kept`.
        Raise JournalUnusable if it cannot be written; then nothing is.
        """
        signatures = signatures or {}
        files = {
            revision.label: (path, signatures.get(path))
            for revision in prepared.revisions
            if (path := prepared.paths.get(revision.label)) is not None
        }
        kept_then = [*self.kept, *self.of_this_boot(kept)]
        if self.journal.numbers.fresh:
            self.journal.numbers.begin_transaction()
        with self._database.writing_durably if is_durable else self._database.writing:
            if was is not None:
                self._delete_revisions()
                self.journal.insert(prepared.revisions)
            self.journal.enforce(prepared.revisions, files)
            self._database.executemany(
                "INSERT OR IGNORE INTO requests VALUES (?, ?, ?, ?, ?)",
                ((*key, outcome, prepared.at, self.journal.seq) for key, outcome in prepared.outcomes.items()),
            )
            self._database.executemany(
                "INSERT OR IGNORE INTO pending_folders VALUES (?)", ((path,) for path in prepared.folders_gone)
            )
            displaced = self.of_this_boot([one for one in prepared.staged if one.base is not None])
            self._replace_prepared(*([(FINISHED, json.dumps(displaced))] if displaced else []))
            self._write_kept(kept_then)
        if self.journal.numbers.fresh:
            self.journal.numbers.keep_fresh()
        self._kept, self._stored = kept_then, list(kept_then)
        if prepared.revisions:
            self.journal.seq = prepared.revisions[-1].seq

    def give_up(self, kept: Sequence[Staged] = ()) -> None:
        """Forget what was prepared: its files are as before. That is on disk when this returns.

        But for `kept`, of which that cannot be told: what lies aside of them is not removed unread.
        Raise JournalUnusable if that cannot be written; then `recover` does it.
        """
        kept_then = [*self.kept, *self.of_this_boot(kept)]
        with self._database.writing_durably:
            self._delete_revisions()
            self._replace_prepared()
            self._write_kept(kept_then)
        self._kept, self._stored = kept_then, list(kept_then)

    @property
    def kept(self) -> list[Kept]:
        """The files aside that could not be read, also those that were so when the daemon ended.

        Besides, what the last files displaced that the daemon put in before it ended: it may not have read that again. But
        not after a power cut, which leaves no save in there that its writer had on disk.
        Raise JournalUnusable if it cannot be told.
        """
        if self._stored is None:
            with self._database.reading:
                row = self._database.execute("SELECT value FROM meta WHERE key = 'kept'").fetchone()
                last = self._database.execute("SELECT plan FROM prepared WHERE seq = ?", (FINISHED,)).fetchone()
            self._stored, displaced = _kept_in(row), _kept_in(last)
            displaced = [one for one in displaced if one.boot == self.boot_id]
            more = (one for one in (*displaced, *self._kept) if one not in self._stored)
            self._kept = [*self._stored, *more]
        return self._kept

    def set_kept(self, kept: Sequence[Kept]) -> None:
        """Set which files aside are not to be removed unread. Where that cannot be written, it is at the next call."""
        self._kept = list(kept)
        if self._kept != self._stored:
            with suppress(JournalUnusable):
                with self._database.writing_durably:
                    self._write_kept(self._kept)
                self._stored = list(self._kept)

    def write_again(self) -> None:
        """Write what is kept to the journal that took the place of the one before."""
        self._stored = None
        with suppress(JournalUnusable):
            self.set_kept(self.kept)

    def of_this_boot(self, staged: Sequence[Staged]) -> list[Kept]:
        """Return files of this boot, as they are kept."""
        return [Kept(one, self.journal.boot_id) for one in staged]

    def _write_kept(self, kept: Sequence[Kept]) -> None:
        """Write what is kept in the transaction that is open, unless it is what the journal has."""
        if kept != self._stored:
            self._database.execute("INSERT OR REPLACE INTO meta VALUES ('kept', ?)", (json.dumps(kept),))

    def _replace_prepared(self, *rows: tuple[int, str]) -> None:
        self._database.execute("DELETE FROM prepared")
        self._database.executemany("INSERT INTO prepared VALUES (?, ?)", rows)

    @property
    def boot_id(self) -> str:
        return self.journal.boot_id

    def _delete_revisions(self) -> None:
        self._database.execute("DELETE FROM revisions WHERE seq >= (SELECT seq FROM prepared)")

    def prepared(self) -> Prepared | None:
        """Return what was left prepared by a crash, or by a journal that could not be written."""
        with self._database.reading:
            row = self._database.execute("SELECT seq, plan FROM prepared WHERE seq < ?", (FINISHED,)).fetchone()
            if row is None:
                return None
            rows = self._database.execute(
                f"SELECT {STORED} FROM revisions WHERE seq >= ? ORDER BY seq",  # noqa: S608  # a constant
                (row[0],),
            ).fetchall()
            revisions = [self.journal.revision_of(row) for row in rows]
        plan: dict[str, Any] = json.loads(row[1])
        return Prepared(
            revisions,
            plan["paths"],
            [Staged(*one) for one in plan["staged"]],
            {(actor, request_id): outcome for actor, request_id, outcome in plan["outcomes"]},
            plan["at"],
            tuple(plan["folders"]),
            is_same_boot=plan["boot"] == self.journal.boot_id,
        )

    def sync(self) -> None:
        """Sync all that was finished. Raise JournalUnusable if that fails."""
        self.journal.sync()

    def folders_gone(self) -> list[str]:
        """Return the directories that are to go, and have not been seen to be gone."""
        with self._database.reading:
            return [path for (path,) in self._database.execute("SELECT path FROM pending_folders")]

    def forget_folders(self) -> None:
        """Forget the directories that were to go: they are gone, or are to stay.

        Raise JournalUnusable if it cannot be written; then they must be looked at again before anything else is written.
        """
        try:
            # The next agent of that name begins with nothing open. Done twice after a crash, it is done once.
            self._database.execute(
                "DELETE FROM open_files WHERE 'agents/' || agent IN (SELECT path FROM pending_folders)"
            )
            self._database.execute("DELETE FROM pending_folders")
        except SQLITE_ERRORS as error:
            raise unusable("written", error, self._database.path, is_ours=True) from error
