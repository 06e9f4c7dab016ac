"""Ids of this machine in this boot, and of a directory on it: two machines may share names and paths."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os

_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_MACHINE_IDS = ("/etc/machine-id", "/var/lib/dbus/machine-id")


def boot_id() -> str:
    """Return the kernel's random id of this boot, which containers share with their host; empty if it is unknown."""
    return _read(_BOOT_ID)


def machine_id() -> str:
    """Return an id of this machine in this boot; empty if it is unknown.

    /etc/machine-id is not enough: cloned machines share it, and containers may have none. Two processes with the same id
    therefore see each other's locks. The id is hashed, because machine-id(5) asks not to publish it.
    """
    boot = boot_id()
    if not boot:
        return ""
    machine = next(filter(None, map(_read, _MACHINE_IDS)), "")
    return hashlib.sha256(f"blocksd {machine} {boot}".encode()).hexdigest()[:16]


def folder_id(status: os.stat_result) -> str:
    """Return an id of a directory on its machine: its device and inode."""
    return f"{status.st_dev:x}:{status.st_ino:x}"


def _read(path: str) -> str:
    with suppress(OSError), open(path, encoding="ascii", errors="replace") as file:
        return file.read(256).strip()
    return ""
