"""Holds a directory open, and opens files beneath it through no symlink: by openat2(2), or directory by directory."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from functools import lru_cache
from typing import TYPE_CHECKING

from blocksd.errors import AlreadyRunning

if TYPE_CHECKING:
    from collections.abc import Callable

DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
"""Flags to open a directory in which names are looked up."""

NO_NAMES = ("", ".", "..")
"""Segments that no path may have."""

NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
"""Errors that say that nothing is at a path; any other leaves it open. ELOOP: a directory on the way is a symlink."""

_OPENAT2 = 437  # its number, alike on all architectures but Alpha; the C library has no function for it
_NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 0x02, 0x04, 0x08

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t)


class _How(ctypes.Structure):
    """struct open_how."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def has_openat2(handle: int) -> bool:
    """Return True if there is an openat2: an older kernel has none, and the filter of a container may refuse it."""
    try:
        os.close(openat2(handle, ".", DIRECTORY))
    except OSError as error:
        return error.errno not in (errno.ENOSYS, errno.EPERM)
    return True


def openat2(above: int, path: str, flags: int, mode: int = 0) -> int:
    """Open what is at `path` beneath the directory `above`; ELOOP when there is a symlink on the way or at the end."""
    name = os.fsencode(path)
    if b"\0" in name:
        raise os_error(errno.EINVAL, path)
    how = _how(flags, mode)
    while True:
        handle: int = _libc.syscall(_OPENAT2, above, name, how, ctypes.sizeof(_How))
        if handle >= 0:
            return handle
        number = ctypes.get_errno()
        if number not in (errno.EINTR, errno.EAGAIN):
            raise os_error(number, path)


@lru_cache(maxsize=16)
def _how(flags: int, mode: int) -> ctypes.Array[ctypes.c_char]:
    """Return the bytes of a struct open_how: the kernel only reads them, and there are few different ones."""
    return ctypes.create_string_buffer(bytes(_How(flags, mode, _BENEATH | _NO_SYMLINKS | _NO_MAGICLINKS)))


def walk(top: int, path: str, flags: int) -> int:
    """Open the directory at `path` beneath the directory `top`, with the same errors, one directory after the other."""
    *directories, last = path.split("/")
    above = top
    for name in directories:
        above = _enter(above, name, DIRECTORY, top)
    return _enter(above, last, flags, top)


def _enter(above: int, name: str, flags: int, top: int) -> int:
    """Open a directory that is no symlink, and leave the one it is in, but for the topmost."""
    try:
        if name in NO_NAMES:
            raise os_error(errno.EINVAL, name)
        return os.open(name, flags | os.O_NOFOLLOW, dir_fd=above)
    except NotADirectoryError:
        if stat.S_ISLNK(os.stat(name, dir_fd=above, follow_symlinks=False).st_mode):
            raise os_error(errno.ELOOP, name) from None
        raise
    finally:
        if above != top:
            os.close(above)


def os_error(number: int, path: str) -> OSError:
    """Return the error that a system call raises with this number."""
    return OSError(number, os.strerror(number), path)


class HeldDirectory:
    """A directory that is held open: calls act on it, whatever its path names meanwhile."""

    _few = (
        2  # directories on a way: to open one after the other takes less time than one call of openat2 through ctypes
    )
    stays = False
    """True: the directory of each call is kept open for the next one, until `leave_directories`, while files are read.

    RACE: what comes into the place of that directory meanwhile is not seen; an event tells of it, and the next sweep.
    """
    kept = -1
    """The handle of the directory that is kept open, the one at `_kept_path`; below 0: none is."""
    _kept_path = ""

    def __init__(self, path: str, *, walks: bool | None = None, claim: Callable[[int], object] | None = None) -> None:
        """Hold the directory at `path`, if there is one. `walks`: open each directory on the way, and do without openat2.

        `claim` is called with the handle of a directory before it is held. If it raises AlreadyRunning, no directory is
        held, and `refusal` says why. `why` is the number of the error for which none is held.
        """
        self.given = os.path.abspath(path)
        self._claim = claim
        self.refusal: AlreadyRunning | None = None
        self._walks = walks
        self._handle = -1
        self.reopen()

    def __del__(self) -> None:
        if getattr(self, "_handle", -1) >= 0:
            os.close(self._handle)

    def reopen(self) -> None:
        """Hold the directory that its path names now, in place of the one that was held."""
        self.release()
        self._is_released = False
        self._identity: tuple[int, int] | None = None
        self.why = errno.ENOENT  # there is nothing to hold
        self.refusal = None
        self.path = os.path.realpath(self.given)
        try:
            self._handle, status = self._open_claimed()
        except OSError as error:
            self.why = error.errno or errno.EIO
            return
        except AlreadyRunning as refusal:
            self.why, self.refusal = errno.EBUSY, refusal
            return
        self._identity = (status.st_dev, status.st_ino)
        if self._walks is None:
            self._walks = not has_openat2(self._handle)

    def _open_claimed(self) -> tuple[int, os.stat_result]:
        handle = os.open(self.path, DIRECTORY)
        try:
            status = os.fstat(handle)
            if self._claim is not None:
                self._claim(handle)
        except BaseException:
            os.close(handle)
            raise
        return handle, status

    def release(self) -> None:
        """Hold it no longer, so that it can be unmounted. The next call holds what its path names then."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)
        self._is_released = True

    @property
    def held(self) -> tuple[int, int] | None:
        """Device and inode of the directory that is held; None when none is."""
        return self._identity

    def _held(self) -> int:
        if self._is_released:
            self.reopen()
        if self._handle < 0:
            raise os_error(self.why, self.path)
        return self._handle

    # --- on the way ---

    def leave_directories(self) -> None:
        """Close the directory that was kept open."""
        self.stays = False
        if self.kept >= 0:
            self._move_on("", -1)

    def _move_on(self, directory: str, handle: int) -> None:
        if self.kept >= 0:
            os.close(self.kept)
        self._kept_path, self.kept = directory, handle

    def _open_directory(self, path: str, flags: int) -> int:
        above = self._held()
        if not path:
            return os.open(".", flags, dir_fd=above)
        return (walk if self._walks or path.count("/") < self._few else openat2)(above, path, flags)
