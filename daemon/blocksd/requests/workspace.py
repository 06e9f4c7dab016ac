"""The blocks and files that the requests of one round have touched, as they are to become. Nothing here writes anything."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from blocksd.errors import BlocksdError, InvalidFile, JournalUnusable, NotFound, ProblemFile, Unavailable
from blocksd.files.document import decode, split
from blocksd.files.file_edit import BlockFile, FileEdit, Postponed, edited
from blocksd.files.folder import Absent, Busy, Refused, Text
from blocksd.files.links import through_symlink
from blocksd.journal.row import chars_of
from blocksd.model.label import path_of_label, printable
from blocksd.model.revision import MERGE
from blocksd.state.overlay import FORGOTTEN
from blocksd.state.stale import merged
from blocksd.state.state_draft import StateDraft

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from blocksd.files.document import Parser
    from blocksd.files.folder import Folder, Reading
    from blocksd.model.block import Block
    from blocksd.model.revision import Revision

_FILE_CHARS = (
    32 * 1024
)  # how many characters are written and synced in the time that making one file or directory takes


class Workspace:
    """The blocks and files that the requests of one round touch, each request on top of those before. Nothing is written.

    Invariants:
      1. a request that is refused has changed nothing: neither the files nor the draft;
      2. the draft's revisions and the files' edits say the same.
    """

    def __init__(
        self,
        folder: Folder,
        draft: StateDraft,
        parser: Parser,
        *,
        read: Mapping[str, Reading] | None = None,
        unwritable: Mapping[str, BlocksdError] | None = None,
    ) -> None:
        """`read` are files that were read in this round, `unwritable` those that could not be written to, and why."""
        self._folder = folder
        self._read = read or {}
        self._unwritable = unwritable or {}
        self._parser = parser
        self.draft = draft
        self.files: dict[str, BlockFile] = {}
        self.folders_made: set[str] = set()
        self.folders_gone: set[str] = set()
        self.agents_gone: set[str] = set()  # were deleted by a request, whether they came again or not
        self.directories: set[str] = set()  # that are to be made for files
        self.work = 0
        self._unmergeable: set[str] = set()  # blocks whose stale saves stay as they are

    @contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """Changes within are kept if all goes well; after an error, all is as it was before."""
        before, draft = (self.files, self.folders_made, self.folders_gone, self.agents_gone), self.draft
        self.draft = StateDraft(draft.state, draft.at, draft)
        try:
            yield
            draft.absorb(self.draft)
        except BaseException:
            self.files, self.folders_made, self.folders_gone, self.agents_gone = before
            raise
        finally:
            self.draft = draft

    def merge_first(self, label: str) -> None:
        """Merge a stale save of this block before anything is made of it: a request on top of it would stand for good.

        A save that cannot be merged stays as it is.

        Raises:
            Postponed, Unavailable, ProblemFile: the file cannot be read or written now.
        """
        newest = self.draft.newest(label)
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
        newest = self.draft.newest(label)
        if newest is None or newest.block is None or newest.stale_base is None:
            return
        file = self.open(label)
        base, before = self.version(label, newest.stale_base), self.version(label, newest.version - 1)
        while before.stale_base is not None:
            before = self.version(label, before.version - 1)
        if file.block is None or file.document is None or base.block is None or before.block is None:
            return
        block = merged(base.block, file.block, before.block)
        document = edited(file.document, file.block, block)
        self.draft.put(block, author=MERGE)
        self.files = {**self.files, label: replace(file, block=block, document=document)}

    def edits(self) -> list[FileEdit]:
        """The edits of files that the requests come to."""
        changed = [(file, data) for file in self.files.values() if (data := file.data) != file.base]
        return [FileEdit(file.path, file.base, data, file.like) for file, data in changed]

    @property
    def load(self) -> int:
        """How much there is to write so far: about as many characters in revisions and files, and what was gone through."""
        made = len(self.files) + len(self.directories)
        return sum(map(chars_of, self.draft.revisions)) + _FILE_CHARS * made + self.work

    @property
    def paths(self) -> dict[str, str]:
        """The files of the blocks that were touched: label → path."""
        return {label: file.path for label, file in self.files.items() if file.block is not None}

    @property
    def gone(self) -> dict[str, str]:
        """The files of the blocks that are no more: label → path."""
        return {label: file.path for label, file in self.files.items() if file.block is None}

    # --- what is there ---

    def open(self, label: str) -> BlockFile:
        """A block's file as it is now.

        Raises:
            Postponed: it is not what the state says, or is being written.
            ProblemFile: it has a problem, so that nothing may be written to it.
            Unavailable: it cannot be read for now.
        """
        if label in self.files:
            return self.files[label]
        path = self.draft.path_of(label)
        place = path or path_of_label(label)
        if place in self._unwritable:
            raise self._unwritable[place]
        reading = self._read.get(place) or self._folder.read(place, closed=True)
        if path is None:
            if isinstance(reading, Absent):
                return BlockFile(place, None)
            if isinstance(reading, Refused) and "errno" in reading.error.facts:
                raise _problem(label, reading.error)
            if self.draft.signature_of(place) == FORGOTTEN:
                raise Postponed(place)
            raise ProblemFile(
                f"there is a file {printable(place)} that is not in force", label=label, hint="see its problem first"
            )
        if not isinstance(reading, Text):
            if isinstance(reading, Refused):
                raise _problem(label, reading.error)
            raise Postponed(path, is_open=isinstance(reading, Busy) and reading.is_open)
        try:
            block = self.parse(reading.data, label)
        except InvalidFile as error:
            raise _problem(label, error) from None
        if block != self.draft.block(label):
            raise Postponed(path)
        return BlockFile(path, reading.data, block, split(decode(reading.data)))

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
        found = self.draft.version(label, version)
        if found is None:
            raise NotFound(f"version {version} of {label!r} is not kept", label=label, version=version)
        return found


def _problem(label: str, error: BlocksdError) -> ProblemFile | Unavailable:
    if "errno" in error.facts:
        return Unavailable(f"the file of {label!r} cannot be used now: {error.message}", label=label, **error.facts)
    return ProblemFile(f"the file of {label!r} has a problem: {error.message}", label=label, **error.facts)
