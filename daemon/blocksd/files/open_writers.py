"""Which processes have a file open for writing, as far as /proc lets it be seen: of all processes for root, else of its user."""

from __future__ import annotations

import os
import stat
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_KEPT_SECONDS = 1.0  # a search, at least
_SHARE = 0.05  # of the time, at most, is spent on searches


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
    """What was found by a search a moment ago: one costs milliseconds, and serves all files that are asked for meanwhile."""

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
    """The processes that are seen to have this file open for writing."""
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
