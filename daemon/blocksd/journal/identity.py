"""Identifies a file or directory by its number and its birth, which no copy has."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from typing import NamedTuple

_AT_FDCWD = -100
_STATX_BTIME = 0x800
_STRUCT_SIZE = 256
_BTIME_AT = 80  # struct statx: the seconds, and after them the nanoseconds

_libc = ctypes.CDLL(None, use_errno=True)


class FolderFacts(NamedTuple):
    """The facts that tell which folder a journal is of; empty where they are not known.

    `path` is without symlinks, `given` the path as it was named to the daemon.
    """

    path: str
    given: str = ""
    identity: str = ""


def facts_of(path: str, given: str) -> FolderFacts:
    """Return the facts of a folder; no identity where the file system keeps no births, since a number proves nothing then."""
    with suppress(OSError):
        birth = _birth_of(path)
        if birth is not None:
            return FolderFacts(path, given, f"{os.stat(path).st_ino}+{birth}")
    return FolderFacts(path, given)


def identity_of(path: str) -> str:
    """Return a text that stays the same for a file, wherever it is moved to on its file system, and that no copy of it has.

    It is the number of its inode and when that was made: a number is given out again, its birth is not. Where a file
    system keeps no births (NFS, some overlays), the device takes their place, and a copy that got the number of a file
    that was removed before cannot be told from it. Raise OSError if there is no such file, or it cannot be looked at.
    """
    status = os.stat(path)
    birth = _birth_of(path)
    return f"{status.st_ino}@{status.st_dev}" if birth is None else f"{status.st_ino}+{birth}"


def _birth_of(path: str) -> int | None:
    """Return the time at which a file was made, in nanoseconds since 1970; None where the system does not say."""
    statx = getattr(_libc, "statx", None)  # glibc has it since 2.28
    if statx is None:
        return None
    answer = ctypes.create_string_buffer(_STRUCT_SIZE)
    if statx(_AT_FDCWD, os.fsencode(path), 0, _STATX_BTIME, answer) != 0:
        return None
    if not ctypes.c_uint32.from_buffer(answer).value & _STATX_BTIME:
        return None
    seconds = ctypes.c_int64.from_buffer(answer, _BTIME_AT).value
    nanoseconds = ctypes.c_uint32.from_buffer(answer, _BTIME_AT + 8).value
    return seconds * 1_000_000_000 + nanoseconds or None
