"""The blocks and files that the requests of one round have touched, as they are to become. Nothing here writes anything."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from blocksd.errors import BlocksdError, InvalidFile, ProblemFile, Unavailable
from blocksd.files.document import decode, serialize, split
from blocksd.files.file_edit import BlockFile, FileEdit, Postponed
from blocksd.files.folder import Absent, Busy, Refused, Text, unproven
from blocksd.files.links import through_symlink
from blocksd.journal.row import chars_of
from blocksd.model.label import path_of_label, printable, rejected_path
from blocksd.state.overlay import FORGOTTEN

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from blocksd.files.document import Parser
    from blocksd.files.folder import Folder, Reading, Signature
    from blocksd.model.revision import Revision
    from blocksd.state.state_draft import StateDraft

_MOST_REJECTED = 100
# How many characters are written and synced in the time that making one file or directory takes.
_FILE_CHARS = 32 * 1024


@dataclass(eq=False)
class Workspace:
    """The blocks and files that the requests of one round touch, each request on top of those before. Nothing is written.

    Each request has a changeset, which becomes part of the workspace at its end. `read` are files that were read in this
    round, `unwritable` those that could not be written to, and why.

    Invariants:
      1. a request that is refused has changed nothing: neither the files nor the draft;
      2. the draft's revisions and the files' edits say the same.
    """

    folder: Folder
    draft: StateDraft
    parser: Parser
    read: Mapping[str, Reading] = field(default_factory=dict)
    unwritable: Mapping[str, BlocksdError] = field(default_factory=dict)
    files: dict[str, BlockFile] = field(default_factory=dict)
    folders_made: set[str] = field(default_factory=set)
    folders_gone: set[str] = field(default_factory=set)
    agents_gone: set[str] = field(default_factory=set)
    """Agents that were deleted by a request, whether they came again or not."""
    directories: set[str] = field(default_factory=set)
    """Directories that are to be made for files."""
    is_recent: Callable[[Revision, float], bool] = lambda *_: False
    """Returns True if a revision was written in a share of the stale window before now."""
    work: int = 0
    unmergeable: set[str] = field(default_factory=set)
    """Blocks whose stale saves stay as they are."""
    rejected: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    """Texts of files that were repaired, to be kept in files beside them: path → text and the path that it had."""
    is_changed: bool = False
    """True if `draft` is of the requests, and not what they began with."""

    def take(self, draft: StateDraft, files: Mapping[str, BlockFile]) -> None:
        """Take over a draft on top of the present one, with the files that go with it."""
        if self.is_changed:
            self.draft.absorb(draft)
        else:
            self.draft, self.is_changed = draft, True
        self.files.update(files)

    def outcome(self) -> tuple[list[FileEdit], dict[str, str], dict[str, str]]:
        """Return the edits of files that the requests come to, the files of the blocks touched, and those of blocks gone."""
        return self.edits(), self.paths, self.gone

    def edits(self) -> list[FileEdit]:
        """The edits of files that the requests come to."""
        changed = [file for file in self.files.values() if file.data != file.base]
        kept = [FileEdit(path, None, data, like) for path, (data, like) in self.rejected.items()]
        return [*kept, *(FileEdit(file.path, file.base, file.data, file.like, file.signature) for file in changed)]

    @property
    def load(self) -> int:
        """How much there is to write so far: about as many characters in revisions and files, and what was gone through."""
        made = len(self.files) + len(self.directories)
        revisions = self.draft.revisions if self.is_changed else ()
        return sum(map(chars_of, revisions)) + _FILE_CHARS * made + self.work

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
        path, in_force = self.draft.in_force_at(label)
        place = path or path_of_label(label)
        if place in self.unwritable:
            raise self.unwritable[place]
        reading = self.read.get(place) or self.folder.read(place, closed=True)
        if path is None:
            if isinstance(reading, Absent):
                return BlockFile(place, None)
            if isinstance(reading, Refused) and "errno" in reading.error.facts:
                raise _problem(label, place, reading.error)
            if self.draft.signature_of(place) == FORGOTTEN:
                raise Postponed(place)
            raise ProblemFile(
                f"there is a file {printable(place)} that is not in force", label=label, hint="see its problem first"
            )
        if not isinstance(reading, Text):
            if isinstance(reading, Refused):
                raise _problem(label, path, reading.error)
            raise Postponed(path, is_open=isinstance(reading, Busy) and reading.is_open)
        try:
            block, document = self.parser.open(reading.data, label)
        except InvalidFile as error:
            raise _problem(label, path, error) from None
        if block != in_force:
            raise Postponed(path)
        signature: Signature | None = reading.signature
        if not reading.signature[1]:  # it is unproven
            # Of a text that was written just now, by us: no later one can have it.
            known = self.draft.signature_of(path)
            signature = known if known is not None and unproven(known) == reading.signature else None
        return BlockFile(path, reading.data, reading.data, block, document, signature=signature, mode=reading.mode)

    def broken(self, label: str) -> tuple[BlockFile, str] | None:
        """A block's file with a problem, as it is to say again what is in force, and the path where its text is to be kept.

        If no such block is in force, the file is none's: a block may be made in its place. None: the file has no problem, or
        none that its text is the reason of.
        """
        if label in self.files:
            return None
        path, in_force = self.draft.in_force_at(label)
        path = path or path_of_label(label)
        reading = self.read.get(path) or self.folder.read(path, closed=True)
        if not isinstance(reading, Text):
            return None
        try:
            self.parser.open(reading.data, label)
        except InvalidFile:
            kept = self._free(path)
        else:
            return None
        if in_force is None:
            return BlockFile(path, reading.data, reading.data, mode=reading.mode), kept
        document = split(decode(serialize(in_force)), label)
        data = self.parser.confirm(document, in_force)
        return BlockFile(path, reading.data, data, in_force, document, mode=reading.mode), kept

    def _free(self, path: str) -> str:
        """A path for the text of a file that is repaired, where nothing is."""
        names = (rejected_path(path, number) for number in range(1, _MOST_REJECTED))
        found = next((one for one in names if one not in self.rejected and not self.has_directory(one)), None)
        if found is None:
            raise ProblemFile(f"{printable(path)} was repaired too often", path=path, hint="remove the texts beside it")
        return found

    def others(self, directory: str, ours: Collection[str | None]) -> Iterator[str]:
        """The files in a directory and below it that are not ours: those that nobody misses are left out."""
        return (path for path in self.folder.content(directory) if path not in ours)

    def has_directory(self, path: str) -> bool:
        """Return True if there is something at a path below the folder, or that cannot be told: staging tells more."""
        try:
            return path in self.directories or self.folder.directory.exists(path)
        except OSError:
            return True

    def check_writable(self, path: str) -> None:
        """Raises what was raised when this path was written to in this round."""
        if path in self.unwritable:
            raise self.unwritable[path]

    def check_no_symlink(self, path: str) -> None:
        """Raises ProblemFile when a path leads through a symlink: the path of a directory ends in a slash."""
        refusal = through_symlink(self.folder.directory, path)
        if refusal is not None:
            raise refusal


def _problem(label: str, path: str, error: BlocksdError) -> ProblemFile | Unavailable:
    if "errno" in error.facts:  # as in the problem of the file
        return Unavailable(f"{printable(path)}: {error.message}", label=label, path=printable(path), **error.facts)
    return ProblemFile(f"the file of {label!r} has a problem: {error.message}", label=label, **error.facts)
