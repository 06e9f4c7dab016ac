"""inotify(7): an instance that never waits, its watches, and the events read from it."""

from __future__ import annotations

import ctypes
import os
import struct
from contextlib import suppress
from typing import NamedTuple

MODIFY, ATTRIB, CLOSE_WRITE, MOVED_FROM, MOVED_TO = 0x2, 0x4, 0x8, 0x40, 0x80
CREATE, DELETE, DELETE_SELF = 0x100, 0x200, 0x400
OVERFLOW, IGNORED, ISDIR = 0x4000, 0x8000, 0x40000000
ONLYDIR, DONT_FOLLOW = 0x1000000, 0x2000000

_HEADER = struct.Struct("iIII")
_BUFFER = 65_536

_libc = ctypes.CDLL(None, use_errno=True)


class Event(NamedTuple):
    """An event of `watch`: `mask` has the bits above, `name` is that of an entry of the directory, or empty."""

    watch: int
    mask: int
    name: bytes


class Inotify:
    """An inotify instance. Every method but `close` and `remove` raises OSError as inotify(7) says."""

    def __init__(self) -> None:
        self.handle: int = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))

    def add(self, path: bytes, mask: int) -> int:
        """Watch what is at `path`; return the number of the watch, which is the same for the same inode."""
        return _checked(_libc.inotify_add_watch(self.handle, path, mask))

    def remove(self, watch: int) -> None:
        """Remove a watch, if it is still there."""
        _libc.inotify_rm_watch(self.handle, watch)

    def read(self) -> list[Event]:
        """Return the events that have come since the last call, without waiting."""
        events: list[Event] = []
        try:
            data = os.read(self.handle, _BUFFER)
        except BlockingIOError:
            return events
        place = 0
        while place < len(data):
            watch, mask, _, length = _HEADER.unpack_from(data, place)
            place += _HEADER.size + length
            events.append(Event(watch, mask, data[place - length : place].rstrip(b"\0")))
        return events

    def close(self) -> None:
        """Remove all watches and free the instance."""
        handle, self.handle = self.handle, -1
        if handle >= 0:
            os.close(handle)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def inotify_limit(name: str) -> int | None:
    """Return a limit of inotify (`max_user_watches`, `max_user_instances`); None where the kernel does not show it."""
    with suppress(OSError, ValueError), open(f"/proc/sys/fs/inotify/{name}", encoding="ascii") as file:
        return int(file.read())
    return None
