"""Makes the directories that files of a folder need, and removes those that nobody needs any more."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress

from blocksd.errors import ProblemFile, Unavailable, Undecided
from blocksd.files.beneath import NOT_THERE
from blocksd.files.links import through_symlink
from blocksd.files.root import Root
from blocksd.model.label import is_junk

_MOST_NAMED = 1000  # directories that need not be synced again


class Directories:
    """The directories below a folder, as far as they are made and removed here."""

    def __init__(self, root: Root | str, *, is_durable: bool = True) -> None:
        """Write below `root`; if not `is_durable`, what is written survives a crash of this process, not of the machine."""
        self._root = root if isinstance(root, Root) else Root(root)
        self.is_durable = is_durable
        self.made: list[str] = []  # for what is staged
        self._named: dict[str, int] = {}  # directories whose names are on disk, with their inodes

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
                self.made.append(directory)
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
        self.made.clear()

    def remove_made(self) -> None:
        """Remove the directories made since then, unless something was put in them."""
        while self.made:
            with suppress(OSError):
                directory = self.made.pop()
                self._named.pop(directory, None)
                self._root.remove_directory(directory)

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
        """Remove the empty directories in a directory, our temporaries, and junk of desktops, as far as that can be done."""
        with self._root.scandir(directory) as entries:
            found = [(f"{directory}/{entry.name}", entry.is_dir(follow_symlinks=False)) for entry in entries]
        for path, is_directory in found:
            if is_directory:
                with suppress(OSError):
                    self._empty(path)
                    self._root.remove_directory(path)
            elif is_junk(path.rpartition("/")[2]):
                with suppress(OSError):
                    self._root.unlink(path)

    @property
    def is_empty(self) -> bool:
        """Return True if the folder is empty or missing. Raise Undecided if it cannot be told."""
        try:
            with self._root.scandir("") as entries:
                return next(entries, None) is None
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
