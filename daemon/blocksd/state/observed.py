"""The folder as it was seen in one round, and what follows from that besides revisions: values, decided on and then followed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from blocksd.errors import BlocksdError
    from blocksd.files.folder import Reading
    from blocksd.model.block import Block
    from blocksd.model.problem import Problem, Warned


class FileRead(NamedTuple):
    """One file as it was read. A text that is no block has an `error`, and so has a file whose writer never ends."""

    path: str
    reading: Reading
    label: str | None = None
    block: Block | None = None
    warnings: tuple[Warned, ...] = ()
    error: BlocksdError | None = None
    is_known: bool = False
    """True if it is the file of a block in force."""


@dataclass(slots=True)
class Observed:
    """The folder as it was seen in one round: values that nothing follows from yet.

    `deleted` are files that have been missing for long enough; `folders` tells of some agents whether they have a private
    folder, `all_folders` names all that have one, if a whole folder was seen.
    """

    files: list[FileRead] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    folders: dict[str, bool] = field(default_factory=dict)
    all_folders: set[str] | None = None
    has_looked: bool = False
    """True if anything was looked at; else nothing follows from it."""


@dataclass(slots=True)
class FileNews:
    """Consequences of a round besides revisions: problems, and which files to read again. All of it is by path."""

    reports: dict[str, Problem | None] = field(default_factory=dict)
    """The problem that a file has now, or that it has none."""
    missing: dict[str, bool] = field(default_factory=dict)
    """Of files of blocks in force: that they are not there, or are there (again)."""
    later: dict[str, float] = field(default_factory=dict)
    """Files to read again after so many seconds: one whose label another one has that is missing, after the grace of that; a new
    one that seems to be a moved one, once it was seen for a while that the old name is gone."""
    blocked: dict[str, str] = field(default_factory=dict)
    """Files whose label another one has, with that label."""
    halves: dict[str, float] = field(default_factory=dict)
    """Files of blocks in force that may hold half of a save, and when they were saved: to be read again in a moment."""
    moved: list[str] = field(default_factory=list)
    """The names that moved files had."""
    heirs: dict[str, str] = field(default_factory=dict)
    """Moved files that are in force under their old names, since they have problems under the new ones: new → old."""
    links: dict[str, tuple[tuple[str, ...], int | None]] = field(default_factory=dict)
    """Where files lead, and their inodes if they have several names: what `Links.note` takes."""
    named_anew: set[str] = field(default_factory=set)
    """New files that have another name somewhere."""
