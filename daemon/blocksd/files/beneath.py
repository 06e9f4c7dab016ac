"""Opens what is beneath a directory that is held open, through no symlink: by openat2(2), or directory by directory."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from functools import lru_cache

DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
"""How a directory is opened in which something is to be done by name."""

NO_NAMES = ("", ".", "..")
"""What no segment of a path may be."""

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
    """The bytes of a struct open_how: the kernel only reads them, and there are few different ones."""
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
    """The error that a system call with this number would raise."""
    return OSError(number, os.strerror(number), path)
