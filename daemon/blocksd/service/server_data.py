"""The data of the embedded server: which kind and major version of server wrote them, and where they go when it is another."""

from __future__ import annotations

import json
import os
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass

from blocksd.settings.record import write_private

KEPT = 2
"""How many sets of data are kept that were set aside: the newest."""

_MARK = "written-by.json"
_PREFIX = "set-aside-"
_NAMES = ("appendonlydir", "dump.rdb", _MARK)


@dataclass(frozen=True, slots=True)
class Binary:
    """A server program: where it is, and what it calls itself."""

    path: str
    name: str


class ServerData:
    """What a server has written in a directory. It can be made anew from the journal, but for what waits in inboxes."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._aside: str | None = None

    @property
    def exist(self) -> bool:
        """Return True if a server has written anything."""
        return any(os.path.lexists(self._path(name)) for name in _NAMES if name != _MARK)

    def belong_to(self, binary: Binary) -> str | None:
        """Set the data aside if another kind or major version of server wrote them; a sentence that says so, else None."""
        mark = self._mark()
        if mark is None or mark == _mark_of(binary):
            return None
        return self.set_aside(binary, f"{mark['kind']} {mark['major']} wrote them, and the server is {binary.name} now")

    def written_by(self, binary: Binary) -> None:
        """Note which server writes here from now on."""
        if self._mark() != _mark_of(binary):
            write_private(self._path(_MARK), json.dumps(_mark_of(binary)))

    def set_aside(self, binary: Binary, why: str) -> str:
        """Move the data to a directory with a date in its name; a sentence that says where they are, and why."""
        mark = self._mark()
        written = f"{mark['kind']}-{mark['major']}" if mark is not None else "unknown"
        name = f"{_PREFIX}{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{written}"
        self._aside = aside = self._free(self._path(name))
        os.mkdir(aside, mode=0o700)
        for one in _NAMES:
            with suppress(FileNotFoundError):
                os.rename(self._path(one), os.path.join(aside, one))
        self._forget_old()
        return f"the data of the embedded server were set aside, since {why}; they are kept in {aside}"

    def put_back(self) -> None:
        """Put back what was set aside last, in place of what was written since."""
        aside, self._aside = self._aside, None
        if aside is None:
            return
        for one in _NAMES:
            path = self._path(one)
            shutil.rmtree(path, ignore_errors=True)
            with suppress(FileNotFoundError, IsADirectoryError):
                os.unlink(path)
            with suppress(FileNotFoundError):
                os.rename(os.path.join(aside, one), path)
        with suppress(OSError):
            os.rmdir(aside)

    def _forget_old(self) -> None:
        kept = sorted(name for name in os.listdir(self._directory) if name.startswith(_PREFIX))
        for name in kept[:-KEPT]:
            shutil.rmtree(self._path(name), ignore_errors=True)

    def _free(self, path: str) -> str:
        """The path, or the next after it that nothing has."""
        free, number = path, 1
        while os.path.lexists(free):
            number += 1
            free = f"{path}-{number}"
        return free

    def _mark(self) -> dict[str, object] | None:
        with suppress(OSError, ValueError), open(self._path(_MARK), encoding="utf-8") as file:
            mark = json.load(file)
            if isinstance(mark, dict) and mark.keys() == {"kind", "major"}:
                return mark
        return None

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, name)


def _mark_of(binary: Binary) -> dict[str, object]:
    kind, _, version = binary.name.partition(" ")
    return {"kind": kind, "major": version.partition(".")[0]}
