"""Finds files that another process has open for writing, where the kernel grants no lease: by /proc and by file events.

/proc shows the files of all processes to root, and else those of the same user.
"""

from __future__ import annotations

import os
import stat
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from blocksd.files import inotify
from blocksd.files.inotify import Inotify

if TYPE_CHECKING:
    from collections.abc import Iterator

_KEPT_SECONDS = 1.0  # a search, at least
_SHARE = 0.05  # of the time, at most, is spent on searches

_SETTLE_SECONDS = 0.25
"""For how long a file must not have been changed when nothing better tells that its writer is done: neither a lease nor
events nor, where neither is to be had, /proc. RACE: a writer that nothing shows, and that pauses for longer, is not waited for."""

_MASK = (
    inotify.MODIFY
    | inotify.CLOSE_WRITE
    | inotify.MOVED_FROM
    | inotify.MOVED_TO
    | inotify.CREATE
    | inotify.DELETE
    | inotify.ONLYDIR
)
_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_MOST_FILES = 10_000  # beyond which those are forgotten that are closed


class Opener(NamedTuple):
    """A process that has a file open for writing. It is shown as `1234 (vim)`."""

    pid: int
    device: int
    inode: int

    def __str__(self) -> str:
        name = ""
        with suppress(OSError), open(f"/proc/{self.pid}/comm", encoding="utf-8", errors="replace") as file:
            name = "".join(filter(str.isprintable, file.read()))
        return f"{self.pid} ({name})" if name else str(self.pid)


class Openers:
    """Remembers one search of /proc for a moment: it costs milliseconds, and serves all files meanwhile."""

    def __init__(self) -> None:
        self._found: set[tuple[int, int]] = set()
        self._until = 0.0

    def have(self, status: os.stat_result) -> bool:
        """Return True if a process was seen to have this file open for writing."""
        begun = time.monotonic()
        if begun >= self._until:
            self._found = {(one.device, one.inode) for one in _search()}
            now = time.monotonic()
            self._until = now + max(_KEPT_SECONDS, (now - begun) / _SHARE)
        return (status.st_dev, status.st_ino) in self._found


def openers_of(status: os.stat_result) -> list[Opener]:
    """Return the processes that are seen to have this file open for writing."""
    wanted = (status.st_dev, status.st_ino)
    return sorted({one for one in _search() if (one.device, one.inode) == wanted})


def _search() -> Iterator[Opener]:
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError):  # it has ended, or is another user's
                yield from _of_process(int(name))


def _of_process(pid: int) -> Iterator[Opener]:
    for handle in os.listdir(f"/proc/{pid}/fd"):
        with suppress(OSError):
            status = os.stat(f"/proc/{pid}/fd/{handle}")
            if stat.S_ISREG(status.st_mode) and _is_for_writing(pid, handle):
                yield Opener(pid, status.st_dev, status.st_ino)


def _is_for_writing(pid: int, handle: str) -> bool:
    with open(f"/proc/{pid}/fdinfo/{handle}", encoding="ascii") as file:
        for line in file:
            if line.startswith("flags:"):
                return int(line.split()[1], 8) & os.O_ACCMODE != os.O_RDONLY
    return False


class Unclosed:
    """Knows by their events which files were written to and not closed since, from when it first watched their directory.

    It has no thread: events wait in the kernel until a question is asked.
    """

    def __init__(self) -> None:
        self._inotify: Inotify | None = None
        self._is_open: dict[tuple[int, bytes], bool] = {}  # by watch and name; False: closed, or moved in whole

    def __del__(self) -> None:
        if self._inotify is not None:
            self._inotify.close()

    def expect(self, directory: str, mode: int) -> None:
        """Watch a directory of this mode in advance, if other users may write in it: their files give no lease."""
        if os.geteuid() != 0 and mode & _OTHERS:
            self._watch(os.fsencode(directory))

    def tells(self, path: str) -> bool | None:
        """Return True if the file was written to and not closed since, False if it was closed or moved in whole.

        None when nothing was seen of it, as where there are no events.
        """
        directory, name = os.path.split(os.fsencode(path))
        return self._is_open.get((self._watch(directory), name))

    def _watch(self, directory: bytes) -> int:
        """Watch a directory, if it is not watched yet, and take in all events until now; return the watch, or -1."""
        try:
            if self._inotify is None:
                self._inotify = Inotify()
            watch = self._inotify.add(directory, _MASK)
        except OSError:
            return -1
        self._take_events(self._inotify)
        return watch

    def _take_events(self, source: Inotify) -> None:
        while events := source.read():
            for event in events:
                self._take(*event)

    def _take(self, watch: int, mask: int, name: bytes) -> None:
        if mask & inotify.OVERFLOW:
            self._is_open.clear()
        elif mask & inotify.IGNORED:  # the directory is gone
            self._is_open = {file: is_open for file, is_open in self._is_open.items() if file[0] != watch}
        elif mask & inotify.ISDIR:
            return
        elif mask & (inotify.MODIFY | inotify.CREATE):
            self._is_open[watch, name] = True
        elif mask & (inotify.CLOSE_WRITE | inotify.MOVED_TO):
            if len(self._is_open) >= _MOST_FILES:
                self._is_open = {file: is_open for file, is_open in self._is_open.items() if is_open}
            self._is_open[watch, name] = False
        else:
            self._is_open.pop((watch, name), None)


class OpenWriters:
    """Tells whether a save may be under way, where no lease tells: by events, else by the clock and by /proc."""

    def __init__(self) -> None:
        self._unclosed = Unclosed()
        self._openers = Openers()

    def expect(self, directory: str, mode: int) -> None:
        """Watch a directory of this mode in advance, if its files will give no lease."""
        self._unclosed.expect(directory, mode)

    def may_have(self, path: str, status: os.stat_result, *, was_closed: bool) -> bool:
        """Return True if a save may be under way. The clock only decides how long to wait: a wrong one costs a moment.

        That a writer was seen to be done (`was_closed`) does not mean that the next one has not begun: only the kernel can
        tell.
        """
        has_writer = self._unclosed.tells(path)
        if has_writer:
            return True
        # The event that tells of a file just emptied comes an instant after that.
        is_whole = status.st_size > 0 and (was_closed or has_writer is False)
        # Any program can set the time of the last write, and none the time of the last change.
        age = abs(time.time() - max(status.st_mtime, status.st_ctime))
        if not is_whole and age < _SETTLE_SECONDS:
            return True
        return has_writer is None and not was_closed and self._openers.have(status)
