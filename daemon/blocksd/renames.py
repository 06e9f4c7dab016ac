"""Renames that Python has no name for: without replacing anything, and of two files at once."""

from __future__ import annotations

import ctypes
import errno
import os

_NOREPLACE, _EXCHANGE = 1, 2
_AT_FDCWD = -100
_UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)

_libc = ctypes.CDLL(None, use_errno=True)


def _rename(old: str, new: str, flags: int) -> None:
    """renameat2(2)."""
    if _libc.renameat2(_AT_FDCWD, os.fsencode(old), _AT_FDCWD, os.fsencode(new), flags) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), old)


def move(old: str, new: str) -> None:
    """Give a file another name, if nothing has it."""
    try:
        _rename(old, new, _NOREPLACE)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        # RACE: what comes there now is replaced. It cannot be closed on such a file system.
        if os.path.lexists(new):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new) from None
        os.rename(old, new)


def exchange(aside: str, full: str) -> None:
    """Let two files have each other's name; where that takes several steps, the one at `full` is `kept` meanwhile."""
    try:
        _rename(aside, full, _EXCHANGE)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        # RACE: a save between the first two steps is lost from the file. It cannot be closed on such a file system.
        meanwhile = kept(aside)
        os.link(full, meanwhile)
        try:
            os.replace(aside, full)
        except OSError:
            os.unlink(meanwhile)
            raise
        os.rename(meanwhile, aside)


def can_exchange(one: str, other: str) -> bool:
    """Let two files have each other's name, at once or not at all; whether their file system can do that.

    Raises:
        OSError: it may or may not.
    """
    try:
        _rename(one, other, _EXCHANGE)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        return False
    return True


def kept(aside: str) -> str:
    """What a file has as its name during an exchange that takes several steps."""
    return f"{aside}-"
