"""Lays new texts beside their files, with the directories they need, until they are put in or discarded."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from blocksd.errors import ProblemFile, Unavailable, Undecided
from blocksd.files.beneath import NOT_THERE
from blocksd.files.content import digest
from blocksd.files.file_edit import Staged
from blocksd.files.folder import signature_of
from blocksd.files.fresh_file import Mark, make
from blocksd.files.links import resolve, through_symlink
from blocksd.files.root import Root, kept
from blocksd.model.label import TEMPORARY, is_junk, printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blocksd.files.file_edit import FileEdit
    from blocksd.files.folder import Signature

_MOST_UNSYNCED = 64  # each is an open file
_MOST_NAMED = 1000  # directories that need not be synced again


class Staging:
    """The texts that lie beside files of a folder.

    A new text has the time one nanosecond before it was written, which no later write can have: as long as its file has
    that time, it has that text.
    """

    def __init__(self, root: Root | str, *, is_durable: bool = True) -> None:
        """Write below `root`; if not `is_durable`, what is written survives a crash of this process, not of the machine."""
        self._root = root if isinstance(root, Root) else Root(root)
        self.is_durable = is_durable
        self._marks: dict[str, Mark] = {}  # of new texts, by `aside`
        self._places: dict[str, str] = {}  # where the new texts go, by `aside`
        self._unsynced: dict[str, tuple[str, int]] = {}  # new texts on their way to disk: aside → path, handle
        self._made: list[str] = []  # directories, for what is staged
        self._named: dict[str, int] = {}  # directories whose names are on disk, with their inodes
        self.left: dict[str, str] = {}  # temporaries that could not be removed: path → why

    def _place(self, edit: FileEdit | Staged) -> str:
        """Return the place of an edit: the target of a symlink is written, but a link is removed alone.

        A symlink may be changed after an edit was staged: the place stays what it was.
        """
        if edit.data is None:
            return edit.path
        known = self._places.get(edit.aside) if isinstance(edit, Staged) else None
        return known if known is not None else self._target(edit.path)

    def _target(self, path: str) -> str:
        """Return the path that a symlink leads to; the path itself, if it is none, or leads to nothing in the folder."""
        try:
            return resolve(self._root, path)
        except OSError as error:
            if error.errno not in (*NOT_THERE, errno.EXDEV):
                raise
            return path

    def _aside(self, staged: Staged) -> str:
        """Return the path of the staged text, after finishing an exchange that a crash has left half done."""
        if not self._root.exists(staged.aside) and self._root.exists(kept(staged.aside)):
            self._root.rename(kept(staged.aside), staged.aside)
        return staged.aside

    def stage(self, edit: FileEdit) -> Staged:
        """Write an edit's new text beside its file. It is on its way to disk; `flush` waits until it is there.

        Raise Unavailable or ProblemFile if it cannot be written there; nothing is left behind.
        """
        if len(self._unsynced) >= _MOST_UNSYNCED:
            self.flush()
        self._root.check(edit.path)
        aside = ""
        try:
            status = self._root.find(edit.path)
            is_link = status is not None and stat.S_ISLNK(status.st_mode)
            full = self._target(edit.path) if is_link and edit.data is not None else edit.path
            if full != edit.path:
                status = self._root.find(full)
            directory = os.path.dirname(full)
            aside = os.path.join(directory, f"{TEMPORARY}{secrets.token_hex(8)}")
            old = None if edit.base is None or status is None else status.st_ino
            staged = Staged(edit.path, aside, digest(edit.base), digest(edit.data), None, old)
            if edit.data is None:
                return staged
            self._places[aside] = full
            self._make_directory(directory)
            like = full if edit.like in (None, edit.path) else self._target(edit.like)
            new = self._write(staged, edit.data, like=like)
            return staged._replace(new=new)
        except OSError as error:
            if aside:
                self._places.pop(aside, None)
                self.remove(aside)
            raise self._unwritable(edit.path, error) from None

    def _write(self, staged: Staged, data: bytes, *, like: str) -> int:
        """Write a new text aside; return its inode."""
        handle, mark = make(self._root, staged.aside, data, like=like)
        try:
            inode = self._root.status(handle).st_ino
        except OSError:
            self._root.close(handle)
            raise
        if mark is not None:
            self._marks[staged.aside] = mark
        if self.is_durable:
            self._root.start_sync(handle)
            self._unsynced[staged.aside] = staged.path, handle
        else:
            self._root.close(handle)
        return inode

    def flush(self, named: Iterable[Staged] = ()) -> None:
        """Sync all new texts together, since each alone would wait for as long; then the names of those in `named`.

        Raise Unavailable if one of them cannot be synced.
        """
        while self._unsynced:
            aside = next(iter(self._unsynced))
            path, handle = self._unsynced.pop(aside)
            try:
                try:
                    self._root.sync(handle)
                finally:
                    self._root.close(handle)
            except OSError as error:
                raise self._unwritable(path, error) from None
        self.sync(named)

    def make_directory(self, path: str) -> None:
        """Make a directory below the folder, with those above it.

        Raise Unavailable or ProblemFile if it cannot be made.
        """
        self._root.check(path)
        try:
            self._make_directory(path)
        except OSError as error:
            refusal = through_symlink(self._root, f"{path}/") if error.errno == errno.ELOOP else None
            raise refusal or self._unwritable(path, error) from None

    def _make_directory(self, directory: str) -> None:
        """Make a directory, unless it is there. Its name and those above it are on disk when this returns.

        One that is there may have been made a moment ago, by a person or by a daemon that ended: what is written in it is
        lost with its name. So its name is synced, too, once for as long as it is the same directory.
        RACE: one that is removed and made again by a person may get the same inode, and counts as the same.
        """
        if not directory:
            return
        inode = self._inode_of_directory(directory)
        if inode is not None and (not self.is_durable or self._named.get(directory) == inode):
            return
        above = os.path.dirname(directory)
        self._make_directory(above)
        if inode is None:
            with suppress(FileExistsError):
                self._root.make_directory(directory)
                self._made.append(directory)
        if self.is_durable:
            self._root.sync_directory(above)
            if len(self._named) >= _MOST_NAMED:
                self._named.clear()
            if (inode := self._inode_of_directory(directory)) is not None:
                self._named[directory] = inode

    def _inode_of_directory(self, path: str) -> int | None:
        """Return the inode of a directory, None if there is nothing."""
        status = self._root.find(path)
        if status is None:
            return None
        if not stat.S_ISDIR(status.st_mode):
            number = errno.ELOOP if stat.S_ISLNK(status.st_mode) else errno.ENOTDIR
            raise OSError(number, os.strerror(number), path)
        return status.st_ino

    def keep_made(self) -> None:
        """Let the directories stay that were made so far for staged files."""
        self._made.clear()

    def remove_made(self) -> None:
        """Remove the directories made since then, unless something was put in them."""
        while self._made:
            with suppress(OSError):
                directory = self._made.pop()
                self._named.pop(directory, None)
                self._root.remove_directory(directory)

    def signature(self, staged: Staged) -> Signature | None:
        """Return the signature of a file with the new text, after `put_in`; None if the file may have changed since."""
        mark = self._marks.get(staged.aside)
        if mark is None:
            return None
        try:
            found = signature_of(self._root.stat(self._place(staged)))
        except OSError:
            return None
        mtime_ns, _, size, inode = found
        return found if (mtime_ns, size, inode) == mark else None

    def discard(self, staged: Staged) -> None:
        """Remove the staged text."""
        self._marks.pop(staged.aside, None)
        self._places.pop(staged.aside, None)
        _, handle = self._unsynced.pop(staged.aside, ("", None))
        if handle is not None:
            with suppress(OSError):
                self._root.close(handle)
        self.remove(staged.aside)

    def remove(self, path: str) -> None:
        """Remove a temporary, if it is there. One that cannot be removed is in `left`: the sweeps find it and try again."""
        try:
            self._root.unlink(path)
        except OSError as error:
            if error.errno not in NOT_THERE:
                self.left[path] = os.strerror(error.errno or 0)
                return
        self.left.pop(path, None)

    def sync(self, staged: Iterable[Staged]) -> None:
        """Have the names of these files, and of what lies beside them, on disk.

        Raise Unavailable if one of them cannot be synced.
        """
        if self.is_durable:
            for directory, path in {os.path.dirname(one.aside): one.path for one in staged}.items():
                try:
                    self._root.sync_directory(directory)
                except OSError as error:
                    if error.errno not in NOT_THERE:
                        raise self._unwritable(path, error) from None

    def remove_directory(self, directory: str) -> bool:
        """Remove a directory, with empty ones in it and junk of desktops or a crash; return True if it is gone.

        Any other file stays, and so do the directories above it. Nothing may be staged in the directory.
        """
        for name in [name for name in self._named if name == directory or name.startswith(f"{directory}/")]:
            del self._named[name]
        with suppress(OSError):
            self._empty(directory)
            self._root.remove_directory(directory)
        try:
            if self.is_durable:
                self._root.sync_directory(os.path.dirname(directory))
            return not self._root.exists(directory)
        except OSError as error:
            return error.errno in NOT_THERE

    def _empty(self, directory: str) -> None:
        """Remove the empty directories in a directory, our temporaries, and junk of desktops."""
        with self._root.scandir(directory) as entries:
            found = [(f"{directory}/{entry.name}", entry.is_dir(follow_symlinks=False)) for entry in entries]
        for path, is_directory in found:
            if is_directory:
                with suppress(OSError):
                    self._empty(path)
                    self._root.remove_directory(path)
            elif is_junk(path.rpartition("/")[2]):
                with suppress(OSError):
                    self.remove(path)

    @property
    def is_empty(self) -> bool:
        """Return True if the folder is empty or missing. Raise Undecided if it cannot be told."""
        try:
            return not self._root.names()
        except OSError as error:
            if error.errno in NOT_THERE:
                return True
            raise Undecided(f"the folder cannot be read: {os.strerror(error.errno or 0)}", path="") from None

    def _unwritable(self, path: str, error: OSError) -> Unavailable | ProblemFile:
        reason = os.strerror(error.errno or 0)
        name = errno.errorcode.get(error.errno or 0, "?")
        if error.errno == errno.ELOOP and (refusal := through_symlink(self._root, path)) is not None:
            return refusal
        if error.errno in (errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP):
            return ProblemFile(f"{path} cannot be written: {reason}", path=path, errno=name)
        return Unavailable(f"{path} cannot be written: {reason}", path=path, errno=name)

    def _undecided(self, staged: Staged, error: OSError) -> Undecided:
        reason = os.strerror(error.errno or 0)
        name = errno.errorcode.get(error.errno or 0, "?")
        message = f"whether {printable(staged.path)} was written cannot be told: {reason}"
        return Undecided(message, path=staged.path, errno=name)
