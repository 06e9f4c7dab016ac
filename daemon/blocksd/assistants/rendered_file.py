"""A file that holds an agent's memory between markers: written whole, only when it changes, and never over an edit."""

from __future__ import annotations

import errno
import os
import stat
import time
from contextlib import suppress
from enum import Enum

from blocksd.assistants.section import find, outside, replaced
from blocksd.errors import BrokenMarkers, InvalidFile, ProblemFile, Unavailable, Undecided
from blocksd.files.file_edit import FileEdit
from blocksd.files.root import Root
from blocksd.files.writer import Writer
from blocksd.model.label import TEMPORARY

_TRIES, _PAUSE_SECONDS = 20, 0.02
_ANY_WRITE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
_MOST_BYTES = 8 * 1024 * 1024
_LEFT_SECONDS = 60
"""How old a file must be that lies beside a rendered one, for its writer to have ended."""
_NO_RIGHT = (errno.EACCES, errno.EPERM, errno.EROFS)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_WRONG_PATH = (errno.EINVAL, errno.EFBIG, errno.ENAMETOOLONG, errno.ELOOP, errno.EISDIR, errno.ENOTDIR)


class Outcome(Enum):
    """The state of a rendered file after a look at it."""

    CURRENT = "current"
    """It has the memory already."""
    WRITTEN = "written"
    """It was written now."""
    STALE = "stale"
    """It would be written, if that were not forbidden."""
    EDITED = "edited"
    """A person has edited the text between the markers: it was left as it is."""


class RenderedFile:
    """One output: the file that a path leads to, through symlinks, as long as it is asked for."""

    def __init__(self, path: str, agent: str) -> None:
        """`path` is relative to the working directory, or begins with `~`."""
        self.path = path
        self.agent = agent
        self.edited_line = 0
        """The line after which the edited text begins, as the last `update` found it."""
        self._is_tidy = False

    @property
    def target(self) -> str:
        """The file that the path leads to now."""
        return os.path.realpath(os.path.expanduser(self.path))

    def update(self, memory: str, *, discards_edits: bool = False, may_write: bool = True) -> Outcome:
        """Give the file this memory, unless it has it, or a person has edited what stands there.

        Raises:
            BrokenMarkers: the markers are no pair. Nothing was written.
            InvalidFile: it is no text in UTF-8.
            ProblemFile: it cannot be read or written, or another program is writing it.
        """
        directory, name = os.path.split(self.target)
        if not os.path.isdir(directory):
            hint = f"make it with 'mkdir --parents {directory}'"
            raise ProblemFile(f"{self.path} is not written: there is no directory {directory}", hint=hint)
        for _ in range(_TRIES):
            root = Root(directory)
            try:
                if may_write and not self._is_tidy:
                    self._is_tidy = True
                    _remove_leftovers(root, name)
                before = _read(root, name)
                outcome, after = self._decided(
                    self._decoded(before), memory, discards_edits=discards_edits, may_write=may_write
                )
                if outcome is not Outcome.WRITTEN or _put(root, name, before, after):
                    return outcome
            except OSError as error:
                raise self._refused(error.strerror or str(error), error.errno) from None
            except (ProblemFile, Unavailable) as error:
                raise self._refused(error.message, error.facts.get("errno")) from None
            finally:
                root.release()
            time.sleep(_PAUSE_SECONDS)
        raise self._refused("another program is writing it")

    def _decoded(self, data: bytes | None) -> str:
        try:
            text = "" if data is None else data.decode("utf-8")
        except UnicodeDecodeError:
            raise InvalidFile(f"{self.path} is not written: it is not UTF-8") from None
        if "\0" in text:
            raise InvalidFile(f"{self.path} is not written: it is no text, as it has the character U+0000")
        return text

    def _decided(self, text: str, memory: str, *, discards_edits: bool, may_write: bool) -> tuple[Outcome, str]:
        """Return what is to be done, and the text that the file is to have then."""
        try:
            section = find(text, self.agent)
        except BrokenMarkers as error:
            message = f"{self.path} is not written: {error.message}"
            hint = "remove the markers '<!-- blocksd:… -->' and the text between them: a new part is then written at the end"
            raise BrokenMarkers(message, path=self.path, hint=hint, **error.facts) from None
        after = replaced(text, self.agent, memory, section, path=self.path)
        if after == text:
            return Outcome.CURRENT, after
        # The digest of what is to be written is in the first marker: an edit that comes to the same text is none.
        section_after = find(after, self.agent)
        assert section_after is not None
        if section is not None and section.is_edited and section.body != section_after.body and not discards_edits:
            self.edited_line = section.start + 1
            return Outcome.EDITED, text
        return (Outcome.WRITTEN if may_write else Outcome.STALE), after

    def _refused(self, reason: str, number: object = None) -> ProblemFile:
        hint = "another program or the disk may be the reason: it is tried again with the next change"
        if number in _NO_RIGHT:
            hint = f"this user needs the right to write the file and its directory: {os.path.dirname(self.target)}"
        elif number in _NO_ROOM:
            hint = "make room on its disk: it is tried again"
        elif number in _WRONG_PATH:
            hint = "name another file: one of text, in a directory of its project"
        return ProblemFile(f"{self.path} is not written: {reason}", hint=hint)


def _put(root: Root, name: str, before: bytes | None, after: str) -> bool:
    """Put the text in the file's place. Return False if the file was saved since it was read, or is being saved."""
    writer = Writer(root)
    staged = writer.stage(FileEdit(name, before, after.encode()))
    try:
        writer.flush([staged])
        is_done = writer.put_in(staged)
        if is_done:
            writer.settle([staged])
            if writer.is_saved_late(staged):
                writer.give_back_save(staged)
                is_done = False
    except Undecided:
        raise  # what was displaced may lie aside: it stays there
    except BaseException:
        writer.discard(staged)
        raise
    writer.discard(staged)
    return is_done


def _read(root: Root, name: str) -> bytes | None:
    """Return the content of a file; None if there is none. Raise OSError if it is no file, or a very large one."""
    status = root.find(name)
    if status is None:
        return None
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is no file")
    if status.st_size > _MOST_BYTES:
        raise OSError(errno.EFBIG, "it is too large")
    if not status.st_mode & _ANY_WRITE:
        raise OSError(errno.EACCES, "it is read-only")  # to replace it would be possible, and not what was meant
    handle, _ = root.open_to_read(name)
    with os.fdopen(handle, "rb") as file:
        return file.read(_MOST_BYTES + 1)


def _remove_leftovers(root: Root, name: str) -> None:
    """Remove what an end in the middle of an update has left beside the file, if all that a person wrote in it is in the file."""
    with suppress(OSError, UnicodeDecodeError, BrokenMarkers):
        present = outside((_read(root, name) or b"").decode())
        with root.scandir("") as entries:
            names = [entry.name for entry in entries if entry.name.startswith(TEMPORARY)]
        for left in names:
            with suppress(OSError, UnicodeDecodeError, BrokenMarkers):
                is_old = time.time() - root.stat(left).st_ctime >= _LEFT_SECONDS
                theirs = outside((_read(root, left) or b"").decode())
                following = iter(present or ())
                if is_old and theirs is not None and all(line in following for line in theirs):
                    root.unlink(left)
