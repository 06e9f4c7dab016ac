"""Writes the ordered, durable log of revisions: SQLite, in the state directory.

The folder is the truth. The journal keeps every version that was, the number of each change, and the signatures of the
files when they were last read, so that an unchanged folder is not read again.
"""

from __future__ import annotations

import os
import time
import uuid
from contextlib import suppress
from types import MappingProxyType
from typing import TYPE_CHECKING

from blocksd.errors import JournalUnusable, NotFound
from blocksd.files.folder import packed
from blocksd.journal.agent_lists import ListNumbers
from blocksd.journal.database import LOG_STEP_BYTES
from blocksd.journal.history import FORM, History
from blocksd.journal.opening import open_to_write, rescue
from blocksd.journal.row import MARKS, ROW_CHARS, SELDOM, STORED, stored_form, stored_row
from blocksd.journal.schema import SQLITE_ERRORS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from blocksd.files.folder import Signature
    from blocksd.journal.agent_lists import Agents
    from blocksd.journal.identity import FolderFacts
    from blocksd.journal.opening import Opened
    from blocksd.model.revision import Revision

    Forms = Mapping[str, Mapping[str, str]]

_HEAD = "label, seq, version, entries, agents, origin"
_INSERT = f"INSERT INTO revisions ({STORED}) VALUES ({MARKS}, ?)"  # noqa: S608  # constants, as below
# Python's module takes much longer to bind None than a text: what most revisions do not have is left out.
_OFTEN = STORED.split(", ")[:SELDOM]
_INSERT_PLAIN = f"INSERT INTO revisions ({', '.join(_OFTEN)}, checksum) VALUES ({', '.join('?' * SELDOM)}, ?)"  # noqa: S608
_NOTHING_ELSE = (None,) * (len(STORED.split(", ")) - SELDOM - 1)
_MOVE_HEAD = (
    f"INSERT INTO heads ({_HEAD}) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (label) DO UPDATE SET "  # noqa: S608
    "seq = excluded.seq, version = excluded.version, entries = excluded.entries, agents = excluded.agents, "
    "origin = excluded.origin"
)
_SET_HEAD = f"INSERT OR REPLACE INTO heads ({_HEAD}, path, signature) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
_SET_PLAIN_HEAD = _SET_HEAD.replace("origin, ", "").replace("?, ", "", 1)
_SET_FORM = "INSERT OR REPLACE INTO forms VALUES (?, ?)"
NO_FORMS: Forms = MappingProxyType({})
_CHECKPOINT_CHARS = 4 * 1024 * 1024
_MOST_LOG_BYTES = 16 * 1024 * 1024  # of the write-ahead log, before it is moved into the database under load, too


