"""What a running daemon says of itself in its state directory."""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import suppress

_NAME = "daemon.json"


def write(state: str, *, folder: str, namespace: str, redis: str) -> None:
    """Say that this process serves the folder, and where. `redis` is a URL and may hold a password."""
    record = {"pid": os.getpid(), "folder": folder, "namespace": namespace, "redis": redis}
    write_private(os.path.join(state, _NAME), json.dumps(record))


def remove(state: str) -> None:
    with suppress(OSError):  # the lock tells that nobody runs
        os.unlink(os.path.join(state, _NAME))


def running_daemon(state: str) -> dict[str, str] | None:
    """What the daemon of this state directory says of itself; None when none runs.

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


def write_private(path: str, text: str) -> None:
    """A file only this user can read, never seen half written."""
    handle = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(handle)
    os.replace(f"{path}.new", path)
