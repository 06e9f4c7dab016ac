"""The record of a running daemon in its state directory: process, folder, namespace and URL."""

from __future__ import annotations

import fcntl
import json
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Self

_NAME = "daemon.json"


class FoundUrl(str):
    """A URL that was found by a state directory, where it may be looked for again."""

    __slots__ = ("state",)
    state: str

    def __new__(cls, url: str, state: str) -> Self:
        found = super().__new__(cls, url)
        found.state = state
        return found


def looked_up(url: str) -> str:
    """Return the URL that the state directory has now, if this one is from there and a daemon runs; else the URL itself."""
    if isinstance(url, FoundUrl):
        daemon = running_daemon(url.state)
        if daemon is not None:
            return FoundUrl(daemon["redis"], url.state)
    return url


def write(state: str, *, folder: str, namespace: str, redis: str) -> None:
    """Write the record of this process, with its folder. `redis` is a URL and may hold a password."""
    record = {"pid": os.getpid(), "folder": folder, "namespace": namespace, "redis": redis}
    write_private(os.path.join(state, _NAME), json.dumps(record))


def is_there(state: str) -> bool:
    """Return True unless there is no record in this state directory."""
    with suppress(OSError):  # it cannot be told
        return inode_of(os.path.join(state, _NAME)) is not None
    return True


def remove(state: str) -> None:
    with suppress(OSError):  # the lock tells that no daemon runs
        os.unlink(os.path.join(state, _NAME))


def running_daemon(state: str) -> dict[str, str] | None:
    """Return the record of the daemon of this state directory; None when none runs.

    The record outlives a daemon that is killed; its lock on the file `lock` does not.
    """
    try:
        with open(os.path.join(state, _NAME), encoding="utf-8") as file:
            record: dict[str, str] = json.load(file)
        lock = os.open(os.path.join(state, "lock"), os.O_RDONLY)
    except (OSError, ValueError):
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return record
    except OSError:  # there are no locks here: the process may still be there
        return record if os.path.exists(f"/proc/{record.get('pid')}") else None
    finally:
        os.close(lock)
    return None


def running_daemons() -> dict[str, dict[str, str]]:
    """Return the records of all daemons of this machine that this user may look at, by state directory."""
    states: set[str] = set()
    with suppress(OSError):
        # Who holds a lock on a file called `lock` may be one; `running_daemon` tells.
        for pid in set(re.findall(r"FLOCK\s+ADVISORY\s+WRITE (\d+) ", Path("/proc/locks").read_text(encoding="ascii"))):
            with suppress(OSError):
                for handle in os.listdir(f"/proc/{pid}/fd"):
                    with suppress(OSError):  # it was closed meanwhile
                        file = os.readlink(f"/proc/{pid}/fd/{handle}")
                        if file.endswith("/lock"):
                            states.add(os.path.dirname(file))
    found = {state: running_daemon(state) for state in sorted(states)}
    return {state: record for state, record in found.items() if record is not None}


def inode_of(path: str) -> tuple[int, int] | None:
    """Return the device and inode of a file or directory; None: there is none. Raises OSError if that cannot be told."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino


def write_private(path: str, text: str) -> None:
    """Write a file that only this user can read, and that is never seen half written."""
    handle = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(handle)
    os.replace(f"{path}.new", path)
