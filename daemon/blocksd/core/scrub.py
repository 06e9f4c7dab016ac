"""Checks what the journal keeps, a little at a time, against its checksums, its own order and the files."""

from __future__ import annotations

import json
from itertools import islice
from typing import TYPE_CHECKING, Any

from blocksd.errors import BlocksdError, JournalDamaged, VersionDamaged
from blocksd.files.document import Parser
from blocksd.files.folder import Text
from blocksd.journal.row import STORED, check, checksum_of
from blocksd.model.label import printable
from blocksd.model.problem import HISTORY, Problem
from blocksd.model.revision import timestamp
from blocksd.state.part import Part

if TYPE_CHECKING:
    from blocksd.core.intake import Intake
    from blocksd.files.folder import Folder
    from blocksd.model.block import Block
    from blocksd.state.part import Shared

_SLICE_SECONDS = 10.0
_REVISIONS = 50  # of a slice
_HEADS = 200
_FILES = 20
_NAMED = 5  # of the damaged versions, a problem names so many
_SEQ, _LABEL, _VERSION = 0, 1, 2


class Scrub(Part):
    """Finds damage before it is needed, and repairs it from the files as far as they say what was written.

    A damaged version that is in force and whose file has its text gets that again. An old one is taken out of the log
    and named in a problem. Anything else in the present that is not as it was written raises `JournalDamaged`, upon which
    the journal is put together again. Revisions from before there were checksums get theirs once their digest is right.
    """

    def __init__(self, shared: Shared, folder: Folder, intake: Intake) -> None:
        super().__init__(shared)
        self._folder = folder
        self._intake = intake
        self._schedule["scrub"] = self._clock() + _SLICE_SECONDS
        self.repaired = 0
        self.restart()
        self._report()

    def restart(self) -> None:
        """The journal is another one: all of it is to be checked."""
        self._seq = 0
        self._label = ""
        self._unread: list[str] = []  # labels of blocks whose files are still to be read

    def step(self) -> None:
        """Check one slice.

        Raises:
            JournalDamaged: what the journal says of the present cannot be trusted.
            JournalUnusable: it cannot be read or written.
        """
        self._schedule["scrub"] = self._clock() + _SLICE_SECONDS
        self._check_revisions()
        self._check_heads()
        self._check_files()

    def _check_revisions(self) -> None:
        with self._journal.database.reading:
            rows = self._journal.database.execute(
                f"SELECT {STORED} FROM in_force WHERE seq > ? ORDER BY seq LIMIT ?",  # noqa: S608  # a constant
                (self._seq, _REVISIONS),
            ).fetchall()
        for row in rows:
            try:
                self._journal.check(row)
            except VersionDamaged as error:
                self._deal_with(row, error)
            else:
                if row[-1] is None:
                    with self._journal.database.writing:
                        self._journal.database.execute(
                            "UPDATE revisions SET checksum = ? WHERE seq = ?", (checksum_of(row), row[_SEQ])
                        )
        self._seq = rows[-1][_SEQ] if len(rows) == _REVISIONS else 0

    def _deal_with(self, row: tuple[Any, ...], error: VersionDamaged) -> None:
        """Repair a damaged revision from the file, or take it out of the log."""
        label, version = row[_LABEL], row[_VERSION]
        newest = self._journal.version_of(label) if isinstance(label, str) else 0
        if version == newest and label in self._state.paths:
            if not self._repair_from_file(row, label):
                raise JournalDamaged(error.message, path=self._journal.path) from error
            return
        with self._journal.database.writing:
            self._journal.database.execute(
                "INSERT OR REPLACE INTO damaged VALUES (?, ?, ?, ?, ?)",
                (
                    row[_SEQ],
                    str(label),
                    version if type(version) is int else None,
                    timestamp(self._wall()),
                    json.dumps([one if isinstance(one, (str, int, type(None))) else repr(one) for one in row]),
                ),
            )
            self._journal.database.execute("DELETE FROM revisions WHERE seq = ?", (row[_SEQ],))
        self._report()

    def _block_in_file(self, label: str) -> Block | None:
        """Return the block that the file of a block in force says right now; None if it cannot be told."""
        path = self._state.paths.get(label)
        reading = self._folder.read(path, closed=False) if path is not None else None
        try:
            return Parser().parse(reading.data, label)[0] if isinstance(reading, Text) else None
        except BlocksdError:
            return None

    def _repair_from_file(self, row: tuple[Any, ...], label: str) -> bool:
        """Write a block's value and facts again, if its file says what was written there; whether it does."""
        block = self._block_in_file(label)
        if block is None:
            return False
        sound = list(row)
        sound[4], sound[5] = block.value, block.facts
        try:
            check(sound)
        except VersionDamaged:
            return False
        with self._journal.database.writing:
            self._journal.database.execute(
                "UPDATE revisions SET value = ?, facts = ? WHERE seq = ?", (block.value, block.facts, row[_SEQ])
            )
        self.repaired += 1
        return True

    def _check_heads(self) -> None:
        """See whether each head is that of the newest revision of its label."""
        with self._journal.database.reading:
            rows = self._journal.database.execute(
                "SELECT label, heads.path, heads.seq IS found.seq AND heads.version IS found.version "
                "AND heads.entries IS found.entries AND heads.agents IS found.agents "
                "FROM heads LEFT JOIN in_force AS found USING (label, version) WHERE label > ? ORDER BY label LIMIT ?",
                (self._label, _HEADS),
            ).fetchall()
        for label, path, is_right in rows:
            if path is not None and not is_right:
                raise JournalDamaged(
                    f"the journal's head of {label!r} is not its newest version", path=self._journal.path
                )
        self._label = rows[-1][0] if len(rows) == _HEADS else ""

    def _check_files(self) -> None:
        """Have some files read, though they look as they did: what they say is what is in force."""
        if not self._unread:
            self._unread = list(self._state.paths)
        for label in islice(reversed(self._unread), _FILES):
            path = self._state.paths.get(label)
            if path is not None and printable(path) not in self._problems:  # else it is known to say something else
                self._intake.hint_file(path, closed=False)
        del self._unread[-_FILES:]

    def _report(self) -> None:
        """Name what was taken out of the log, for as long as it is remembered."""
        with self._journal.database.reading:
            (count,) = self._journal.database.execute("SELECT count(*) FROM damaged").fetchone()
            named = self._journal.database.execute(
                "SELECT label, version FROM damaged ORDER BY seq LIMIT ?", (_NAMED,)
            ).fetchall()
        if not count:
            self._problems.remove(HISTORY)
            return
        versions = ", ".join(f"{label} v{version}" for label, version in named)
        others = f" and {count - _NAMED} more" if count > _NAMED else ""
        message = f"old versions were damaged in the journal, and are not shown any more: {versions}{others}"
        hint = "the blocks themselves are sound; look at the disk's health, and take history you miss from a backup"
        self._problems.set(Problem(HISTORY, "damaged_history", message, hint, warning=True))
