"""Files that somebody is in the middle of writing, by their events: for a daemon that may take no lease on them."""

from __future__ import annotations

import ctypes
import math
import os
import stat
import struct
import time
from contextlib import suppress

_MODIFY, _CLOSE_WRITE, _MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x2, 0x8, 0x40, 0x80, 0x100, 0x200
_OVERFLOW, _IGNORED, _ONLYDIR, _ISDIR = 0x4000, 0x8000, 0x1000000, 0x40000000
_MASK = _MODIFY | _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _ONLYDIR
_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_HEADER = struct.Struct("iIII")
_BUFFER = 65_536

_libc = ctypes.CDLL(None, use_errno=True)


class Unclosed:
    """Knows nothing of what was before it watched a directory. It has no thread: events wait in the kernel to be asked for."""

    def __init__(self) -> None:
        self._handle = -1
        self._since: dict[int, float] = {}  # watch → when it began, in seconds since 1970
        self._files: set[tuple[int, bytes]] = set()  # written since they were closed, or came to their place

    def __del__(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)

    def expect(self, directory: str) -> None:
        """If people may write in this directory on whose files no lease can be taken, watch it ahead of any question."""
        with suppress(OSError):
            if os.geteuid() != 0 and os.stat(directory).st_mode & _OTHERS:
                self._watch(os.fsencode(directory))

    def tells(self, path: str, modified: float) -> bool | None:
        """Whether the file was written to and not closed since. None when there is no telling.

        `modified` is when it was written to last, in seconds since 1970.
        """
        directory, name = os.path.split(os.fsencode(path))
        watch = self._watch(directory)
        if (watch, name) in self._files:
            return True
        return False if modified > self._since.get(watch, math.inf) else None

    def _watch(self, directory: bytes) -> int:
        """Watch it, or go on with that: what it says until now is taken in."""
        if self._handle < 0:
            self._handle = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        watch: int = _libc.inotify_add_watch(self._handle, directory, _MASK)
        if watch >= 0:
            self._take_events()
            self._since.setdefault(watch, time.time())
        return watch

    def _take_events(self) -> None:
        while True:
            try:
                data = os.read(self._handle, _BUFFER)
            except BlockingIOError:
                return
            place = 0
            while place < len(data):
                watch, mask, _, length = _HEADER.unpack_from(data, place)
                place += _HEADER.size + length
                self._take(watch, mask, data[place - length : place].rstrip(b"\0"))

    def _take(self, watch: int, mask: int, name: bytes) -> None:
        if mask & _OVERFLOW:
            self._since.clear()
            self._files.clear()
        elif mask & _IGNORED:  # the directory is gone
            self._since.pop(watch, None)
            self._files = {file for file in self._files if file[0] != watch}
        elif mask & (_MODIFY | _CREATE) and not mask & _ISDIR:
            self._files.add((watch, name))
        else:
            self._files.discard((watch, name))