class Journal(History):
    """The log of one folder's revisions, as the one daemon writes it, from one thread.

    What else is kept in its file is written through its `database` and `numbers`.
    """

    def __init__(self, path: str, *, boot_id: str = "") -> None:
        """Open the journal at `path`, or make one; `boot_id` identifies this boot of the machine.

        Raise JournalUnusable if it is of a newer version of blocksd, or cannot be opened.
        """
        database, self.opened = open_to_write(path, boot_id)
        super().__init__(database, self.opened)
        self.numbers = ListNumbers(database)
        self.boot_id = boot_id
        self._log_path = f"{path}-wal"
        self._next_log_bytes = _MOST_LOG_BYTES
        self._folder = self.opened.folder
        self._logged = _CHECKPOINT_CHARS  # about how much was written since the last checkpoint; at first unknown

    @property
    def folder(self) -> str | None:
        """The folder whose revisions these are; None while it is unknown."""
        return self._folder

    def keep_folder_facts(self, facts: FolderFacts) -> None:
        """Store the facts of the folder whose revisions these are."""
        rows = (("folder", facts.path), ("folder_given", facts.given), ("folder_identity", facts.identity))
        with self.database.writing:
            self.database.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", rows)
        self._folder = facts.path

    def is_of_run(self, token: str | None) -> bool:
        """Return True if one of the last runs that wrote to this journal had this token; None is of no run that has one."""
        return token is None or token in self.opened.runs

    @property
    def run(self) -> str:
        """The token of this run, which tells what this run writes elsewhere."""
        return self.opened.runs[-1]

    def begin_epoch(self) -> None:
        """Begin another epoch: numbers of this one were given out that are not in this journal.

        Raise JournalUnusable if it could not be written; the epoch stays.
        """
        epoch = uuid.uuid4().hex
        self._write_facts(epoch=epoch)
        self.epoch = epoch

    def begin_generation(self, generation: int) -> None:
        """Become the journal of a leader of this generation, in another epoch.

        Raise JournalUnusable if it could not be written; nothing has changed then.
        """
        epoch = uuid.uuid4().hex
        self._write_facts(epoch=epoch, generation=generation)
        self.epoch, self.generation = epoch, generation
        self.newest_generation = max(self.newest_generation, generation)

    def note_generation(self, generation: int) -> None:
        """Note that there is a leader of this generation. Raise JournalUnusable if it could not be written."""
        self._write_facts(newest_generation=generation)
        self.newest_generation = generation

    def _write_facts(self, **facts: str | int) -> None:
        """Write facts of the whole journal: they are on disk when this returns."""
        with self.database.writing_durably:
            self.database.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", facts.items())

    def check_in_place(self) -> None:
        """Check that the journal's file is where it was opened, and as this process left it.

        Raises:
            JournalMissing: it is not.
            JournalUnusable: it cannot be locked.
        """
        self.database.check_in_place()

    def put_back(self) -> Opened | None:
        """Put a journal that was removed, replaced or overwritten back into its place, in a new epoch; None: it is there.

        Raise JournalUnusable if it cannot be done yet.
        """
        if self.database.is_in_place or self.database.accept(epoch=self.epoch, run=self.run, seq=self.seq):
            return None
        return self.repair()

    def repair(self) -> Opened:
        """Put a journal in the place of this one, of all in it that is as it was written, in a new epoch.

        Raise JournalUnusable if it cannot be done yet.
        """
        return self._go_on(rescue(self.database, self.boot_id, seq=self.seq))

    def _go_on(self, opened: Opened) -> Opened:
        self.opened = opened
        self.seq, self.epoch, self._unchecked, self._folder = opened.seq, opened.epoch, opened.unchecked, opened.folder
        self.lists.forget_all()
        self.numbers.forget_all()
        kept = (self.generation, self.newest_generation)
        if kept != (opened.generation, opened.newest_generation):  # what the journal had of them was damaged
            self._write_facts(generation=kept[0], newest_generation=kept[1])
        return opened

    def append(
        self, revisions: Sequence[Revision], files: Mapping[str, tuple[str, Signature | None]], forms: Forms = NO_FORMS
    ) -> None:
        """Write revisions, and which file says each of the labels in `files` (path, signature): all or nothing.

        `forms` are the new forms of files whose blocks are as they were.

        Raise JournalUnusable if it cannot be written; then nothing is.
        """
        if self.numbers.fresh:
            self.numbers.begin_transaction()
        with self.database.writing:
            self.insert(revisions)
            self.enforce(revisions, files, forms)
        if self.numbers.fresh:
            self.numbers.keep_fresh()
        if revisions:
            self.seq = revisions[-1].seq

    def insert(self, revisions: Iterable[Revision], *, more: int = 0) -> None:
        """Insert revisions, in the transaction that is open; they are no heads yet.

        So many characters `more` are written in it: they count for when the next checkpoint is due.
        """
        self._logged += more
        rows, plain = [], []
        for revision in revisions:
            block = revision.block
            entries = self._number_of(block.agents) if block is not None else None
            row = stored_row(revision, entries, self._number_of(revision.agents))
            if row[SELDOM:-1] == _NOTHING_ELSE:
                plain.append((*row[:SELDOM], row[-1]))
            else:
                rows.append(row)
            self._logged += ROW_CHARS + (len(block.value) if block is not None else 0)
        if plain:
            self.database.executemany(_INSERT_PLAIN, plain)
        if rows:
            self.database.executemany(_INSERT, rows)

    def _number_of(self, agents: Agents) -> int | None:
        """Return the number of a list of agents. Most revisions have the list of the one before, which needs no query."""
        if not agents:
            return None
        same = self.numbers.same.get(id(agents))
        return same[1] if same is not None and same[0] is agents else self.numbers.number_of(agents)

    def enforce(
        self, revisions: Iterable[Revision], files: Mapping[str, tuple[str, Signature | None]], forms: Forms = NO_FORMS
    ) -> None:
        """Make inserted revisions the heads of their labels, with their files, in the transaction that is open."""
        written = set()
        new_forms: dict[str, Mapping[str, str] | None] = {}
        for revision in revisions:
            self._enforce(revision, files.get(revision.label))
            written.add(revision.label)
            if revision.renamed_from is not None:
                new_forms[revision.renamed_from] = {}
            if revision.block is None:
                new_forms[revision.label] = {}
            elif revision.is_reformed and (revision.form != {} or revision.kind != "created"):
                new_forms[revision.label] = revision.form
        new_forms.update(forms)
        if new_forms:
            self._keep_forms(new_forms)
        touched = [label for label in files if label not in written]
        if touched:
            self.database.executemany(
                "UPDATE heads SET path = ?, signature = ? WHERE label = ?",
                ((path, _packed(signature), label) for label in touched for path, signature in (files[label],)),
            )

    def _keep_forms(self, forms: Mapping[str, Mapping[str, str] | None]) -> None:
        """Store the forms of files, by label: of the usual ones, which are empty, nothing is stored."""
        usual = [(label,) for label, form in forms.items() if form == {}]
        others = [(label, stored_form(form)) for label, form in forms.items() if form != {}]
        for statement, rows in (("DELETE FROM forms WHERE label = ?", usual), (_SET_FORM, others)):
            if rows:
                self.database.executemany(statement, rows)

    def _enforce(self, revision: Revision, file: tuple[str, Signature | None] | None) -> None:
        block = revision.block
        entries = self._number_of(block.agents) if block is not None else None
        if revision.renamed_from is not None:
            self.database.execute("UPDATE heads SET path = NULL WHERE label = ?", (revision.renamed_from,))
        agents = self._number_of(revision.agents)
        head = (revision.label, revision.seq, revision.version, entries, agents)
        if block is None:
            path = None
        elif file is None:  # by other agents, for a file that was not touched, or with none in the end
            self.database.execute(_MOVE_HEAD, (*head, revision.origin))
            return
        else:
            path = file[0]
        signature = _packed(file[1] if file is not None else None)
        if revision.origin is None:
            self.database.execute(_SET_PLAIN_HEAD, (*head, path, signature))
        else:
            self.database.execute(_SET_HEAD, (*head, revision.origin, path, signature))

    def since(self, seq: int, limit: int) -> list[Revision]:
        """Return the revisions after `seq`, at most `limit`. Raise NotFound if some of them are no longer kept."""
        with self.database.reading:
            rows = self.database.execute(
                f"SELECT {STORED}, CASE version WHEN (SELECT version FROM heads WHERE label = in_force.label) THEN {FORM} END "  # noqa: S608  # constants
                "FROM in_force WHERE seq > ? ORDER BY seq LIMIT ?",
                (seq, limit),
            ).fetchall()
            if [row[0] for row in rows] != list(range(seq + 1, seq + 1 + min(limit, self.seq - seq))):
                raise NotFound(f"not all revisions after {seq} are kept", seq=seq)
            # VersionDamaged is a NotFound: it is not kept either
            return [self.revision_of(row, with_form=True) for row in rows]

    def reaches_back(self, seq: int) -> bool:
        """Return True if every revision after `seq` is kept."""
        with self.database.reading:
            (kept,) = self.database.execute("SELECT count(*) FROM in_force WHERE seq > ?", (seq,)).fetchone()
        return bool(kept == self.seq - seq)

    def checkpoint(self) -> None:
        """Move what was logged into the database, if it has become much. Takes fsyncs: for idle moments.

        The size of the log's file does not tell how much that is: it is used again from its beginning. If it is long, and no
        reader needs it, it is cut.
        """
        if self._logged >= _CHECKPOINT_CHARS and self._move_log() and self.log_bytes > LOG_STEP_BYTES:
            with suppress(*SQLITE_ERRORS):
                self.database.checkpoint("TRUNCATE")

    def bound_log(self) -> None:
        """Move what was logged into the database once the log's file is too long, however much there is to do.

        What a reader still needs of the log stays there. Then that is tried again when it has grown by some more, so that
        no reader makes every round wait for a disk.
        """
        size = self.log_bytes
        if size >= self._next_log_bytes:
            is_all_moved = self._move_log()
            self._next_log_bytes = _MOST_LOG_BYTES if is_all_moved else size + LOG_STEP_BYTES

    @property
    def log_bytes(self) -> int:
        """The size of the write-ahead log's file."""
        try:
            return os.stat(self._log_path).st_size
        except OSError:  # it is made with the first write
            return 0

    def _move_log(self) -> bool:
        """Return True if all that was logged is in the database: then the log begins anew."""
        self._logged = 0
        try:
            return self.database.checkpoint("PASSIVE")
        except SQLITE_ERRORS:  # the disk is full, say: what is in the log is safe there
            return False

    def sync(self) -> None:
        """Sync all that was committed so far: a commit that waits for the disk takes those before it along.

        Raise JournalUnusable if that fails.
        """
        with self.database.writing_durably:
            self.database.execute(
                "INSERT INTO meta VALUES ('syncs', 1) ON CONFLICT (key) DO UPDATE SET value = value + 1"
            )

    def close(self) -> None:
        """Close, and note that nothing is missing: if that cannot be written, the next start checks the journal."""
        with suppress(JournalUnusable):
            self.put_back()
        with suppress(*SQLITE_ERRORS, JournalUnusable), self.database.writing_durably:
            self.database.execute("UPDATE meta SET value = 1 WHERE key = 'clean'")
            self.database.execute("INSERT OR REPLACE INTO meta VALUES ('ended', ?)", (time.time(),))
        self.database.close()


def _packed(signature: Signature | None) -> bytes | None:
    return packed(*signature) if signature is not None else None
