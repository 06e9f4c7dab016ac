"""Swaps one database file for another, so that no crash and no power cut loses both."""

from __future__ import annotations

import os
import stat
import time
from contextlib import suppress

_LOG = "-wal"
_OF_THE_FILE = (_LOG, "-shm", "-journal")  # SQLite would take those of the one for those of the other


def put_in_place(fresh: str, path: str, why: str) -> str | None:
    """Put a whole database in the place of what is at `path`; return where that is kept, if there was anything.

    The replaced file keeps its content under a second name with `why` in it. From the moment at which `fresh` has the name
    that `finish` looks for, every start finishes this, whatever interrupts it.
    Raise OSError if it could not be done; what is at `path` is what was there, or `finish` does the rest.
    """
    _sync(fresh)
    aside = _keep(path, why)
    os.replace(fresh, _next(path))
    _sync_directory(path)
    _move(path)
    return aside


def finish(path: str) -> None:
    """Finish an interrupted swap: a whole database that was to have this place gets it.

    Raise OSError if it could not be done.
    """
    if os.path.lexists(_next(path)):
        with suppress(FileNotFoundError):
            if os.lstat(path).st_nlink < 2:  # its second name did not reach the disk, or it came there since
                _keep(path, "replaced")
                _sync_directory(path)
        _move(path)


def remove(path: str) -> None:
    """Remove a database that is not whole, with what belongs to it."""
    for suffix in ("", *_OF_THE_FILE):
        with suppress(FileNotFoundError):
            os.unlink(path + suffix)


def _next(path: str) -> str:
    return f"{path}.next"


def _move(path: str) -> None:
    for suffix in _OF_THE_FILE:
        with suppress(FileNotFoundError):
            os.unlink(path + suffix)
    _sync_directory(path)  # the new database is never seen with the log of the one before
    os.replace(_next(path), path)
    _sync_directory(path)


def _keep(path: str, why: str) -> str | None:
    """Give what is at `path` a second name; return that, or None if there is nothing."""
    if not os.path.lexists(path):
        return None
    first = aside = f"{path}.{why}-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}"
    number = 1
    while os.path.lexists(aside):
        number += 1
        aside = f"{first}-{number}"
    if not stat.S_ISREG(os.lstat(path).st_mode):
        os.rename(path, aside)
        return aside
    for suffix in (_LOG, ""):  # where the database is, its log is
        with suppress(FileNotFoundError):
            _add_name(path + suffix, aside + suffix)
    return aside


def _add_name(path: str, name: str) -> None:
    try:
        os.link(path, name)
    except FileNotFoundError:
        raise
    except OSError:  # a file system without hard links
        part = f"{name}.part"
        try:
            _copy(path, part)
            os.replace(part, name)
        except OSError:
            with suppress(OSError):
                os.unlink(part)
            raise


def _copy(path: str, copy: str) -> None:
    with open(path, "rb") as source, open(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as target:
        while data := source.read(1 << 20):
            target.write(data)
        target.flush()
        os.fsync(target.fileno())


def _sync_directory(path: str) -> None:
    _sync(os.path.dirname(path) or ".")


def _sync(path: str) -> None:
    """Have a file, or a directory's entries, on disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
