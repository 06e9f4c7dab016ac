"""The blocks and files that the requests of one round have touched, as they are to become. Nothing here writes anything."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from blocksd.errors import BlocksdError, InvalidFile, JournalUnusable, NotFound, ProblemFile, Unavailable
from blocksd.files.document import Parser, decode, split
from blocksd.files.file_edit import FileEdit, Postponed, Sheet, edited
from blocksd.files.folder import Absent, Busy, Refused, Text
from blocksd.files.links import through_symlink
from blocksd.journal.row import chars_of
from blocksd.model.label import path_of_label, printable
from blocksd.model.revision import MERGE
from blocksd.state.stale import merged

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from blocksd.files.folder import Folder
    from blocksd.model.block import Block
    from blocksd.model.revision import Revision
    from blocksd.state.state import Ledger

    Mark = tuple[dict[str, Sheet], set[str], set[str], set[str], int]


_FILE_CHARS = (
    32 * 1024
)  # how many characters are written and synced in the time that making one file or directory takes


class Desk:
    """Requests of one round, one after the other, each on top of those before.

    Invariants:
      1. a request that is refused has changed nothing: neither the sheets nor the ledger;
      2. the ledger's drafts and the files' edits say the same.
    """

    def __init__(self, folder: Folder, ledger: Ledger) -> None:
        self._folder = folder
        self.ledger = ledger
        self._parser = Parser()
        self.begin()

    def begin(self, unwritable: Mapping[str, BlocksdError] | None = None) -> None:
        """A new round. `unwritable` are files that could not be written to, and why: requests to them are refused."""
        self._unwritable = unwritable or {}
        self.sheets: dict[str, Sheet] = {}
        self.folders_made: set[str] = set()
        self.folders_gone: set[str] = set()
        self.agents_gone: set[str] = set()  # were deleted by a request, whether they came again or not
        self.directories: set[str] = set()  # that are to be made for files
        self.work = 0
        self._unmergeable: set[str] = set()  # blocks whose stale saves stay as they are
        self.ledger.begin()

    @property
    def mark(self) -> Mark:
        """What is on the desk and in the ledger at this moment, for `back_to`."""
        return self.sheets, self.folders_made, self.folders_gone, self.agents_gone, self.ledger.mark

    def back_to(self, mark: Mark) -> None:
        """Take back all that was done since the mark, in both."""
        self.sheets, self.folders_made, self.folders_gone, self.agents_gone, in_ledger = mark
        self.ledger.back_to(in_ledger)

    def merge_first(self, label: str) -> None:
        """Merge a stale save of this block before anything is made of it: a request on top of it would stand for good.

        A save that cannot be merged stays as it is.

        Raises:
            Postponed, Unavailable, ProblemFile: the file cannot be read or written now.
        """
        newest = self.ledger.newest(label)
        if newest is None or newest.stale_base is None or label in self._unmergeable:
            return
        try:
            self.merge_stale(label)
        except (Unavailable, ProblemFile, JournalUnusable):
            raise
        except BlocksdError:
            self._unmergeable.add(label)

    def merge_stale(self, label: str) -> None:
        """Put a stale save, which is the newest revision, and what had been written before it together.

        Raises:
            Postponed, BlocksdError: it cannot be done (yet).
        """
        newest = self.ledger.newest(label)
        if newest is None or newest.block is None or newest.stale_base is None:
            return
        sheet = self.open(label)
        base, before = self.version(label, newest.stale_base), self.version(label, newest.version - 1)
        while before.stale_base is not None:
            before = self.version(label, before.version - 1)
        if sheet.block is None or sheet.document is None or base.block is None or before.block is None:
            return
        block = merged(base.block, sheet.block, before.block)
        document = edited(sheet.document, sheet.block, block)
        self.ledger.put(block, author=MERGE)
        self.sheets = {**self.sheets, label: replace(sheet, block=block, document=document)}

    def edits(self) -> list[FileEdit]:
        """What the files are to become."""
        return [
            FileEdit(sheet.path, sheet.base, sheet.data, sheet.like)
            for sheet in self.sheets.values()
            if sheet.data != sheet.base
        ]

    @property
    def load(self) -> int:
        """How much there is to write by now: about as many characters in revisions and files, and what was gone through."""
        made = len(self.sheets) + len(self.directories)
        return sum(map(chars_of, self.ledger.drafted)) + _FILE_CHARS * made + self.work

    @property
    def paths(self) -> dict[str, str]:
        """The files of the blocks that were touched: label → path."""
        return {label: sheet.path for label, sheet in self.sheets.items() if sheet.block is not None}

    @property
    def gone(self) -> dict[str, str]:
        """The files of the blocks that are no more: label → path."""
        return {label: sheet.path for label, sheet in self.sheets.items() if sheet.block is None}

    # --- what is there ---

    def open(self, label: str) -> Sheet:
        """A block's file as it is now.

        Raises:
            Postponed: it is not what the ledger says, or is being written.
            ProblemFile: it has a problem, so that nothing may be written to it.
            Unavailable: it cannot be read for now.
        """
        if label in self.sheets:
            return self.sheets[label]
        path = self.ledger.paths.get(label)
        self.check_writable(path or path_of_label(label))
        reading = self._folder.read(path or path_of_label(label), closed=True)
        if path is None:
            if isinstance(reading, Absent):
                return Sheet(path_of_label(label), None)
            path = path_of_label(label)
            if isinstance(reading, Refused) and "errno" in reading.error.facts:
                raise _problem(label, reading.error)
            if path not in self.ledger.signatures:
                raise Postponed(path)
            raise ProblemFile(
                f"there is a file {printable(path)} that is not in force", label=label, hint="see its problem first"
            )
        if not isinstance(reading, Text):
            if isinstance(reading, Refused):
                raise _problem(label, reading.error)
            raise Postponed(path, is_open=isinstance(reading, Busy) and reading.is_open)
        try:
            block = self.parse(reading.data, label)
        except InvalidFile as error:
            raise _problem(label, error) from None
        if block != self.ledger.block(label):
            raise Postponed(path)
        return Sheet(path, reading.data, block, split(decode(reading.data)))

    def others(self, directory: str, ours: Collection[str]) -> Iterator[str]:
        """The files in a directory and below it that are not ours: those that nobody misses are left out."""
        return (path for path in self._folder.content(directory) if path not in ours)

    def has_directory(self, path: str) -> bool:
        """Return True if there is something at a path below the folder, or that cannot be told: staging tells more."""
        try:
            return path in self.directories or self._folder.directory.exists(path)
        except OSError:
            return True

    def check_writable(self, path: str) -> None:
        """Raises what was raised when this path was written to in this round."""
        if path in self._unwritable:
            raise self._unwritable[path]

    def check_no_symlink(self, path: str) -> None:
        """Raises ProblemFile when a path leads through a symlink: the path of a directory ends in a slash."""
        refusal = through_symlink(self._folder.directory, path)
        if refusal is not None:
            raise refusal

    def parse(self, data: bytes, label: str) -> Block:
        """The block a file says. Raises InvalidFile when it says none."""
        return self._parser.parse(data, label)[0]

    def version(self, label: str, version: int) -> Revision:
        """A version of a block.

        Raises:
            NotFound: it is not kept, or never was.
        """
        found = self.ledger.version(label, version)
        if found is None:
            raise NotFound(f"version {version} of {label!r} is not kept", label=label, version=version)
        return found


def _problem(label: str, error: BlocksdError) -> ProblemFile | Unavailable:
    if "errno" in error.facts:
        return Unavailable(f"the file of {label!r} cannot be used now: {error.message}", label=label, **error.facts)
    return ProblemFile(f"the file of {label!r} has a problem: {error.message}", label=label, **error.facts)
