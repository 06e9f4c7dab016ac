"""Reads the log of revisions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from blocksd.errors import JournalDamaged, VersionDamaged
from blocksd.journal.agent_lists import AgentLists
from blocksd.journal.database import meta_of
from blocksd.journal.heads import read_columns, read_heads
from blocksd.journal.identity import FolderFacts
from blocksd.journal.opening import open_to_read
from blocksd.journal.row import AGENTS, ENTRIES, STORED, check, form_of, revision_of
from blocksd.model.block import block_id
from blocksd.model.revision import FILE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from blocksd.journal.database import Database
    from blocksd.journal.heads import Columns, Head
    from blocksd.journal.opening import Opened
    from blocksd.model.block import Block
    from blocksd.model.revision import Revision

_ENDLESS = 2**62
LAST = 32
"""Among how many of the last versions those are looked for that others wrote."""

_FEW = 8
_MANY = 100  # versions, among which one is looked for that a save puts back, or that took text away
_STORED = len(STORED.split(", "))
FORM = "coalesce((SELECT ifnull(form, 0) FROM forms WHERE label = in_force.label), '')"
"""Of a revision in force that is the newest of its label, the form of its file, as `row.form_of` takes it."""
_NEWEST = f"SELECT {STORED}, {FORM} FROM in_force WHERE label = ? ORDER BY version DESC LIMIT 1"  # noqa: S608  # constants


class HeadDigest(NamedTuple):
    """Facts of a block in force, to compare with the mirror without reading it; `agents` is how many it has."""

    label: str
    version: int
    digest: str
    agents: int
    id: str
    created_at: str
    at: str
    form: Mapping[str, str] | None = None
    """As `Revision.form`."""


class History:
    """Every version that is kept, and the head of each label.

    `seq` is that of the newest revision, `epoch` says of which journal it is. `generation` is that of its leader, and
    `newest_generation` the highest that it has met.
    """

    def __init__(self, database: Database, opened: Opened) -> None:
        self.database = database
        self.path = database.path
        self.lists = AgentLists(database)
        self.seq = opened.seq
        self.epoch = opened.epoch
        self.generation, self.newest_generation = opened.generation, opened.newest_generation
        self._unchecked = opened.unchecked

    def folder_facts(self) -> FolderFacts | None:
        """Return the facts of the folder whose revisions these are; None while it is unknown."""
        with self.database.reading:
            meta = meta_of(self.database)
        path, given, identity = (str(meta.get(name, "")) for name in ("folder", "folder_given", "folder_identity"))
        return FolderFacts(path, given, identity) if path else None

    def heads(self, *, in_force: bool = False) -> Iterator[Head]:
        """Yield the head of every label, deleted ones included unless only those `in_force` are wanted.

        Raise JournalDamaged if a head is not as it was written.
        """
        with self.database.reading:
            yield from read_heads(self.database, self.lists, in_force=in_force)

    def columns_of_heads(self) -> Iterator[Columns]:
        """Yield the heads of all blocks in force, sorted by label, many at a time. Raise JournalDamaged likewise."""
        with self.database.reading:
            yield from read_columns(self.database, self.lists)

    def digests(self, labels: Sequence[str]) -> list[HeadDigest]:
        """Return version and digest of those of these labels that are in force."""
        marks = ", ".join("?" * len(labels))
        with self.database.reading:
            rows = self.database.execute(
                "SELECT label, heads.version, digest, heads.agents, heads.origin, created_at, at, CASE WHEN forms.label IS NULL THEN '' ELSE ifnull(form, 0) END FROM heads JOIN revisions USING (label, seq) LEFT JOIN forms USING (label) "  # noqa: S608  # marks
                f"WHERE label IN ({marks}) AND path IS NOT NULL AND digest IS NOT NULL",
                tuple(labels),
            ).fetchall()
            return [
                HeadDigest(
                    *(label, version, digest, len(self.lists.attached[agents])),
                    *(block_id(origin or label), created_at, at, form_of(form)),
                )
                for label, version, digest, agents, origin, created_at, at, form in rows
            ]

    def origins(self) -> dict[str, str]:
        """Return what the ids of blocks in force are made of, where that is not the label."""
        with self.database.reading:
            rows = self.database.execute(
                "SELECT label, origin FROM heads WHERE origin IS NOT NULL AND path IS NOT NULL"
            )
            return dict(rows.fetchall())

    def count(self) -> int:
        """Return how many blocks are in force."""
        with self.database.reading:
            counted = "SELECT count(*) FROM heads WHERE substr(path, -3) = '.md'"  # without the properties of agents
            return int(self.database.execute(counted).fetchone()[0])

    def version_of(self, label: str) -> int:
        """Return the newest version of a label, deleted or not; 0 when none is known."""
        with self.database.reading:
            row = self.database.execute("SELECT version FROM heads WHERE label = ?", (label,)).fetchone()
            return int(row[0]) if row else 0

    def has_deleted(self, in_force: int) -> bool:
        """Return True if there are labels that no block has any more, beside so many that one has."""
        with self.database.reading:
            return int(self.database.execute("SELECT count(*) FROM heads").fetchone()[0]) > in_force

    def head(self, label: str) -> Revision | None:
        """Return the newest revision of a label; None when it never had one.

        Raise JournalDamaged if it is not as it was written.
        """
        with self.database.reading:
            try:
                row = self.database.execute(_NEWEST, (label,)).fetchone()
                found = self.revision_of(row, with_form=True) if row is not None else None
            except VersionDamaged as error:
                raise self._damaged(error) from error
            if found is not None and found.label != label:
                raise JournalDamaged(f"the journal has another block in the place of {label!r}", path=self.path)
            return found

    def revision(self, seq: int) -> Revision | None:
        """Return the revision of this number; None when it is not kept, or not in force yet."""
        with self.database.reading:
            return self._one("WHERE seq = ?", seq)

    def newest(self) -> Revision | None:
        """Return the newest revision of all; None when there never was one.

        Raise JournalDamaged if it is not as it was written.
        """
        with self.database.reading:
            try:
                return self._one("ORDER BY seq DESC LIMIT 1")
            except VersionDamaged as error:
                raise self._damaged(error) from error

    def _one(self, where: str, *arguments: object) -> Revision | None:
        row = self.database.execute(f"SELECT {STORED} FROM in_force {where}", arguments).fetchone()  # noqa: S608  # constants
        return self.revision_of(row) if row else None

    def history(
        self, label: str, *, limit: int = -1, damaged: list[VersionDamaged] | None = None, before: int | None = None
    ) -> list[Revision]:
        """Return a block's revisions, newest first, deletions included, and those under the labels it had before.

        With `before`, those of lower versions than that.
        Those that are not as they were written are not among them, but in `damaged`.
        Raise VersionDamaged if there is one, and no list for it.
        """
        found: list[Revision] = []
        with self.database.reading:
            for name, since, until in self._names(label):
                rows = self.database.execute(
                    f"SELECT {STORED} FROM in_force WHERE label = ? AND version < ? AND seq >= ? AND seq < ? "  # noqa: S608  # a constant
                    "ORDER BY version DESC LIMIT ?",
                    (
                        name,
                        _ENDLESS if before is None else before,
                        since,
                        until,
                        limit - len(found) if limit >= 0 else -1,
                    ),
                )
                for row in rows:
                    try:
                        found.append(self.revision_of(row))
                    except VersionDamaged as error:
                        if damaged is None:
                            raise
                        damaged.append(error)
        return found

    def version(self, label: str, version: int) -> Revision | None:
        """Return one version of a block, under the label it had then; None when it is not kept, or never was.

        If it had none of this number, that of the block which had the label before it.
        Raise VersionDamaged if it is not as it was written.
        """
        with self.database.reading:
            for name, since, before in (*self._names(label), (label, 0, _ENDLESS)):
                found = self._one(
                    "WHERE label = ? AND version = ? AND seq >= ? AND seq < ?", name, version, since, before
                )
                if found is not None:
                    return found
        return None

    def positions(self, label: str) -> dict[int, int | None]:
        """Return the versions of a block that are kept; for each that undo, redo or a renaming made, the one it stands at.

        What another block was under the same label, before that was given another, is not among them.
        """
        found: dict[int, int | None] = {}
        with self.database.reading:
            for name, since, before in self._names(label):
                (left,) = self.database.execute(
                    "SELECT coalesce(max(seq), 0) FROM in_force WHERE renamed_from = ? AND seq < ?", (name, before)
                ).fetchone()
                found.update(
                    self.database.execute(
                        "SELECT version, position FROM in_force WHERE label = ? AND seq >= ? AND seq < ?",
                        (name, max(since, left), before),
                    )
                )
        return found

    def by_others(self, label: str) -> list[int]:
        """Return the last few versions of a block that were not saved in its file, newest first."""
        saved = f"author = '{FILE}' AND request_id IS NULL"
        return [version for version, is_saved, _ in self._last(label, saved, LAST) if not is_saved][:_FEW]

    def versions_like(self, label: str, block: Block) -> list[int]:
        """Return those of the last versions of a block, also under labels it had before, that said this, newest first."""
        digests: dict[str, str] = {}  # the label is a part of what is digested
        found: list[int] = []
        for version, digest, name in self._last(label, "digest", _MANY):
            if name not in digests:
                digests[name] = block.named(name).digest
            if digest == digests[name]:
                found.append(version)
        return found

    def reverted(self, label: str) -> tuple[int, ...]:
        """Return the versions whose text the newest save took away that took any, of the last versions of a block."""
        found = next((reverts for _, reverts, _ in self._last(label, "reverts", _MANY) if reverts), "")
        return tuple(map(int, filter(None, found.split(","))))

    def _last(self, label: str, column: str, count: int) -> list[tuple[int, Any, str]]:
        """Return the last versions of a block, newest first, each with what is in this column, and the label it had then."""
        found: list[tuple[int, Any, str]] = []
        name: str | None = label
        before = _ENDLESS
        with self.database.reading:
            while name is not None and len(found) < count:
                rows = self.database.execute(
                    f"SELECT version, {column}, seq, renamed_from FROM in_force WHERE label = ? AND seq < ? "  # noqa: S608  # constants
                    "ORDER BY version DESC LIMIT ?",
                    (name, before, count - len(found)),
                ).fetchall()
                its, name = name, None
                for version, what, seq, renamed_from in rows:
                    found.append((version, what, its))
                    if renamed_from is not None:
                        name, before = renamed_from, seq
                        break
        return found

    def _names(self, label: str) -> Iterator[tuple[str, int, int]]:
        """Yield the labels that a block has had, newest first, each with the seqs from which and before which it had it."""
        name: str | None = label
        before = _ENDLESS
        while name is not None:
            renamed = self.database.execute(
                "SELECT seq, renamed_from FROM in_force WHERE label = ? AND seq < ? AND renamed_from IS NOT NULL "
                "ORDER BY seq DESC LIMIT 1",
                (name, before),
            ).fetchone()
            since, earlier = renamed if renamed is not None else (0, None)
            yield name, since, before
            name, before = earlier, since

    def renamed_to(self, label: str) -> str | None:
        """Return the newest label of the block that had this one last; None when it was not given another."""
        with self.database.reading:
            newest = self.database.execute("SELECT seq FROM heads WHERE label = ?", (label,)).fetchone()
            name, since = label, newest[0] if newest is not None else 0
            while renamed := self.database.execute(
                "SELECT label, seq FROM in_force WHERE renamed_from = ? AND seq > ? ORDER BY seq LIMIT 1",
                (name, since),
            ).fetchone():
                name, since = renamed
        return name if name != label else None

    def unmerged(self) -> list[str]:
        """Return the labels whose newest revision is a stale save that is still to be merged."""
        with self.database.reading:
            rows = self.database.execute(
                "SELECT label FROM revisions CROSS JOIN heads USING (label, seq) "  # the few stale saves first
                "WHERE stale_base IS NOT NULL AND path IS NOT NULL"
            )
            return [label for (label,) in rows]

    def revision_of(self, row: Sequence[Any], *, with_form: bool = False) -> Revision:
        """Return the revision in a row of `STORED`, or, `with_form`, of that and `FORM`.

        Raise VersionDamaged if it is not as it was written.
        """
        form = form_of(row[_STORED]) if with_form else None
        if with_form:
            row = row[:_STORED]
        if len(row) == _STORED:
            check(row, unchecked=self._unchecked)
        return revision_of(row, self.lists.written[row[ENTRIES]], self.lists.attached[row[AGENTS]], form)

    def check(self, row: Sequence[Any]) -> None:
        """Check that a row of `STORED` is as it was written; one of `COLUMNS` is of a revision that is still to be.

        Raise VersionDamaged if it is not.
        """
        if len(row) == _STORED:
            check(row, unchecked=self._unchecked)

    def _damaged(self, error: VersionDamaged) -> JournalDamaged:
        """Return damage of a version as damage of the journal: the present cannot be done without."""
        return JournalDamaged(error.message, path=self.path)


class JournalReader(History):
    """The log as any process may read it, while the daemon writes on; `seq` was the newest when it was opened.

    If it `is_pending`, the daemon was ended before what it had done last was in force.
    """

    def __init__(self, path: str) -> None:
        """Open an existing journal for reading. Raise JournalUnusable if there is none, or it cannot be read."""
        database, opened = open_to_read(path)
        super().__init__(database, opened)
        self.is_pending = opened.is_pending

    def close(self) -> None:
        self.database.close()
