"""A machine for one daemon, on which system calls fail and which loses its power: see failshim.c."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import uuid
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from support import require

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

_SOURCE = Path(__file__).parent / "system" / "failshim.c"
_HEAD = struct.Struct("=QQQ")


def shim(home: Path) -> str:
    """The library that a process is preloaded with."""
    library = home / "failshim.so"
    subprocess.run([require("gcc"), "-shared", "-fPIC", "-O2", "-o", library, _SOURCE, "-ldl"], check=True)
    return str(library)


class Machine:
    """What is below `disk` is as durable as its last sync. What other programs write there counts as synced."""

    def __init__(self, home: Path) -> None:
        self.disk, self._undo = home / "disk", home / "undo"
        self._rate, self._failed, self._boot = home / "rate", home / "failed", home / "boot_id"
        for directory in (self.disk, self._undo):
            directory.mkdir()
        self._failed.touch()
        self.fail(0)
        self._begin_boot()
        self.undone: list[str] = []  # files of which the last cut took something back
        self.env = {
            "LD_PRELOAD": shim(home),
            "SHIM_FAILED": str(self._failed),
            "SHIM_RATE": str(self._rate),
            "SHIM_DISK": str(self.disk),
            "SHIM_UNDO": str(self._undo),
            "SHIM_BOOT": str(self._boot),
        }

    def fail(self, share: float) -> None:
        """This share of the calls fails, within a second."""
        self._rate.write_text(str(share))

    @property
    def failed(self) -> int:
        """How many calls failed."""
        return self._failed.stat().st_size

    def cut_power(self, chance: random.Random | None = None) -> Counter[str]:
        """Take back what was not synced, all of it or a part by chance, and boot. How much is taken back.

        The daemon must have been killed, and nobody else may write below `disk` meanwhile.
        """
        undone, self.undone = Counter({"names undone": 0, "writes undone": 0}), []
        for notes in (path for path in self._undo.iterdir() if path.is_dir()):
            for names in reversed((notes / "names").read_text().splitlines() if (notes / "names").exists() else []):
                if chance is None or chance.random() < 0.5:
                    undone["names undone"] += _rename_back(names.split("\t"), notes)
        files = {
            os.stat(path := os.path.join(directory, name)).st_ino: path
            for directory, _, names in os.walk(self.disk)
            for name in names
        }
        for notes in (path for path in self._undo.iterdir() if not path.is_dir()):
            writes = list(_writes_in(notes.read_bytes()))
            kept = 0 if chance is None or chance.random() < 0.3 else chance.randint(0, len(writes))
            if (number := int(notes.name)) in files and writes[kept:]:
                with open(files[number], "r+b") as file:
                    for offset, size, data in reversed(writes[kept:]):
                        file.seek(offset)
                        file.write(data)
                        file.truncate(size)
                undone["writes undone"] += len(writes) - kept
                self.undone.append(files[number])
        shutil.rmtree(self._undo)
        self._undo.mkdir()
        self._begin_boot()
        return undone

    def _begin_boot(self) -> None:
        self._boot.write_text(str(uuid.uuid4()))


def _writes_in(notes: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Where each write began, how long the file was before it, and what was there. One whose note is torn never began."""
    at = 0
    while at + _HEAD.size <= len(notes):
        offset, size, count = _HEAD.unpack_from(notes, at)
        at += _HEAD.size + count
        if at > len(notes):
            return
        yield offset, size, notes[at - count : at]


def _rename_back(fields: list[str], store: Path) -> bool:
    """Undo an operation on names: give each the file it had before, unless one of them has another than after it.

    The fields are a path, the inode it had before and the one it has after, and so on. `store` has the files that lost
    their names.
    """
    slots = [(Path(path), int(was), int(now)) for path, was, now in zip(*[iter(fields)] * 3, strict=True)]
    if any(
        not path.parent.is_dir() or (path.stat().st_ino if os.path.lexists(path) else 0) != now
        for path, _, now in slots
    ):
        return False
    for path, _, now in slots:
        if now and not (store / str(now)).exists():
            os.link(path, store / str(now))
        path.unlink(missing_ok=True)
    for path, was, _ in slots:
        if was:
            os.link(store / str(was), path)
    return True
