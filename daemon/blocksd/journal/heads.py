"""Reads the head of each label: its newest version, with the file that says it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from unicodedata import normalize

from blocksd.errors import JournalDamaged
from blocksd.files.folder import NO_SIGNATURE, unpacked
from blocksd.model.label import is_properties

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blocksd.files.folder import Signature
    from blocksd.journal.agent_lists import AgentLists
    from blocksd.journal.database import Database

_SIZE = len(NO_SIGNATURE)
_TOGETHER = 65_536
_COLUMNS = f"""
    SELECT count(*), group_concat(label, char(10)), group_concat(path, char(10)), group_concat(version),
        group_concat(coalesce(entries, 0)), group_concat(coalesce(agents, 0)),
        CAST(group_concat(coalesce(signature, zeroblob({_SIZE})), '') AS BLOB), count(origin), min(seq), max(seq)
    FROM heads WHERE path IS NOT NULL
"""  # noqa: S608  # a constant


class Head(NamedTuple):
    """The head of a label: its newest version, and the file it was read from (None: deleted)."""

    label: str
    version: int
    entries: tuple[str, ...]
    agents: frozenset[str]
    path: str | None
    signature: Signature | None


class Columns(NamedTuple):
    """The heads of many blocks in force, column by column, sorted by label: a start takes them over with no object for each.

    `signatures` are packed, one after the other. `odd` are the numbers of those whose file is not named as most are,
    with its path. `origins` are what the ids of some are made of, where that is not the label.
    """

    labels: list[str]
    versions: list[int]
    entries: list[tuple[str, ...]]
    agents: list[frozenset[str]]
    signatures: bytes
    odd: dict[int, str]
    origins: dict[str, str]


def read_heads(database: Database, lists: AgentLists, *, in_force: bool) -> Iterator[Head]:
    """Yield the heads of all labels, deleted ones included unless only those `in_force` are wanted.

    Raise JournalDamaged if a head is not as it was written.
    """
    lists.read_ahead()
    rows = database.execute(
        "SELECT label, version, entries, agents, path, signature FROM heads WHERE path IS NOT NULL OR NOT ?",
        (in_force,),
    )
    written, attached = lists.written, lists.attached
    for label, version, entries, agents, path, signature in rows:
        if path is not None and not _is_path_of(path, label):
            raise _wrong_path(database, label, path)
        known = unpacked(signature) if signature is not None and len(signature) == _SIZE else None
        yield Head(label, version, written[entries], attached[agents], path, known)


def read_columns(database: Database, lists: AgentLists) -> Iterator[Columns]:
    """Yield the heads of all blocks in force, many at a time: SQLite joins each column, which is split here.

    Raise JournalDamaged if a head is not as it was written.
    """
    lists.read_ahead()
    if {*database.execute("SELECT typeof(min(label)), typeof(max(label)) FROM heads").fetchone()} - {"text", "null"}:
        raise _wrong(database)  # all others lie between these
    after: tuple[str, ...] = ()
    while True:
        bound = "AND label > ?" if after else ""
        last = database.execute(
            f"SELECT label FROM heads WHERE TRUE {bound} ORDER BY label LIMIT 1 OFFSET {_TOGETHER}",  # noqa: S608  # constants
            after,
        ).fetchone()
        bounds = (*after, *(last or ()))
        row = database.execute(f"{_COLUMNS} {bound} {'AND label <= ?' if last else ''}", bounds).fetchone()
        if row[0]:
            yield _columns_of(database, lists, row)
        if last is None:
            return
        after = last


def _columns_of(database: Database, lists: AgentLists, row: tuple[Any, ...]) -> Columns:
    count, labels, paths, versions, entries, agents, signatures, renamed, first, last = row
    names = labels.split("\n")
    columns = versions.split(","), entries.split(","), agents.split(",")
    try:
        if any(len(column) != count for column in (names, *columns)) or not (first > 0 and last > 0):
            raise _wrong(database)
        numbers = list(map(int, columns[0]))
        if min(numbers) < 1:
            raise _wrong(database)
        written = {text: lists.written[int(text) or None] for text in set(columns[1])}
        attached = {text: lists.attached[int(text) or None] for text in set(columns[2])}
    except (ValueError, TypeError):
        raise _wrong(database) from None
    if len(signatures) != count * _SIZE:
        signatures = bytes(count * _SIZE)  # each file is read again
    lists_of = list(map(written.__getitem__, columns[1])), list(map(attached.__getitem__, columns[2]))
    odd: dict[int, str] = {}
    if paths != labels.replace("\n", ".md\n") + ".md":
        odd = _odd_paths(database, names)
    return Columns(names, numbers, *lists_of, signatures, odd, _origins(database, names) if renamed else {})


def _odd_paths(database: Database, labels: list[str]) -> dict[int, str]:
    """Return, by their numbers, the paths of those of these labels, which are sorted, that are not named as most are."""
    rows = database.execute(
        "SELECT label, path FROM heads WHERE path <> label || '.md' AND label BETWEEN ? AND ?", (labels[0], labels[-1])
    ).fetchall()
    for label, path in rows:
        if not _is_path_of(path, label):
            raise _wrong_path(database, label, path)
    odd = dict(rows)
    return {number: odd[label] for number, label in enumerate(labels) if label in odd}


def _origins(database: Database, labels: list[str]) -> dict[str, str]:
    rows = database.execute(
        "SELECT label, origin FROM heads WHERE origin IS NOT NULL AND path IS NOT NULL AND label BETWEEN ? AND ?",
        (labels[0], labels[-1]),
    )
    return dict(rows.fetchall())


def _wrong(database: Database) -> JournalDamaged:
    return JournalDamaged("the journal's heads are not what was written", path=database.path)


def _wrong_path(database: Database, label: str, path: str) -> JournalDamaged:
    return JournalDamaged(f"the journal has {path!r} as the file of {label!r}", path=database.path)


def _is_path_of(path: str, label: str) -> bool:
    stem = path if is_properties(label) else path[:-3]
    return stem == label or normalize("NFC", stem) == label
