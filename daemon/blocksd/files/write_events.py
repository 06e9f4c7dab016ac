"""Files that somebody is in the middle of writing, by their events: for a daemon that may take no lease on them."""

from __future__ import annotations

import ctypes
import os
import stat
import struct

_MODIFY, _CLOSE_WRITE, _MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x2, 0x8, 0x40, 0x80, 0x100, 0x200
_OVERFLOW, _IGNORED, _ONLYDIR, _ISDIR = 0x4000, 0x8000, 0x1000000, 0x40000000
_MASK = _MODIFY | _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _ONLYDIR
_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_HEADER = struct.Struct("iIII")
_BUFFER = 65_536
_MOST_FILES = 10_000  # beyond which those are forgotten that are closed

_libc = ctypes.CDLL(None, use_errno=True)


class Unclosed:
    """Knows nothing of what was before it watched a directory. It has no thread: events wait in the kernel to be asked for."""

    def __init__(self) -> None:
        self._handle = -1
        self._files: dict[
            tuple[int, bytes], bool
        ] = {}  # whether it was written since it was closed, or came to its place

    def __del__(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)

    def expect(self, directory: str, mode: int) -> None:
        """If others may write in a directory of this mode, on whose files no lease can be taken, watch it ahead of any question."""
        if os.geteuid() != 0 and mode & _OTHERS:
            self._watch(os.fsencode(directory))

    def tells(self, path: str) -> bool | None:
        """Return True if the file was written to and not closed since, False if it was seen to be closed, or to come whole.

        None when nothing was seen of it, as where there are no events.
        """
        directory, name = os.path.split(os.fsencode(path))
        return self._files.get((self._watch(directory), name))

    def _watch(self, directory: bytes) -> int:
        """Watch it, or go on with that: what it says until now is taken in."""
        if self._handle < 0:
            self._handle = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        watch: int = _libc.inotify_add_watch(self._handle, directory, _MASK)
        if watch >= 0:
            self._take_events()
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
            self._files.clear()
        elif mask & _IGNORED:  # the directory is gone
            self._files = {file: is_open for file, is_open in self._files.items() if file[0] != watch}
        elif mask & _ISDIR:
            return
        elif mask & (_MODIFY | _CREATE):
            self._files[watch, name] = True
        elif mask & (_CLOSE_WRITE | _MOVED_TO):
            if len(self._files) >= _MOST_FILES:
                self._files = {file: is_open for file, is_open in self._files.items() if is_open}
            self._files[watch, name] = False
        else:
            self._files.pop((watch, name), None)
