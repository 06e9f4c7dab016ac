"""Reads the head of each label: its newest version, with the file that says it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from unicodedata import normalize

from blocksd.errors import JournalDamaged
from blocksd.model.label import is_properties

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from blocksd.files.folder import Signature
    from blocksd.journal.agent_lists import AgentLists
    from blocksd.journal.database import Database

_TOGETHER = 1000


class Head(NamedTuple):
    """The head of a label: its newest version, and the file it was read from (None: deleted)."""

    label: str
    version: int
    entries: tuple[str, ...]
    agents: frozenset[str]
    path: str | None
    signature: Signature | None


class Columns(NamedTuple):
    """Many heads, column by column: a daemon that starts takes them over without an object for each.

    The `numbers` of a signature are those of `Signature`; they are None if it proves nothing.
    """

    labels: Sequence[str]
    versions: Sequence[int]
    entries: Sequence[tuple[str, ...]]
    agents: Sequence[frozenset[str]]
    paths: Sequence[str]
    numbers: tuple[Sequence[int], ...]

    def heads(self) -> Iterator[Head]:
        """Yield each of them."""
        columns = (self.labels, self.versions, self.entries, self.agents, self.paths, zip(*self.numbers, strict=True))
        for label, version, entries, agents, path, numbers in zip(*columns, strict=True):
            yield Head(label, version, entries, agents, path, numbers if numbers[0] is not None else None)


def read_heads(database: Database, lists: AgentLists, *, in_force: bool) -> Iterator[Columns]:
    """Yield the heads of all labels, deleted ones included unless only those `in_force` are wanted, a thousand at a time.

    Raise JournalDamaged if a head is not as it was written.
    """
    lists.read_ahead()
    rows = database.execute(
        "SELECT label, version, entries, agents, path, mtime_ns, ctime_ns, size, inode FROM heads "
        "WHERE path IS NOT NULL OR NOT ?",
        (in_force,),
    )
    written, attached = lists.written, lists.attached
    while some := rows.fetchmany(_TOGETHER):
        labels, versions, entries, agents, paths, *numbers = zip(*some, strict=True)
        for label, path in zip(labels, paths, strict=True):
            if path is not None and path[:-3] != label and not _is_path_of(path, label):
                raise JournalDamaged(f"the journal has {path!r} as the file of {label!r}", path=database.path)
        lists_of = [written[number] for number in entries], [attached[number] for number in agents]
        yield Columns(labels, versions, *lists_of, paths, tuple(numbers))


def _is_path_of(path: str, label: str) -> bool:
    return normalize("NFC", path if is_properties(label) else path[:-3]) == label
