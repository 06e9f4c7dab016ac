"""The marker in the folder of a follower, which says whose copy the folder is."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from blocksd.errors import InvalidFile
from blocksd.files.beneath import NOT_THERE

if TYPE_CHECKING:
    from blocksd.files.root import Root

NAME = ".blocksd.follow"
"""The marker's file, at the top of the folder. Its name is hidden, so that it is no block, and no temporary of a daemon."""

_MOST_BYTES = 4096
_ASIDE = re.compile(re.escape(NAME) + "-[0-9a-f]{16}")


class Marker(NamedTuple):
    """Whose copy a folder is: `id` names one follower's state directory, `epoch` the journal that the texts are of."""

    id: str
    namespace: str
    epoch: str


def new_id() -> str:
    """Return an id for a new follower."""
    return secrets.token_hex(16)


def read(root: Root) -> Marker | None:
    """Return the marker of a folder; None if it has none.

    Raises:
        InvalidFile: there is one that cannot be understood.
        OSError: it cannot be read.
    """
    try:
        handle = root.open(NAME, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in NOT_THERE:
            return None
        raise
    try:
        data = root.read(handle, _MOST_BYTES)
    finally:
        root.close(handle)
    try:
        facts = json.loads(data)
        return Marker(*(str(facts[name]) for name in Marker._fields))
    except (ValueError, TypeError, KeyError):
        raise InvalidFile(f"the marker {NAME} is not as a follower writes it") from None


def tidy(root: Root) -> None:
    """Remove what a crash has left beside the marker. What cannot be removed harms nothing."""
    with suppress(OSError), root.scandir("") as entries:
        for name in [entry.name for entry in entries if _ASIDE.fullmatch(entry.name)]:
            root.unlink(name)


def write(root: Root, marker: Marker) -> None:
    """Write the marker: it is whole, and on disk, when this returns.

    Raises:
        OSError: it cannot be written.
    """
    aside = f"{NAME}-{secrets.token_hex(8)}"
    handle = root.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        data = memoryview(json.dumps(marker._asdict()).encode() + b"\n")
        while data:
            data = data[root.write(handle, data) :]
        root.sync(handle)
    finally:
        root.close(handle)
    root.rename(aside, NAME)
    try:
        root.sync_directory("")
    except OSError as error:
        if error.errno != errno.EINVAL:  # of a file system that syncs no directories
            raise
