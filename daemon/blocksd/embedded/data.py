"""The data of the embedded server: marked with the server that wrote them, and set aside for another one."""

from __future__ import annotations

import json
import os
import shutil
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from blocksd.settings.record import write_private

if TYPE_CHECKING:
    from blocksd.embedded.binary import Binary

KEPT = 2
"""How many sets of data that were set aside are kept, the newest."""

_MARK = "written-by.json"
_PREFIX = "set-aside-"
_NAMES = ("appendonlydir", "dump.rdb", _MARK)


class ServerData:
    """The data of a server in a directory. The journal can rebuild all but the requests that wait in inboxes."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._aside: str | None = None

    @property
    def exist(self) -> bool:
        """Return True if a server has written anything."""
        return any(os.path.lexists(self._path(name)) for name in _NAMES if name != _MARK)

    def set_aside_foreign(self, binary: Binary) -> str | None:
        """Set the data aside if another kind or major version of server wrote them, and return a message about it."""
        mark = self._mark()
        if mark is None or mark == _mark_of(binary):
            return None
        return self.set_aside(binary, f"{mark['kind']} {mark['major']} wrote them, and the server is {binary.name} now")

    def mark_written_by(self, binary: Binary) -> None:
        """Record which server writes the data from here on."""
        if self._mark() != _mark_of(binary):
            write_private(self._path(_MARK), json.dumps(_mark_of(binary)))

    def set_aside(self, binary: Binary, why: str) -> str:
        """Move the data to a directory with a date in its name, and return a message with the place and the reason."""
        mark = self._mark()
        written = f"{mark['kind']}-{mark['major']}" if mark is not None else "unknown"
        name = f"{_PREFIX}{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{written}"
        self._aside = aside = self._free(self._path(name))
        os.mkdir(aside, mode=0o700)
        for one in _NAMES:
            with suppress(FileNotFoundError):
                os.rename(self._path(one), os.path.join(aside, one))
        self._remove_old()
        return f"the data of the embedded server were set aside, because {why}; they are kept in {aside}"

    def put_back(self) -> None:
        """Replace the present data by those that were set aside last."""
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

    def _remove_old(self) -> None:
        old = sorted(name for name in os.listdir(self._directory) if name.startswith(_PREFIX))
        for name in old[:-KEPT]:
            shutil.rmtree(self._path(name), ignore_errors=True)

    def _free(self, path: str) -> str:
        """Return the path, with a number if it is taken."""
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
