"""Digests of files in the folder, to compare contents; a file that cannot be read is neither equal nor absent."""

from __future__ import annotations

import errno
import stat
from contextlib import suppress
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from blocksd.files.beneath import NOT_THERE
from blocksd.files.links import resolve

if TYPE_CHECKING:
    from blocksd.files.root import Root

OTHER = "other"
"""The digest of what is no regular file, or is far larger than any block's."""

UNREAD = "unread"
"""The digest of a file that cannot be read, where that must stop nothing. It equals no other digest."""

_MOST_BYTES = 64 * 1024 * 1024
_READ_AT_ONCE = 1024 * 1024
_NO_FILE = (errno.EXDEV, errno.ENXIO)  # a symlink that leads out of the folder, a socket


class Content(NamedTuple):
    """`digest` is None when there is nothing; `is_open` if a process has it open for writing, as far as that can be told."""

    digest: str | None
    is_open: bool


def digest(data: bytes | None) -> str | None:
    """Return the digest of these bytes; None for no file."""
    return None if data is None else blake2b(data, digest_size=16).hexdigest()


def content(root: Root, path: str) -> Content:
    """Return the content of a file, or of the target of a symlink. Raise OSError if it cannot be told."""
    try:
        handle, has_writer = _open(root, path)
    except OSError as error:
        if error.errno in NOT_THERE:
            return Content(None, is_open=False)
        if error.errno in _NO_FILE:
            return Content(OTHER, is_open=False)
        raise
    try:
        status = root.status(handle)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MOST_BYTES:
            return Content(OTHER, is_open=False)
        is_open = has_writer is True
        hashed = blake2b(digest_size=16)
        while part := root.read(handle, _READ_AT_ONCE):
            hashed.update(part)
        return Content(hashed.hexdigest(), is_open)
    finally:
        with suppress(OSError):
            root.close(handle)


def digest_of(root: Root, path: str) -> str | None:
    """Return the digest of a file; None when there is none. Raise OSError if it cannot be told."""
    return content(root, path).digest


def digest_if_readable(root: Root, path: str) -> str | None:
    """Return the same, or `UNREAD` when it cannot be told."""
    try:
        return digest_of(root, path)
    except OSError:
        return UNREAD


def _open(root: Root, path: str) -> tuple[int, bool | None]:
    """Open a file, or what a symlink leads to, to read it. A FIFO in its place is not waited for."""
    try:
        return root.open_to_read(path)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        return root.open_to_read(resolve(root, path))
