"""The system calls on the folder, none of which leaves it.

A path is relative to the folder, as `os.fsdecode` gives it, with `/` between segments; the empty path is the folder.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import signal
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from blocksd.errors import Unavailable
from blocksd.files.beneath import DIRECTORY, NO_NAMES, NOT_THERE, HeldDirectory, openat2, os_error

if TYPE_CHECKING:
    from collections.abc import Iterator

NOREPLACE, EXCHANGE = 1, 2

_WRITE = 2
_UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)

_libc = ctypes.CDLL(None, use_errno=True)


class Root(HeldDirectory):
    """The folder, held open, and the system calls on what is in it. A test replaces it to have calls fail.

    Invariants:
      1. no symlink is followed, on the way or at the end of a path;
      2. the directory itself is never made, moved or removed.

    A method that takes a path raises OSError: ELOOP when a directory on the way is a symlink, EXDEV when a path or a link
    leads out, ENOENT when there is no directory to hold.
    """

    # --- the directory itself ---

    def identity(self) -> tuple[int, int] | None:
        """Return device and inode of the directory that its path names now; None when there is none.

        Raise OSError if it cannot be told.
        """
        try:
            status = os.stat(self.given)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return (status.st_dev, status.st_ino) if stat.S_ISDIR(status.st_mode) else None

    def is_current(self) -> bool:
        """Return True if the path names the directory that is held. Raise OSError if it cannot be told."""
        return self._identity is not None and self.identity() == self._identity

    def check(self, path: str = "") -> None:
        """Check that the path names the directory that is held; `path` is the file that is to be written.

        Raise Unavailable if it names another or none, or it cannot be told.
        """
        try:
            if self.is_current():
                return
            why = "the folder is gone, or another directory is in its place"
            if self.refusal is not None:
                why = self.refusal.message
        except OSError as error:
            why = f"the folder cannot be seen: {os.strerror(error.errno or 0)}"
        raise Unavailable(f"{why}: nothing is written to it until it is back", path=path)

    # --- by path ---

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        """Open a file; its handle is not inherited."""
        flags |= os.O_CLOEXEC | os.O_NOFOLLOW
        if not self._walks and not self.stays and path.count("/") > self._few:
            return openat2(self._directory(), path, flags, mode if flags & os.O_CREAT else 0)
        above, name = self._enter(path)  # no context here and in `stat`, nor a call to leave: they cost microseconds
        try:
            return os.open(name, flags, mode, dir_fd=above)
        finally:
            if above != self._handle and above != self.kept:
                os.close(above)

    def stat(self, path: str) -> os.stat_result:
        """Return the status of what is there, be it a symlink."""
        if not path:
            return os.fstat(self._directory())
        above, name = self._enter(path)
        try:
            return os.stat(name, dir_fd=above, follow_symlinks=False)
        finally:
            if above != self._handle and above != self.kept:
                os.close(above)

    def readlink(self, path: str) -> str:
        with self._parent(path) as (above, name):
            return os.readlink(name, dir_fd=above)

    @contextmanager
    def scandir(self, path: str) -> Iterator[Iterator[os.DirEntry[str]]]:
        """Yield the entries of a directory, for as long as the context lasts."""
        handle = self._open_directory(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with os.scandir(handle) as entries:
                yield entries
        finally:
            os.close(handle)

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, in place of what has it."""
        with self._parents(old, new) as (above_old, old_name, above_new, new_name):
            os.rename(old_name, new_name, src_dir_fd=above_old, dst_dir_fd=above_new)

    def renameat2(self, old: str, new: str, flags: int) -> None:
        """Give a file another name, if nothing has it (NOREPLACE), or let two files have each other's (EXCHANGE)."""
        with self._parents(old, new) as (above_old, old_name, above_new, new_name):
            if _libc.renameat2(above_old, os.fsencode(old_name), above_new, os.fsencode(new_name), flags):
                raise os_error(ctypes.get_errno(), old)

    def link(self, old: str, new: str) -> None:
        """Give a file another name beside the one it has."""
        with self._parents(old, new) as (above_old, old_name, above_new, new_name):
            os.link(old_name, new_name, src_dir_fd=above_old, dst_dir_fd=above_new, follow_symlinks=False)

    def unlink(self, path: str) -> None:
        with self._parent(path) as (above, name):
            os.unlink(name, dir_fd=above)

    def make_directory(self, path: str) -> None:
        with self._parent(path) as (above, name):
            os.mkdir(name, dir_fd=above)

    def remove_directory(self, path: str) -> None:
        with self._parent(path) as (above, name):
            os.rmdir(name, dir_fd=above)

    def sync_directory(self, path: str) -> None:
        """Have the names in a directory on disk."""
        handle = self._open_directory(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    # --- by handle ---

    status = staticmethod(os.fstat)
    read = staticmethod(os.read)
    write = staticmethod(os.write)
    sync = staticmethod(os.fsync)
    close = staticmethod(os.close)
    set_times = staticmethod(os.utime)
    set_mode = staticmethod(os.fchmod)
    set_owner = staticmethod(os.fchown)
    set_attribute = staticmethod(os.setxattr)

    def start_sync(self, handle: int) -> None:
        """Begin to write a file to disk, without waiting: sync_file_range(2). Where there is none, `sync` does it all."""
        start = getattr(_libc, "sync_file_range", None)
        if start is not None:
            start(handle, ctypes.c_int64(0), ctypes.c_int64(0), _WRITE)

    def attributes(self, handle: int) -> dict[str, bytes]:
        """Return the extended attributes that can be read."""
        found = {}
        for name in os.listxattr(handle):
            try:
                found[name] = os.getxattr(handle, name)
            except OSError:
                continue
        return found

    def has_writer(self, handle: int) -> bool | None:
        """Return True if some process has the file open for writing: the kernel then refuses a read lease on it.

        None when there is no telling: the file is another user's, or its file system has no leases. A lease is given back
        at once; SIGURG, which does nothing, is sent by the kernel if a writer comes in that moment.
        """
        try:
            fcntl.fcntl(handle, fcntl.F_SETSIG, signal.SIGURG)
            fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except OSError as error:
            return True if error.errno == errno.EAGAIN else None
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        return False

    # --- of several calls ---

    def open_to_read(self, path: str) -> tuple[int, bool | None]:
        """Open a file, without waiting for a FIFO's writer; its handle, and whether a process has it open for writing."""
        handle = self.open(path, os.O_RDONLY | os.O_NONBLOCK)
        return handle, self.has_writer(handle)

    def look(self, path: str, most: int) -> tuple[os.stat_result, tuple[int, bool | None] | OSError | None]:
        """Return the status of what is there, and, of a regular file of at most so many bytes, what `open_to_read` does."""
        status = self.stat(path)
        if not stat.S_ISREG(status.st_mode) or status.st_size > most:
            return status, None
        try:
            return status, self.open_to_read(path)
        except OSError as error:
            return status, error

    def move(self, old: str, new: str) -> None:
        """Give a file another name, if nothing has it."""
        try:
            self.renameat2(old, new, NOREPLACE)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            # RACE: what comes there now is replaced. It cannot be closed on such a file system.
            if self.exists(new):
                raise os_error(errno.EEXIST, new) from None
            self.rename(old, new)

    def exchange(self, aside: str, path: str) -> None:
        """Let two files have each other's name; where that takes several steps, the one at `path` is `kept` meanwhile."""
        if self.can_exchange(aside, path):
            return
        # RACE: a save between the first two steps is lost from the file. It cannot be closed on such a file system.
        meanwhile = kept(aside)
        self.link(path, meanwhile)
        try:
            self.rename(aside, path)
        except OSError:
            self.unlink(meanwhile)
            raise
        self.rename(meanwhile, aside)

    def can_exchange(self, one: str, other: str) -> bool:
        """Let two files have each other's name, at once or not at all; False when their file system cannot do that.

        Raise OSError if it cannot be told what was done.
        """
        try:
            self.renameat2(one, other, EXCHANGE)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            return False
        return True

    def put_in(self, path: str, old: str, new: str, *, has_both: bool) -> os.stat_result | None:
        """Move a file to a place where nothing is, or (`has_both`) let two files change places.

        Return the status of what has the name `new` then, if that can be told.
        Raise Unavailable as `check` of `path` does: then nothing was done.
        """
        self.check(path)
        (self.exchange if has_both else self.move)(old, new)
        with suppress(OSError):
            return self.stat(new)
        return None

    def find_to_write(self, path: str) -> os.stat_result | None:
        """Return what `find` does; raise Unavailable as `check` does."""
        self.check(path)
        return self.find(path)

    def find(self, path: str) -> os.stat_result | None:
        """Return the status of what is there, be it a symlink; None for nothing. Raise OSError if it cannot be told."""
        try:
            return self.stat(path)
        except OSError as error:
            if error.errno in NOT_THERE:
                return None
            raise

    def make_file(self, path: str, like: str | None) -> tuple[int, dict[str, bytes]]:
        """Make a file that only this user may read; return its handle, and what attributes the one at `like` has.

        Those are the extended ones, as far as they can be read.
        """
        handle, found = self.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL), {}
        if like is not None:
            with suppress(OSError):
                other = self.open(like, os.O_RDONLY | os.O_NONBLOCK)
                try:
                    found = self.attributes(other)
                finally:
                    self.close(other)
        return handle, found

    def exists(self, path: str) -> bool:
        """Return True if something is there, be it a symlink. Raise OSError if it cannot be told."""
        return self.find(path) is not None

    def leads_to_directory(self, path: str) -> bool:
        """Return True if a symlink leads to a directory, be it outside: for the words of a problem, and nothing else."""
        try:
            with self._parent(path) as (above, name):
                return stat.S_ISDIR(os.stat(name, dir_fd=above).st_mode)
        except OSError:
            return False

    # --- on the way ---

    def _directory(self) -> int:
        return self._handle if self._handle >= 0 else self._held()

    def _enter(self, path: str) -> tuple[int, str]:
        """Return a handle of the directory in which the path ends, and the name there. It is closed, but for one that is kept."""
        directory, _, name = path.rpartition("/")
        if name in NO_NAMES:
            raise os_error(errno.EINVAL, path)
        if not directory:
            return (self._handle if self._handle >= 0 else self._held()), name
        if directory != self._kept_path:
            handle = self._open_directory(directory, DIRECTORY)
            if not self.stays:
                return handle, name
            self._move_on(directory, handle)
        return self.kept, name

    @contextmanager
    def _parent(self, path: str) -> Iterator[tuple[int, str]]:
        """Return the same, for as long as the context lasts."""
        above, name = self._enter(path)
        try:
            yield above, name
        finally:
            if above != self._handle and above != self.kept:
                os.close(above)

    @contextmanager
    def _parents(self, one: str, other: str) -> Iterator[tuple[int, str, int, str]]:
        """Return the same for two paths; a directory that both are in is opened once."""
        with self._parent(one) as (above, name):
            if one.rpartition("/")[0] == other.rpartition("/")[0]:
                yield above, name, above, _name(other)
            else:
                with self._parent(other) as (above_other, other_name):
                    yield above, name, above_other, other_name


def _name(path: str) -> str:
    """Return the last segment of a path."""
    name = path.rpartition("/")[2]
    if name in NO_NAMES:
        raise os_error(errno.EINVAL, path)
    return name


def kept(aside: str) -> str:
    """Return the name that a file has during an exchange that takes several steps."""
    return f"{aside}-"
